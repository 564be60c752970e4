"""Faults that strike a whole server, and so every client of it at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from faults import door_kinds, guest_kinds, hub_kinds
from faults.guest_hosts import HOSTS
from faults.kinds import Lane, Unexpected
from faults.meanwhile import meanwhile
from faults.serving import PATIENCE, SERVER, Server
from processes import descendants, family, is_alive, is_relay
from remote_gym import ServerFull
from waiting import wait_until

SLOW = 0.3
"""Seconds that the behaviour "slow" takes."""


def _all(lanes: Sequence[Lane], do: Callable[[Lane], Any]) -> list[Any]:
    """Let all do the same at once."""
    with ThreadPoolExecutor(len(lanes)) as threads:
        return list(threads.map(do, lanes))


def _within_steps(lanes: Sequence[Lane], strike: Callable[[], None]) -> None:
    """Strike while every client waits for an answer."""
    with meanwhile(strike, after=SLOW / 3):
        _all(lanes, lambda lane: lane.expect("lost", "answered", behaviour="slow"))


def _lose_and_begin_anew(lane: Lane) -> None:
    # What the clients of a server that drains may still do is for it to say; that it ends is not.
    for _ in range(100):
        if lane.player.error is not None or lane.expect("lost", "answered") == "lost":
            break
    lane.begin_all_anew()


def _kill(server: Server, lanes: Sequence[Lane]) -> None:
    def strike() -> None:
        server.kill()
        server.start()

    _within_steps(lanes, strike)
    _all(lanes, _lose_and_begin_anew)


@contextlib.contextmanager
def _stopping(server: Server) -> Iterator[None]:
    """Have an operator stop it, and start it again after that; what goes on in between is what makes it end."""
    leaks: list[str] = []
    with meanwhile(lambda: leaks.extend(server.stop())):
        wait_until(lambda: server.says("Stopping"), PATIENCE)
        yield
    if leaks:
        raise Unexpected("; ".join(leaks))
    server.start()


def _drain(server: Server, lanes: Sequence[Lane]) -> None:
    """Running episodes go on, over connections made anew as well, and none begins."""
    with _stopping(server):
        for _ in range(3):
            _all(lanes, lambda lane: lane.expect("answered"))
            for lane in lanes:
                lane.proxy.cut_all()
        _all(lanes, _begin_no_episode)
    _all(lanes, lambda lane: lane.begin_anew())


def _begin_no_episode(lane: Lane) -> None:
    # What was said to the operator is done a moment later.
    wait_until(lambda: lane.check(lane.player.reset(), ("answered", "lost")) == "lost", PATIENCE)
    if "stopping" not in str(lane.player.error):
        raise Unexpected(f"{lane.player.error!r} does not tell that the server is stopping")


def _hurry(server: Server, lanes: Sequence[Lane]) -> None:
    """The operator does not wait for the episodes."""
    with _stopping(server):
        _all(lanes, lambda lane: lane.expect("answered"))
        _within_steps(lanes, lambda: server.signal(signal.SIGTERM))
    _all(lanes, _lose_and_begin_anew)


def _outlive_certificates(server: Server, lanes: Sequence[Lane]) -> None:
    """Clients have to show their certificates again and again, while they play."""
    before = [lane.proxy.accepted[lane.way] for lane in lanes]
    end = time.monotonic() + PATIENCE
    while any(lane.proxy.accepted[lane.way] < one + 2 for lane, one in zip(lanes, before, strict=True)):
        if time.monotonic() > end:
            raise Unexpected("the server lets clients go on without showing their certificates again")
        _all(lanes, lambda lane: lane.expect("answered"))


def _hang(behaviour: str) -> Callable[[Server, Sequence[Lane]], None]:
    """The server ends what takes too long, and tells the reason."""

    def fault(server: Server, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            lane.expect("lost", behaviour=behaviour)
            if "step_timeout" not in str(lane.player.error):
                raise Unexpected(f"{lane.player.error!r} does not tell the reason")
            lane.begin_anew()

    return fault


def _disturb(server: Server, lanes: Sequence[Lane]) -> None:
    """Connections are reset, idle and within steps, and the environment raises."""
    for lane in lanes:
        lane.proxy.cut_all()
    _all(lanes, lambda lane: lane.expect("answered"))
    with meanwhile(lambda: [lane.proxy.cut_all() for lane in lanes], after=SLOW / 3):
        _all(lanes, lambda lane: lane.expect("answered", behaviour="slow"))
    for behaviour in ("system_exit", "keyboard_interrupt", "interrupting"):
        _all(lanes, lambda lane, one=behaviour: lane.expect("raised", behaviour=one))


def _silence(server: Server, lanes: Sequence[Lane]) -> None:
    """Every connection that there is dies without a word."""
    for lane in lanes:
        lane.proxy.silence_now()
    _all(lanes, lambda lane: lane.expect("answered"))


def _pause(server: Server, lanes: Sequence[Lane]) -> None:
    """The server stands still for a second, and connections break meanwhile."""
    server.signal(signal.SIGSTOP)
    with meanwhile(lambda: server.signal(signal.SIGCONT), after=1.0):
        for lane in lanes:
            lane.proxy.cut_all()
        _all(lanes, lambda lane: lane.expect("answered"))


def _kill_forkserver(server: Server, lanes: Sequence[Lane]) -> None:
    workers = server.workers()
    [forkserver] = family(server.pid) - workers
    os.kill(forkserver, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)), PATIENCE)
    _all(lanes, lambda lane: lane.expect("lost"))
    _all(lanes, lambda lane: lane.begin_all_anew())


def _kill_relay(server: Server, lanes: Sequence[Lane]) -> None:
    """What brings gRPC's connections to gRPC dies within steps: another takes its place, and nobody loses anything."""

    def strike() -> None:
        [relay] = filter(is_relay, descendants(server.pid))
        os.kill(relay, signal.SIGKILL)

    with meanwhile(strike, after=SLOW / 3):
        _all(lanes, lambda lane: lane.expect("answered", behaviour="slow"))
    _all(lanes, lambda lane: lane.expect("answered"))


