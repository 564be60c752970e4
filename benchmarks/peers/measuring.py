"""Stepping with a clock in hand, the same way for every peer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import numpy as np

from accounting import cpu_seconds_between, cpu_times, descendants, placed
from case import Case, Figures
from serving import HOST, Way

WARM_UP = 0.25
"""Seconds of steps that are not counted, as a part of the case's."""
LEAST_STEPS = 8
ENOUGH_STEPS = 100_000
DIRECT = Way(HOST, None)


class Environment(Protocol):
    """As much of an environment as is measured."""

    def reset(self) -> Any: ...  # noqa: D102
    def step(self, action: Any) -> Any: ...  # noqa: D102


def measure_environment(
    case: Case,
    environment: Environment,
    actions: list[Any],
    *,
    after: Callable[[Environment], object] = lambda _: None,
    way: Way = DIRECT,
) -> Figures:
    """Step a single environment that was reset, again and again, through as many episodes as there are.

    Args:
        case: What is measured.
        environment: Its `step` returns ``(observation, reward, terminated, truncated, info)``.
        actions: To repeat.
        after: Belongs to each step; for frames that are asked for.
        way: To the server, where there is one.
    """

    def step(number: int) -> bool:
        _, _, terminated, truncated, _ = environment.step(actions[number % len(actions)])
        after(environment)
        return bool(terminated or truncated)

    return measure_steps(case, step, reset=environment.reset, way=way)


def measure_steps(
    case: Case,
    step: Callable[[int], bool],
    *,
    reset: Callable[[], object] = lambda: None,
    per_call: int = 1,
    way: Way = DIRECT,
) -> Figures:
    """Time calls one by one.

    Args:
        case: Tells for how long, and on which cores.
        step: Called with 0, 1, 2, ...; says whether an episode ended.
        reset: Called after it did; counts for the steps per second, but not for the time of a step.
        per_call: Environment steps in a call.
        way: To the server, where there is one; a proxy on it counts bytes, and its own work is not counted.
    """
    with placed(case.placement, descendants() - way.pids):
        _loop(step, reset, WARM_UP * case.seconds)
        used = _Used(way)
        times = _loop(step, reset, case.seconds)
        return used.figures(times, per_call)


async def measure_awaited(
    case: Case, step: Callable[[int], Awaitable[bool]], reset: Callable[[], Awaitable[object]], way: Way = DIRECT
) -> Figures:
    """Time calls that are awaited, one by one; arguments are those of `measure_steps`."""
    with placed(case.placement, descendants() - way.pids):
        await _loop_awaited(step, reset, WARM_UP * case.seconds)
        used = _Used(way)
        times = await _loop_awaited(step, reset, case.seconds)
        return used.figures(times, 1)


class _Used:
    """What is used of the machine from now on."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._servers = descendants() - way.pids
        self._passed = way.counted()
        self._cpu, self._others = time.process_time(), cpu_times(self._servers)
        self._begin = time.perf_counter()

    def figures(self, times: list[int], per_call: int) -> Figures:
        """Of calls that took so many nanoseconds each."""
        elapsed = time.perf_counter() - self._begin
        used = time.process_time() - self._cpu
        others_used = cpu_seconds_between(self._others, cpu_times(self._servers))
        passed = zip(self._way.counted(), self._passed, strict=True)
        to_server, from_server = (now - before for now, before in passed)
        steps = len(times) * per_call
        counted = {"bytes_to_server_per_step": to_server / steps, "bytes_from_server_per_step": from_server / steps}
        return {
            **summarise(times),
            "steps": steps,
            "steps_per_s": steps / elapsed,
            "client_cpu_ms_per_step": used / steps * 1e3,
            "server_cpu_ms_per_step": others_used / steps * 1e3,
            **(counted if self._way.pids else {}),
        }


async def _loop_awaited(
    step: Callable[[int], Awaitable[bool]], reset: Callable[[], Awaitable[object]], seconds: float
) -> list[int]:
    now, times = time.perf_counter_ns, []
    end = now() + int(seconds * 1e9)
    number = 0
    while number < LEAST_STEPS or (now() < end and number < ENOUGH_STEPS):
        begin = now()
        done = await step(number)
        times.append(now() - begin)
        number += 1
        if done:
            await reset()
    return times


def _loop(step: Callable[[int], bool], reset: Callable[[], object], seconds: float) -> list[int]:
    now, times = time.perf_counter_ns, []
    end = now() + int(seconds * 1e9)
    number = 0
    while number < LEAST_STEPS or (now() < end and number < ENOUGH_STEPS):
        begin = now()
        done = step(number)
        times.append(now() - begin)
        number += 1
        if done:
            reset()
    return times


def summarise(times: list[int]) -> Figures:
    """The distribution of times in nanoseconds, in microseconds."""
    p50, p99 = np.percentile(times, [50, 99]) / 1e3
    return {"p50_us": float(p50), "p99_us": float(p99), "mean_us": float(np.mean(times)) / 1e3}


def sampled_actions(environment: Any, count: int = 256) -> list[Any]:
    """Actions of a seeded space, so that all peers take the same."""
    environment.action_space.seed(1)
    return [environment.action_space.sample() for _ in range(count)]


class Stopwatch(contextlib.AbstractContextManager["Stopwatch"]):
    """Times a block, in milliseconds."""

    milliseconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.milliseconds = (time.perf_counter() - self._begin) * 1e3
