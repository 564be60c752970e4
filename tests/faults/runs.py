"""What a run consists of: the three places where faults strike, and what has to be there afterwards."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from faults.chaos import CONNECTIONS, MODES, Chaos, Report, plan
from faults.client_kinds import Clients, faked_clock
from faults.doors import Authorizer
from faults.guest_hosts import HOSTS
from faults.guest_kinds import MANY
from faults.hub import hub_at
from faults.kinds import KINDS, Connection, Lane, Unexpected
from faults.leaks import Possessions
from faults.server_kinds import PLACES, SERVER_KINDS, ServerKind, faketime_library
from faults.serving import Server
from remote_gym.wire.autoreset import AutoresetMode

LANE_TIMEOUT = 540.0
Job = Callable[[], None]


def connection_jobs(chaos: Chaos, server: Server, faults: int, lanes: int, names: list[str]) -> list[Job]:
    """Faults that strike one client each."""
    planned = plan(names, faults, lanes, chaos.report.seed)
    return [
        functools.partial(chaos.run_lane, connection, server, share, number)
        for number, (connection, share) in enumerate(planned)
    ]


def vector_jobs(chaos: Chaos, server: Server, faults: int, names: list[str]) -> list[Job]:
    """The same faults for clients of vector environments, of which each mode has a lane of each connection."""
    if AutoresetMode is None:
        chaos.report.skipped.append("vector environments: before Gymnasium 1.1 they cannot be reset one by one")
        return []
    planned = plan(names, faults, 2 * len(MODES), chaos.report.seed + 1)
    return [
        # Numbers tell the size of observations: each mode has two of them.
        functools.partial(
            chaos.run_lane, connection, server, share, number + number // len(MODES), MODES[number % len(MODES)]
        )
        for number, (connection, share) in enumerate(planned)
    ]


def awaiting_jobs(chaos: Chaos, server: Server, faults: int, names: list[str]) -> list[Job]:
    """The same faults for clients that await, of which each connection has one."""
    planned = plan(names, faults, 2, chaos.report.seed + 2)
    return [
        functools.partial(chaos.run_lane, connection, server, share, number, awaits=True)
        for number, (connection, share) in enumerate(planned)
    ]


def run_server_kinds(chaos: Chaos, name: str, kinds: dict[str, ServerKind], server: Server, times: int) -> None:
    """Faults that strike a server, which has one client of each connection."""
    server.start()
    connections: tuple[Connection, ...] = CONNECTIONS
    if name in ("auto", "thread"):
        connections = ("auto", "grpc") if name == "thread" else ("auto", "auto")
    if name == "doors":
        lanes = [chaos.lane(one, server, token=server.doors.tokens[one]) for one in connections]
    elif name == "vectors":
        lanes = [chaos.lane(one, server, mode=mode) for one, mode in itertools.product(connections, MODES)]
    else:
        each = MANY // len(connections) if name in ("many guests", *HOSTS) else 1
        lanes = [chaos.lane(one, server) for one in connections * each]
    try:
        for lane in lanes:
            lane.check(lane.player.reset(), ("answered",))
        before = Possessions.of_server(server)
        for kind in [*kinds] * times:
            if not chaos.strike_all(kind, lanes, functools.partial(_strike, kinds[kind], server)):
                return  # nobody knows what state it left
        left = before.excess(functools.partial(Possessions.of_server, server))
        chaos.report.leaks += [f"{name} server: {leak}" for leak in left]
    except Unexpected as error:
        chaos.complain(chaos.report.failures, f"{name}: {error}")
    finally:
        for lane in lanes:
            lane.player.close()
            lane.proxy.close()


def _strike(kind: ServerKind, server: Server, lanes: Sequence[Lane]) -> None:
    kind.strike(server, lanes)
    for lane in lanes:
        lane.expect("answered")


def server_jobs(chaos: Chaos, times: int, name_holds: str) -> list[Job]:
    """A server for each place in which a kind of fault is to strike."""
    jobs: list[Job] = []
    library = faketime_library()
    for place, flags in PLACES.items():
        kinds = {name: kind for name, kind in SERVER_KINDS.items() if kind.place == place and name_holds in name}
        if not kinds:
            continue
        if place == "vectors" and AutoresetMode is None:
            continue
        if place == "clock":
            if library is None:
                chaos.report.skipped.append("clocks set: faketime is not installed")
                continue
            clock = chaos.folder / "clock-of-server"
            clock.write_text("+0\n")
            server = chaos.server(place, environ=faked_clock(library, clock), clock=clock, flags=flags)
        elif place == "doors":
            server = chaos.server(place, doors=Authorizer(chaos.folder, CONNECTIONS), flags=flags)
        elif place == "hub":
            hub = chaos.enter(hub_at(chaos.folder, chaos.certificates))
            server = chaos.server(place, hub=hub, flags=flags)
        elif place in HOSTS:
            run_host, _ = HOSTS[place]
            try:
                host = chaos.enter(run_host(chaos.subfolder(f"{place}-host")))
            except pytest.skip.Exception as reason:
                chaos.report.skipped.append(f"{place}: {reason}")
                continue
            server = chaos.server(place, environ=host.environ, flags=flags, guests=host.processes)
        else:
            server = chaos.server(place, log=Path("/dev/full") if place == "full" else None, flags=flags)
        jobs.append(functools.partial(run_server_kinds, chaos, place, kinds, server, times))
    return jobs


def run_clients(chaos: Chaos, server: Server, times: int, name_holds: str) -> None:
    """Faults that strike a client's process."""
    library = faketime_library()
    for _ in range(times):
        for connection in CONNECTIONS:
            for name, strike in {
                "client killed, session taken over": Clients.kill,
                "client stopped, replaced, let go": Clients.stop,
                "client's clock set": Clients.set_clock if library else None,
            }.items():
                if strike is None or name_holds not in name:
                    continue
                clients = chaos.clients(server)
                extra = (library,) if strike is Clients.set_clock else ()
                chaos.strike(name, connection, lambda: strike(clients, connection, *extra))  # noqa: B023 - called at once