@contextlib.contextmanager
def _descriptors_below(server: Server, limit: int) -> Iterator[None]:
    """Let the server have no new descriptor of that number or above; those that it has stay."""
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)


def _free_below(server: Server, free: int) -> int:
    """A number below which so many are free. New descriptors get the lowest that is."""
    used = {int(entry.name) for entry in Path(f"/proc/{server.pid}/fd").iterdir()}
    return next(itertools.islice((number for number in itertools.count() if number not in used), free, None))


def _accept_without_descriptors(server: Server, lanes: Sequence[Lane]) -> None:
    """No descriptor is to be had by the server for a second, and all connect anew."""
    with ThreadPoolExecutor(len(lanes)) as threads:
        with _descriptors_below(server, 3):  # which are the standard streams
            for lane in lanes:
                lane.proxy.cut_all()
            answers = [threads.submit(lane.expect, "answered") for lane in lanes]
            with socket.create_connection((SERVER, server.port)):  # while clients still wait for gRPC
                time.sleep(1.0)
            if any(answer.done() for answer in answers):
                raise Unexpected("somebody was answered over a connection that could not be accepted")
        for answer in answers:
            answer.result(PATIENCE)


def _open_without_descriptors(server: Server, lanes: Sequence[Lane]) -> None:
    """Enough are left to connect, and too few for another worker: the client is told, and those that play go on."""
    opening, playing = lanes
    opening.player.close()
    wait_until(lambda: len(server.workers()) == 1, PATIENCE)
    with _descriptors_below(server, _free_below(server, 3)):
        opening.check(opening.player.reset(), ("lost",))
        if not isinstance(opening.player.error, ServerFull):
            raise Unexpected(f"{opening.player.error!r} instead of ServerFull")
        playing.expect("answered")
    opening.begin_anew()
    playing.expect("answered")


def _print_to_full_disk(server: Server, lanes: Sequence[Lane]) -> None:
    """The server's log is on a disk that is full, and environments print."""
    _all(lanes, lambda lane: lane.expect("answered", behaviour="print"))
    _all(lanes, lambda lane: lane.expect("answered", behaviour="print"))
    for lane in lanes:
        lane.player.close()
        lane.begin_anew()


def _jump(by: timedelta) -> Callable[[Server, Sequence[Lane]], None]:
    """The server's and the workers' wall clock is set, and connections are made anew under it."""

    def fault(server: Server, lanes: Sequence[Lane]) -> None:
        assert server.clock is not None
        server.clock.write_text(f"{int(by.total_seconds()):+d}\n")
        _all(lanes, lambda lane: lane.expect("answered"))
        for lane in lanes:
            lane.proxy.cut_all()
        _all(lanes, lambda lane: lane.expect("answered"))
        _all(lanes, lambda lane: lane.expect("answered"))

    return fault


