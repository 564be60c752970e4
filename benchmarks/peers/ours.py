"""remote_gym itself: direct and over gRPC, workers in processes and in threads, single and vector environments.

Options: ``connection``, ``use_thread``, ``poll_us``, ``grpc_port``, ``secure`` (True), ``workers``, ``chunk`` (steps in
a `step_many`), ``sessions`` (measure the memory of so many instead of stepping), ``guest`` (True for environments in
another process of the same Python, as if it were another one), ``awaits`` (True for an asynchronous environment).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import remote_gym
from accounting import descendants, private_bytes
from case import Case, Figures, NotHere
from measuring import Stopwatch, measure_awaited, measure_environment, measure_steps, sampled_actions
from peer import main
from remote_gym import RemoteEnvironment, ServerOptions, create_remote_environment_server
from serving import HOST, Servers, Way, way_to
from workloads import create, renders

KNOWN = inspect.signature(ServerOptions).parameters
"""Options of the checkout that is measured, which may be an earlier one."""


@contextlib.contextmanager
def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Serve `workloads` until the block ends."""
    entrypoint = Path(__file__).with_name("workloads.py")
    os.chdir(entrypoint.parent)  # an entrypoint has to be below where its server runs
    credentials = tuple(job["credentials"]) if job["credentials"] else None
    arguments: dict[str, Any] = {"entrypoint": entrypoint.name, **job["arguments"]}
    options = {name: value for name, value in job["options"].items() if name in KNOWN}
    with create_remote_environment_server(arguments, job.get("host", HOST), 0, credentials, **options) as server:
        # Before there was one port gRPC had its own, and direct connections a second one.
        others = {name: getattr(server, name, 0) for name in ("grpc_port", "direct_port")}
        yield {"port": server.port, **others}


def measure(case: Case, servers: Servers) -> Figures:
    """Measure a single environment, a vector, or the memory of sessions."""
    options = dict(case.options)
    secure = options.get("secure", True)
    job = {
        "arguments": {"command": [sys.executable]} if options.get("guest") else {},
        "credentials": [case.pem("server"), case.pem("server-key"), case.pem("ca")] if secure else None,
        "options": {name: options[name] for name in ("use_thread", "poll_us", "grpc_port") if name in options},
    }
    if job["arguments"] and "command" not in remote_gym.RemoteArgs.__annotations__:
        raise NotHere("remote_gym has no guests yet")
    create("zero" if case.num_envs else case.workload)  # says so at once where the workload is not here
    told = servers.start(job)
    ports = [port for port in told.values() if port]
    with way_to(case, *ports) as way:
        arguments: dict[str, Any] = {
            "url": way.host,
            "port": told["grpc_port"] or told["port"],
            "remote_args": {"entrypoint_kwargs": {"workload": case.workload}},
            "client_credentials_paths": (
                (case.pem("ca"), case.pem("client"), case.pem("client-key")) if secure else None
            ),
            **{name: options[name] for name in ("connection", "poll_us") if name in options},
        }
        if "sessions" in options:
            return measure_memory(arguments, options["sessions"])
        if case.num_envs:
            return measure_vector(case, arguments, way)
        if options.get("awaits"):
            return asyncio.run(measure_asynchronous(case, arguments, way))
        return measure_single(case, arguments, way)


def measure_single(case: Case, arguments: dict[str, Any], way: Way) -> Figures:
    """Open one environment on a server that has opened one before, and step it."""
    # With each step, since nobody looks at the frames that are measured.
    mode = "rgb_array" if renders(case.workload) else None
    make = functools.partial(RemoteEnvironment, render_mode=mode, frames="step")
    with contextlib.closing(make(**arguments)) as first:
        first.reset()
    with Stopwatch() as opening:
        environment = make(**arguments)
        environment.reset(seed=1)
    with contextlib.closing(environment):
        actions = sampled_actions(environment)
        if "chunk" in case.options:
            figures = measure_chunks(case, environment, actions, way)
        else:
            figures = measure_environment(case, environment, actions, way=way)
        return {"open_ms": opening.milliseconds, **figures}


async def measure_asynchronous(case: Case, arguments: dict[str, Any], way: Way) -> Figures:
    """Step one environment in an event loop that has nothing else to do."""
    make = getattr(remote_gym, "AsyncRemoteEnvironment", None)
    if make is None:
        raise NotHere("remote_gym has no AsyncRemoteEnvironment yet")
    async with make(**arguments) as first:
        await first.reset()
    with Stopwatch() as opening:
        environment = make(**arguments)
        await environment.reset(seed=1)
    async with environment:
        actions = sampled_actions(environment)

        async def step(number: int) -> bool:
            _, _, terminated, truncated, _ = await environment.step(actions[number % len(actions)])
            return bool(terminated or truncated)

        return {"open_ms": opening.milliseconds, **await measure_awaited(case, step, environment.reset, way)}


def measure_chunks(case: Case, environment: Any, actions: list[Any], way: Way) -> Figures:
    """Send several actions at once."""
    if not hasattr(environment, "step_many"):
        raise NotHere("remote_gym has no step_many yet")
    chunk = case.options["chunk"]

    def step(number: int) -> bool:
        environment.step_many(actions[:chunk])
        return False

    return measure_steps(case, step, per_call=chunk, way=way)


def measure_vector(case: Case, arguments: dict[str, Any], way: Way) -> Figures:
    """Step a vector environment, all of it at once."""
    vector_type = getattr(remote_gym, "RemoteVectorEnv", None)
    if vector_type is None:
        raise NotHere("remote_gym has no RemoteVectorEnv yet")
    workers = case.options.get("workers", 1)
    with Stopwatch() as opening:
        environment = vector_type(num_envs=case.num_envs, workers=workers, **arguments)
        environment.reset(seed=1)
    with contextlib.closing(environment):
        actions = sampled_actions(environment, 16)

        def step(number: int) -> bool:
            environment.step(actions[number % len(actions)])
            return False

        figures = measure_steps(case, step, per_call=case.num_envs, way=way)
        return {"open_ms": opening.milliseconds, **figures}


def measure_memory(arguments: dict[str, Any], sessions: int) -> Figures:
    """Open that many idle sessions beside a first one."""
    with contextlib.ExitStack() as stack:

        def open_one() -> None:
            stack.enter_context(contextlib.closing(RemoteEnvironment(**arguments))).reset()

        open_one()
        before = private_bytes(descendants())
        for _ in range(sessions):
            open_one()
        return {"memory_mib_per_session": (private_bytes(descendants()) - before) / sessions / 2**20}


if __name__ == "__main__":
    main(measure, serve)
