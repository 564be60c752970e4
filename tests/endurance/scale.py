"""A thousand sessions on one server, some of them busy; then ten thousand opened and closed. Prints what it takes.

`python3 ci/task.py scale`. Ends with status 1 if a session is refused or lost, or something is left behind or grows.
"""

from __future__ import annotations

import argparse
import os
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from endurance.serving import MIB, Served, descriptors, memory, percentiles, private, serving, slope, threads, wait_for
from remote_gym import RemoteEnvironment
from remote_gym.protocol.constants import PROTOCOL_VERSION, SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.v1 import remote_gym_pb2 as pb

GROWTH = 5 * MIB
"""By which the server's memory may grow while ten thousand sessions come and go: it remembers 4,096 that ended."""


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Do both, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0, help="that those step, at each pace")
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=8, help="sessions opened at the same time")
    chosen = parser.parse_args()
    say(f"{os.cpu_count()} cores; server, workers and clients share them, over mutual TLS")
    faults: list[str] = []
    # As a login shell has it: the server has to help itself, while the clients here are more than one program's.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16 * chosen.sessions + 1024), hard))
    with serving(max_sessions=chosen.sessions + 8) as served:
        faults += hold(served, chosen.sessions, chosen.busy, chosen.seconds, chosen.at_once)
        faults += come_and_go(served, chosen.cycles, chosen.at_once)
    for fault in faults:
        say(f"FAULT: {fault}")
    say("verdict: " + ("not good" if faults else "good"))
    raise SystemExit(bool(faults))


def hold(served: Served, sessions: int, busy: int, seconds: float, at_once: int) -> list[str]:
    """Open as many, step some of them, and close all."""
    faults = []
    before = Taken.of(served)
    environments, took = open_all(served, sessions, at_once)
    opened = Taken.of(served)
    say(f"opened {sessions} sessions in {took:.1f} s, {sessions / took:.1f} a second, {at_once} at once")
    workers = served.workers()
    if len(workers) != sessions:
        faults.append(f"there are {len(workers)} workers for {sessions} sessions")
    each = sum(memory(pid) for pid in workers) / len(workers) / MIB
    server = (opened.memory - before.memory) / sessions / 1024
    say(f"memory: {each:.1f} MiB a worker; {server:.0f} KiB a session in the server")
    more = (opened.descriptors - before.descriptors) / sessions
    say(f"server: {opened.descriptors} descriptors, {more:.1f} a session; {opened.threads} threads")
    for pace, what in ((0.0, "at full rate"), (0.1, "ten steps a second each")):
        latencies, elapsed = step_all(environments[:busy], seconds, pace)
        rate = len(latencies) / elapsed
        say(f"{busy} of them busy, {what}: {rate:,.0f} steps a second in all; {percentiles(latencies)}")
    lost = sum(environment._session is None or environment._session.lost for environment in environments)
    if lost:
        faults.append(f"{lost} sessions were lost")
    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda environment: environment.close(), environments))
    say(f"closed them in {time.monotonic() - begun:.1f} s")
    if not wait_for(lambda: not served.workers(), 30.0):
        faults.append(f"{len(served.workers())} workers are left")
    return faults


def open_all(served: Served, sessions: int, at_once: int) -> tuple[list[RemoteEnvironment], float]:
    def open_one(_: int) -> RemoteEnvironment:
        environment = RemoteEnvironment("localhost", served.port, None, served.credentials)
        environment.reset()
        return environment

    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        environments = list(pool.map(open_one, range(sessions)))
    return environments, time.monotonic() - begun


def step_all(environments: list[RemoteEnvironment], seconds: float, pace: float) -> tuple[list[float], float]:
    """Step each in a thread of its own; seconds that each step took, and all of it."""
    end = time.monotonic() + seconds

    def play(environment: RemoteEnvironment) -> list[float]:
        latencies = []
        while time.monotonic() < end:
            begun = time.perf_counter()
            _, _, _, truncated, _ = environment.step(environment.action_space.sample())
            latencies.append(time.perf_counter() - begun)
            if truncated:
                environment.reset()
            time.sleep(max(0.0, pace - (time.perf_counter() - begun)) if pace else 0.0)
        return latencies

    begun = time.monotonic()
    with ThreadPoolExecutor(len(environments)) as pool:
        found = [latency for latencies in pool.map(play, environments) for latency in latencies]
    return found, time.monotonic() - begun


class Taken:
    """What the server has taken of the machine at one moment."""

    def __init__(self, memory: int, descriptors: int, threads: int, processes: int) -> None:
        self.memory, self.descriptors, self.threads, self.processes = memory, descriptors, threads, processes

    @classmethod
    def of(cls, served: Served) -> Taken:
        return cls(private(served.pid), descriptors(served.pid), threads(served.pid), len(served.workers()))


def come_and_go(served: Served, cycles: int, at_once: int) -> list[str]:
    """Open and close so many sessions, some at a time, and look at the server ever so often."""
    say(f"opening and closing {cycles:,} sessions, {at_once} at once")
    samples: list[tuple[int, Taken]] = []
    begun = time.monotonic()
    with channel_to(served) as channel:
        batch = max(1, cycles // 40)
        for done in range(0, cycles, batch):
            open_and_close(channel, min(batch, cycles - done), at_once)
            wait_for(lambda: not served.workers(), 30.0)
            samples.append((done + batch, Taken.of(served)))
    took = time.monotonic() - begun
    # The first tenth warms up what is kept: pools, caches, and the reasons why sessions ended.
    later = samples[len(samples) // 10 :]
    counts = [count for count, _ in later]
    say(f"{cycles:,} cycles in {took:.0f} s, {cycles / took:.1f} a second")
    faults = []
    bounds = {"memory": GROWTH, "descriptors": 2, "threads": 2, "processes": 0}
    for name, allowed in bounds.items():
        values = [getattr(taken, name) for _, taken in later]
        grown = slope(counts, values) * cycles
        unit, size = (1024, " KiB") if name == "memory" else (1, "")
        seen = f"{name} {values[0] // unit:,} to {values[-1] // unit:,}{size}"
        say(f"  {seen}; by the slope {grown / unit:+.1f}{size} in {cycles:,} cycles")
        if grown > allowed:
            faults.append(f"{name} grew by {grown / unit:.0f}{size} in {cycles:,} cycles")
    return faults


def channel_to(served: Served) -> grpc.Channel:
    ca, certificate, key = (path.read_bytes() for path in served.credentials)
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(f"localhost:{served.port}", credentials)


def open_and_close(channel: grpc.Channel, count: int, at_once: int) -> None:
    opening = pb.OpenRequest(protocol_version=PROTOCOL_VERSION).SerializeToString()
    open_session: Callable[..., bytes] = channel.unary_unary(f"/{SERVICE_NAME}/Open")
    close_session: Callable[..., bytes] = channel.unary_unary(f"/{SERVICE_NAME}/Close")
    left, lock = iter(range(count)), threading.Lock()

    def cycle() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            answer = pb.OpenResponse.FromString(open_session(opening, timeout=120))
            if not answer.HasField("session"):
                raise RuntimeError(f"not opened: {answer.error.message}")
            metadata = ((SESSION_KEY, answer.session.id), (TOKEN_KEY, answer.session.token))
            close_session(b"", timeout=120, metadata=metadata)

    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(cycle) for _ in range(at_once)]:
            future.result()


if __name__ == "__main__":
    main()