PLACES: dict[str, tuple[str, ...]] = {
    "plain": ("--drain-timeout", "60"),
    "full": (),
    "clock": (),
    "strict": ("--certificate-lifetime", "2", "--step-timeout", "4"),
    "thread": ("--thread",),
    "auto": (),
    "doors": (),
    "vectors": (),
    "hub": (),
    "guests": ("--command", shlex.quote(sys.executable), "--step-timeout", "4"),
    "many guests": ("--command", shlex.quote(sys.executable)),
    **{place: flags for place, (_, flags) in HOSTS.items()},
}
"""Kinds of servers, and their flags: the log of ``"full"`` is on a full disk, and the clock of ``"clock"`` can be set.
``"strict"`` ends connections and steps that last, ``"thread"`` has no workers, ``"auto"`` clients that choose the
connection themselves, ``"doors"`` tokens and a policy, ``"vectors"`` clients of vector environments, ``"hub"`` a hub
between it and its clients, and ``"guests"`` environments that run in another Python, of which ``"many guests"`` has
many, and `HOSTS`, elsewhere."""


@dataclass(frozen=True)
class ServerKind:
    """A kind of fault that strikes a server.

    Attributes:
        strike: Does it.
        place: What kind of server it takes, one of `PLACES`.
    """

    strike: Callable[[Server, Sequence[Lane]], None]
    place: str = "plain"


SERVER_KINDS = {
    "server killed, started again": ServerKind(_kill),
    "server drained, started again": ServerKind(_drain),
    "server hurried while draining": ServerKind(_hurry),
    "server paused": ServerKind(_pause),
    "forkserver killed": ServerKind(_kill_forkserver),
    "relay killed": ServerKind(_kill_relay),
    "no descriptors to accept with": ServerKind(_accept_without_descriptors),
    "no descriptors to open with": ServerKind(_open_without_descriptors),
    "log's disk is full": ServerKind(_print_to_full_disk, "full"),
    "clock set 6 h forward": ServerKind(_jump(timedelta(hours=6)), "clock"),
    "connection outlives certificate": ServerKind(_outlive_certificates, "strict"),
    "server ends a hung step": ServerKind(_hang("hang"), "strict"),
    "server ends a step hung in C": ServerKind(_hang("hang_in_c"), "strict"),
    "environments in threads, disturbed": ServerKind(_disturb, "thread"),
    "default clients, disturbed": ServerKind(_disturb, "auto"),
    "default clients, silence": ServerKind(_silence, "auto"),
    "token revoked, given back": ServerKind(door_kinds.revoke_token, "doors"),
    "policy withdrawn, given back": ServerKind(door_kinds.withdraw_policy, "doors"),
    "token file empty for a moment": ServerKind(door_kinds.rewrite_tokens, "doors"),
    "policy file broken": ServerKind(door_kinds.break_policy, "doors"),
    "vectors: server killed, started again": ServerKind(_kill, "vectors"),
    "vectors: server paused": ServerKind(_pause, "vectors"),
    "vectors: forkserver killed": ServerKind(_kill_forkserver, "vectors"),
    "vectors: relay killed": ServerKind(_kill_relay, "vectors"),
    "vectors: silence": ServerKind(_silence, "vectors"),
    **{name: ServerKind(strike, "hub") for name, strike in hub_kinds.KINDS.items()},
    "hub: server killed, started again": ServerKind(_kill, "hub"),
    "hub: silence": ServerKind(_silence, "hub"),
    **{name: ServerKind(strike, "guests") for name, strike in guest_kinds.KINDS.items()},
    f"server killed with {guest_kinds.MANY} guests": ServerKind(guest_kinds.kill_server, "many guests"),
    f"server killed with {guest_kinds.MANY} by SSH": ServerKind(guest_kinds.kill_server, "ssh"),
    f"server killed with {guest_kinds.MANY} containers": ServerKind(guest_kinds.kill_server, "containers"),
    # Certificates made just now are valid from 5 minutes ago.
    "clock set 4 min back": ServerKind(_jump(timedelta(minutes=-4)), "clock"),
}
"""By their names in reports."""


def faketime_library() -> Path | None:
    """The library that sets a process's clock; None where it is not installed."""
    program = shutil.which("faketime")
    found: Iterator[Path] = iter(())
    if program:
        found = Path(program).resolve().parents[1].glob("lib/**/faketime/libfaketime.so.1")
    return next(found, None)
