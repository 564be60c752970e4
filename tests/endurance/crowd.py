"""Two thousand sessions in one event loop, each of which steps once in two seconds. Prints what it takes.

`python3 ci/task.py crowd`. Ends with status 1 if a session is refused or lost, is late, or something is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import time

from endurance.serving import MIB, Served, descriptors, memory, percentiles, private, serving, threads, wait_for
from remote_gym import AsyncRemoteEnvironment


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Open them, step them, close them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--connection", choices=["auto", "direct", "grpc"], default="auto")
    parser.add_argument("--pace", type=float, default=2.0, help="seconds from one step of a session to its next")
    parser.add_argument("--seconds", type=float, default=30.0, help="that they step")
    parser.add_argument("--processes", action="store_true", help="environments in processes of their own, not threads")
    parser.add_argument("--uvloop", action="store_true")
    chosen = parser.parse_args()
    kind = "processes" if chosen.processes else "threads"
    loop = "uvloop" if chosen.uvloop else "asyncio"
    say(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; one client process with {loop}, "
        f"connection={chosen.connection!r}, environments in {kind} of one server, over mutual TLS"
    )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8 * chosen.sessions + 1024), hard))
    with serving(max_sessions=chosen.sessions + 8, use_thread=not chosen.processes) as served:
        play = crowd(served, chosen)
        if chosen.uvloop:
            import uvloop

            faults = uvloop.run(play)
        else:
            faults = asyncio.run(play)
        if not wait_for(lambda: threads(served.pid) < chosen.sessions / 2 + 100, 30.0):
            faults.append(f"the server still has {threads(served.pid)} threads")
    for fault in faults:
        say(f"FAULT: {fault}")
    say("verdict: " + ("not good" if faults else "good"))
    raise SystemExit(bool(faults))


async def crowd(served: Served, chosen: argparse.Namespace) -> list[str]:
    """All of it; what was wrong."""
    faults: list[str] = []
    sessions = chosen.sessions
    gc.collect()
    before = private(os.getpid()), private(served.pid), descriptors(os.getpid()), threads(os.getpid())
    environments = [
        AsyncRemoteEnvironment(
            "localhost", served.port, None, served.credentials, connection=chosen.connection, open_timeout=600.0
        )
        for _ in range(sessions)
    ]
    begun = time.monotonic()
    await asyncio.gather(*(each.reset(seed=number) for number, each in enumerate(environments)))
    took = time.monotonic() - begun
    say(f"opened and reset {sessions} sessions in {took:.1f} s, {sessions / took:.0f} a second")
    begun = time.monotonic()
    await asyncio.gather(*(each.step(0) for each in environments))
    took = time.monotonic() - begun
    over = [each.connection_info.connected_over for each in environments]
    ways = ", ".join(f"{over.count(way)} {way}" for way in ("direct", "grpc") if way in over)
    say(f"connected and stepped each once in {took:.1f} s, {sessions / took:.0f} a second: {ways}")
    begun = time.monotonic()
    await asyncio.gather(*(each.step(1) for each in environments))
    took = time.monotonic() - begun
    say(f"stepped all at once: {took:.2f} s, {sessions / took:.0f} steps a second")
    latencies, late, used = await step_all(environments, chosen.pace, chosen.seconds)
    say(
        f"each once in {chosen.pace:g} s for {chosen.seconds:g} s, {len(latencies):,} steps: {percentiles(latencies)}, "
        f"the longest {1e3 * max(latencies):.0f} ms; the client took {100 * used:.0f} % of a core"
    )
    if late:
        faults.append(f"{late} steps were not done when the session's next was due")
    gc.collect()
    client = (private(os.getpid()) - before[0]) / sessions / 1024
    server = (private(served.pid) - before[1]) / sessions / 1024
    say(f"memory of a session: {client:.0f} KiB in the client, {server:.0f} KiB in the server")
    if workers := served.workers():
        say(
            f"  and {sum(memory(pid) for pid in workers) / len(workers) / MIB:.1f} MiB a worker, {len(workers)} of them"
        )
    opened = (descriptors(os.getpid()) - before[2]) / sessions
    say(f"the client has {threads(os.getpid()) - before[3]} threads more, and {opened:.2f} descriptors a session")
    lost = sum(each._session is None or each._session.lost for each in environments)
    if lost:
        faults.append(f"{lost} sessions were lost")
    begun = time.monotonic()
    await asyncio.gather(*(each.close() for each in environments))
    say(f"closed them in {time.monotonic() - begun:.1f} s")
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        faults.append(f"{len(left)} tasks are left")
    return faults


async def step_all(
    environments: list[AsyncRemoteEnvironment], pace: float, seconds: float
) -> tuple[list[float], int, float]:
    """Step each at its own moment of each period; seconds that steps took, how many were late, and cores used."""
    latencies: list[float] = []
    late = 0
    start = time.monotonic() + 0.5
    used, begun = time.process_time(), time.monotonic()

    async def play(number: int, environment: AsyncRemoteEnvironment) -> None:
        nonlocal late
        due = start + pace * number / len(environments)
        while due < start + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            _, _, _, truncated, _ = await environment.step(0)
            latencies.append(time.monotonic() - due)  # with what the loop was late to begin it
            due += pace
            late += time.monotonic() > due
            if truncated:
                await environment.reset()

    await asyncio.gather(*(play(number, each) for number, each in enumerate(environments)))
    return latencies, late, (time.process_time() - used) / (time.monotonic() - begun)


if __name__ == "__main__":
    main()
