"""Step at full rate for half an hour, sessions coming and going meanwhile, and see whether anything grows.

`python3 ci/task.py soak --minutes 30`. Ends with status 1 if something grows beyond its bound, or a step fails.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from endurance.serving import MIB, Served, descriptors, private, serving, slope, threads
from remote_gym import RemoteEnvironment

WARM_UP = 0.2
"""Of the time, at the beginning: pools and caches fill, and allocators take what they will keep."""
KINDS = ("direct", "grpc")


@dataclass
class Sample:
    """What both ends have at one moment."""

    seconds: float
    server_memory: float  # MiB of its own pages, as all memory here
    client_memory: float
    workers_memory: float  # of those that stay
    server_descriptors: int
    client_descriptors: int
    server_threads: int
    client_threads: int
    processes: int
    p50: float  # ms, of the steps since the last sample
    p99: float


# By which each may grow in an hour, by the slope. Ends and beginnings are noisy, and a leak is not: of one session in
# a thousand steps' time even a kilobyte would be more.
BOUNDS = {
    "server_memory": 8.0,
    "client_memory": 8.0,
    "workers_memory": 4.0,
    "server_descriptors": 4.0,
    "client_descriptors": 4.0,
    "server_threads": 4.0,
    "client_threads": 4.0,
    "processes": 2.0,
}
SLOWER = 0.5
"""By what part of itself the median latency may grow over the whole time."""


@dataclass
class Tally:
    """What the players did, all together."""

    steps: int = 0
    resets: int = 0
    opened: int = 0
    latencies: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_latencies(self) -> list[float]:
        """Those since it was asked last."""
        with self.lock:
            taken, self.latencies = self.latencies, []
        return taken


def play(served: Served, kind: str, lasting: bool, stop: threading.Event, tally: Tally) -> None:
    """Step until the end: in one session all the time, or in a new one for each few hundred steps."""
    try:
        while not stop.is_set():
            environment = RemoteEnvironment("localhost", served.port, None, served.credentials, connection=kind)
            with tally.lock:
                tally.opened += 1
            try:
                _play_in(environment, None if lasting else 500, stop, tally)
            finally:
                environment.close()
    except Exception:  # noqa: BLE001 - whatever it is, it is a fault of the run
        tally.faults.append(traceback.format_exc())


def _play_in(environment: RemoteEnvironment, steps: int | None, stop: threading.Event, tally: Tally) -> None:
    environment.reset(seed=1)
    taken, latencies, resets = 0, [], 0
    while not stop.is_set() and taken != steps:
        begun = time.perf_counter()
        observation, _, _, truncated, _ = environment.step(taken % 2)
        latencies.append(time.perf_counter() - begun)
        taken += 1
        if truncated:
            environment.reset()
            resets += 1
        if len(latencies) == 100 or stop.is_set() or taken == steps:
            with tally.lock:
                tally.steps += len(latencies)
                tally.resets += resets
                tally.latencies += latencies
            latencies, resets = [], 0
        assert observation.shape == (4,)


def look(served: Served, lasting: set[int], begun: float, tally: Tally) -> Sample:
    gc.collect()
    latencies = tally.take_latencies() or [0.0]
    ordered = sorted(latencies)
    own = os.getpid()
    return Sample(
        seconds=time.monotonic() - begun,
        server_memory=private(served.pid) / MIB,
        client_memory=private(own) / MIB,
        workers_memory=sum(private(pid) for pid in lasting) / MIB,
        server_descriptors=descriptors(served.pid),
        client_descriptors=descriptors(own),
        server_threads=threads(served.pid),
        client_threads=threads(own),
        processes=len(served.workers()),
        p50=1e3 * statistics.median(ordered),
        p99=1e3 * ordered[int(0.99 * (len(ordered) - 1))],
    )


def judge(samples: Sequence[Sample], wave: int) -> list[str]:
    """Print each slope, by least squares after the warm-up; what is beyond its bound.

    Args:
        samples: In their order.
        wave: By how many sessions' worth descriptors, threads and processes come and go.
    """
    later = samples[int(WARM_UP * len(samples)) :]
    hours = [sample.seconds / 3600 for sample in later]
    faults = []
    for name in [each.name for each in fields(Sample) if each.name != "seconds"]:
        values = [float(getattr(sample, name)) for sample in later]
        grown = slope(hours, values)
        print(f"  {name:19} {values[0]:9.2f} to {values[-1]:9.2f}, {grown:+9.2f} an hour", flush=True)
        span = hours[-1] - hours[0]
        if name in BOUNDS:
            # In a short run the slope of what only goes to and fro is steep as well; what it adds up to tells.
            noise = wave if "memory" not in name else 1.0
            if grown > BOUNDS[name] and grown * span > noise:
                faults.append(f"{name} grows by {grown:.1f} an hour")
        elif name == "p50" and grown * span > SLOWER * statistics.median(values):
            faults.append(f"{name} grows by {grown:.2f} ms an hour")
    return faults


def main() -> None:
    """Play, look every few seconds, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    chosen = parser.parse_args()
    stop, tally, samples = threading.Event(), Tally(), []
    with serving() as served:
        players = [
            threading.Thread(target=play, args=(served, kind, lasting, stop, tally), name=f"{kind}, lasting: {lasting}")
            for lasting in (True, False)
            for kind in KINDS
        ]
        for player in players[: len(KINDS)]:
            player.start()
        while len(lasting := served.workers()) < len(KINDS) and not tally.faults:
            time.sleep(0.1)
        for player in players[len(KINDS) :]:
            player.start()
        begun = time.monotonic()
        while time.monotonic() - begun < 60 * chosen.minutes and not tally.faults:
            time.sleep(chosen.every)
            samples.append(look(served, lasting, begun, tally))
            if len(samples) % 12 == 1:
                newest = samples[-1]
                print(
                    f"{newest.seconds / 60:5.1f} min: {tally.steps:,} steps, {tally.opened:,} sessions; MiB: server "
                    f"{newest.server_memory:.1f}, client {newest.client_memory:.1f}; p50 {newest.p50:.2f} ms, "
                    f"p99 {newest.p99:.2f} ms",
                    flush=True,
                )
        elapsed = time.monotonic() - begun
        stop.set()
        for player in players:
            player.join(60.0)
    print(f"{tally.steps:,} steps, {tally.steps / elapsed:,.0f} a second; {tally.resets:,} resets, ", end="")
    print(f"{tally.opened:,} sessions opened in {elapsed / 60:.1f} minutes", flush=True)
    faults = judge(samples, wave=8) if samples else ["it did not run"]
    faults += tally.faults
    faults += [f"{player.name} did not end" for player in players if player.is_alive()]
    for fault in faults:
        print(f"FAULT: {fault}")
    print("verdict:", "not flat" if faults else "flat")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
