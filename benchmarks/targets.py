"""What we want to be true, as ratios within one repeat; whether it is, is told either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from results import lookup

Repeat = Mapping[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Target:
    """A figure and where it should be.

    Attributes:
        what: In words.
        at_most: Whether less is better.
        wanted: The bound.
        unit: Of both.
        compute: The figure, of one repeat.
    """

    what: str
    at_most: bool
    wanted: float
    unit: str
    compute: Callable[[Repeat], float]

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value <= self.wanted if self.at_most else value >= self.wanted


def _p50(repeat: Repeat, peer: str, case: str) -> float:
    return lookup(repeat, peer, case, "p50_us")


def _rate(repeat: Repeat, peer: str, case: str) -> float:
    return lookup(repeat, peer, case, "steps_per_s")


def _beyond_the_step(repeat: Repeat, case: str) -> float:
    return _p50(repeat, "ours", case) - _p50(repeat, "in_process", "cartpole")


def _beyond_the_worker(repeat: Repeat, guest: str, worker: str) -> float:
    return _p50(repeat, "ours", guest) - _p50(repeat, "ours", worker)


def _predecessor(repeat: Repeat) -> float:
    return min(_p50(repeat, "remote_gym_073", case) for case in ("thread", "thread-plain"))


def _echo(repeat: Repeat) -> float:
    return min(_p50(repeat, "floor_grpc", case) for case in ("sync", "aio"))


TARGETS = (
    Target(
        "direct, CartPole, beyond the environment's own step: times an mTLS socket that polls likewise",
        True,
        2.0,
        "×",
        lambda repeat: _beyond_the_step(repeat, "direct") / _p50(repeat, "floor_socket", "polling"),
    ),
    Target(
        "direct: times faster than remote-gym 0.7.3 in its fastest mode",
        False,
        20,
        "×",
        lambda repeat: _predecessor(repeat) / _p50(repeat, "ours", "direct"),
    ),
    Target(
        "direct: times faster than openenv",
        False,
        12,
        "×",
        lambda repeat: _p50(repeat, "openenv", "cartpole") / _p50(repeat, "ours", "direct"),
    ),
    Target(
        "direct: times faster than AsyncVectorEnv of one",
        False,
        3,
        "×",
        lambda repeat: _p50(repeat, "in_process", "async-1") / _p50(repeat, "ours", "direct"),
    ),
    Target(
        "in another Python, CartPole: beyond a worker's step and two pipes",
        True,
        25,
        "µs",
        lambda repeat: _beyond_the_worker(repeat, "guest", "direct") - _p50(repeat, "floor_pipe", "cartpole"),
    ),
    Target(
        "in another Python, 640×480×3 observations: beyond a worker's step",
        True,
        1_500,
        "µs",
        lambda repeat: _beyond_the_worker(repeat, "guest-vga", "vga"),
    ),
    Target(
        "gRPC, thread, beyond the environment's own step: times a grpcio echo",
        True,
        1.3,
        "×",
        lambda repeat: _beyond_the_step(repeat, "grpc-thread") / _echo(repeat),
    ),
    Target(
        "gRPC, worker process, beyond the environment's own step: times a grpcio echo",
        True,
        1.8,
        "×",
        lambda repeat: _beyond_the_step(repeat, "grpc") / _echo(repeat),
    ),
    Target(
        "gRPC through the server's one port: times gRPC on a port of its own",
        True,
        1.25,
        "×",
        lambda repeat: _p50(repeat, "ours", "grpc") / _p50(repeat, "ours", "grpc-port"),
    ),
    Target(
        "128 CartPoles, one worker: steps/s, times SyncVectorEnv's in process",
        False,
        0.9,
        "×",
        lambda repeat: _rate(repeat, "ours", "vector-128") / _rate(repeat, "in_process", "sync-128"),
    ),
    Target(
        "128 CartPoles, two workers: steps/s, times SyncVectorEnv's in process",
        False,
        1.5,
        "×",
        lambda repeat: _rate(repeat, "ours", "vector-128-2") / _rate(repeat, "in_process", "sync-128"),
    ),
    Target(
        "128 CartPoles, two workers: steps/s, times AsyncVectorEnv's",
        False,
        6,
        "×",
        lambda repeat: _rate(repeat, "ours", "vector-128-2") / _rate(repeat, "in_process", "async-128"),
    ),
    Target(
        "16 environments of 10 ms, 16 workers: steps/s, of the ideal",
        False,
        0.95,
        "",
        lambda repeat: _rate(repeat, "ours", "vector-wait10-16") / (16 / 0.010),
    ),
    Target(
        "640×480×3 observations, direct: bytes/s, of an mTLS socket's",
        False,
        0.6,
        "",
        lambda repeat: _p50(repeat, "floor_socket", "vga") / _p50(repeat, "ours", "vga"),
    ),
    Target(
        "round trip of 100 ms, 16 environments in flight: steps/s, of the ideal",
        False,
        0.9,
        "",
        lambda repeat: _rate(repeat, "ours", "rtt-100-16") * 0.100 / 16,
    ),
    Target(
        "round trip of 100 ms, step_many(64): steps in a round trip",
        False,
        55,
        "",
        lambda repeat: _rate(repeat, "ours", "rtt-100-many") * 0.100,
    ),
    Target(
        "open to first observation, warm server, CartPole",
        True,
        150,
        "ms",
        lambda repeat: lookup(repeat, "ours", "direct", "open_ms"),
    ),
    Target(
        "an idle session's worker: memory of its own",
        True,
        12,
        "MiB",
        lambda repeat: lookup(repeat, "ours", "memory", "memory_mib_per_session"),
    ),
)