def run_all(folder: Path, seed: int, faults: int, lanes: int, kind: str = "") -> Report:
    """Every kind of fault, about so many in all.

    Args:
        folder: For ledgers, journals and logs.
        seed: Chooses them.
        faults: Of those that strike one client; those that strike servers and processes come on top.
        lanes: Clients at once.
        kind: Only those whose names hold this.
    """
    with Chaos(folder, seed) as chaos:
        steady = chaos.server("steady")
        times = max(1, faults // 150)
        jobs = server_jobs(chaos, times, kind)  # before it settles: each server holds its ports from now on
        steady.start()
        chaos.settle(steady)
        jobs.append(functools.partial(run_clients, chaos, steady, times, kind))
        names = [name for name in KINDS if kind in name]
        jobs += connection_jobs(chaos, steady, faults, lanes, names)
        jobs += vector_jobs(chaos, steady, faults // 2, names)
        jobs += awaiting_jobs(chaos, steady, faults // 2, names)
        chaos.in_parallel(jobs, LANE_TIMEOUT)
        return chaos.finish(steady)


def run_quickly(folder: Path, seed: int, faults: int, lanes: int) -> Report:
    """The kinds that strike one client and take less than a second."""
    with Chaos(folder, seed) as chaos:
        steady = chaos.server("steady")
        steady.start()
        chaos.settle(steady)
        quick = [name for name, kind in KINDS.items() if kind.seconds < 1]
        jobs = connection_jobs(chaos, steady, faults, lanes, quick)
        jobs += vector_jobs(chaos, steady, faults, quick)
        jobs += awaiting_jobs(chaos, steady, faults // 2, quick)
        chaos.in_parallel(jobs, LANE_TIMEOUT)
        return chaos.finish(steady)
