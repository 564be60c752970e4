"""Faults of environments that run in another Python, and of servers that have many of these."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from faults.kinds import Lane, Unexpected
from faults.meanwhile import meanwhile
from faults.serving import Server
from processes import running
from waiting import scaled

MANY = 16
"""Guests of a server that is killed."""
GONE = 5.0
"""Seconds after which nothing of a guest is left, whatever ended it."""

Strike = Callable[[Server, Sequence[Lane]], None]


def _each(strike: Callable[[Lane], None], *, ends: bool = True) -> Strike:
    """Strike one client's guest after the other's; see that an ended one is gone, and that the next one is another."""

    def fault(_server: Server, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            guest = functools.partial(_of_groups, {lane.worker()})
            strike(lane)
            if ends:
                _see_gone(guest)
                lane.begin_anew()

    return fault


def _of_groups(groups: set[int]) -> set[int]:
    """Processes of some groups that are alive."""
    return {pid for pid, fields in running() if int(fields[2]) in groups}


def _see_gone(guests: Callable[[], set[int]]) -> None:
    end = time.monotonic() + scaled(GONE)
    while left := guests():
        if time.monotonic() > end:
            raise Unexpected(f"processes of guests are left after {GONE:g} s: {sorted(left)}")
        time.sleep(0.05)


def _kill(lane: Lane) -> None:
    os.kill(lane.worker(), signal.SIGKILL)
    lane.expect("lost")


def _kill_within_step(lane: Lane) -> None:
    with meanwhile(functools.partial(os.kill, lane.worker(), signal.SIGKILL), after=0.1):
        lane.expect("lost", "answered", behaviour="slow")
    if lane.player.error is None:  # the timer was late
        lane.expect("lost")


def _kill_watcher(lane: Lane) -> None:
    """Nobody is left to end what the guest leaves; it ends by itself with its session."""
    [watcher] = _of_groups({lane.worker()}) - {lane.worker()}
    os.kill(watcher, signal.SIGKILL)
    lane.expect("answered")
    lane.player.close()


def _stop(lane: Lane) -> None:
    """It stands still for good: the server ends its session as any that hangs."""
    os.kill(lane.worker(), signal.SIGSTOP)
    lane.expect("lost")
    if "step_timeout" not in str(lane.player.error):
        raise Unexpected(f"{lane.player.error!r} does not tell the reason")


def _pause(lane: Lane) -> None:
    pid = lane.worker()
    os.kill(pid, signal.SIGSTOP)
    with meanwhile(functools.partial(os.kill, pid, signal.SIGCONT), after=lane.random.uniform(0.05, 1.0)):
        lane.expect("answered")


def _end(behaviour: str) -> Callable[[Lane], None]:
    def strike(lane: Lane) -> None:
        lane.expect("lost", behaviour=behaviour)

    return strike


def _answer(behaviour: str) -> Callable[[Lane], None]:
    def strike(lane: Lane) -> None:
        lane.expect("answered", behaviour=behaviour)
        lane.expect("answered")

    return strike


def kill_server(server: Server, lanes: Sequence[Lane]) -> None:
    """A server with many guests is killed, within steps of theirs: no process of any of their groups is left."""
    guests = server.guests or functools.partial(_of_groups, {lane.worker() for lane in lanes})
    if len(guests()) < 2 * len(lanes):
        raise Unexpected(f"{len(lanes)} guests have {len(guests())} processes, fewer than two each")
    with ThreadPoolExecutor(len(lanes)) as threads:
        steps = [threads.submit(lane.expect, "lost", "answered", behaviour="slow") for lane in lanes]
        server.signal(signal.SIGKILL)
        _see_gone(guests)
        server.kill()
        server.start()
        for step in steps:
            step.result()
        list(threads.map(_begin_anew, lanes))


def _begin_anew(lane: Lane) -> None:
    if lane.player.error is None:
        lane.expect("lost")
    lane.begin_all_anew()


KINDS: dict[str, Strike] = {
    "guest killed": _each(_kill),
    "guest killed within a step": _each(_kill_within_step),
    "guest's watcher killed": _each(_kill_watcher),
    "guest stopped": _each(_stop),
    "guest paused": _each(_pause, ends=False),
    "guest exits": _each(_end("exit")),
    "guest aborts": _each(_end("abort")),
    "guest exits amid a frame": _each(_end("half_an_answer")),
    "guest hangs": _each(_end("hang")),
    "guest prints to standard output": _each(_answer("print_much"), ends=False),
    "guest floods standard error": _each(_answer("flood"), ends=False),
}
"""By their names in reports."""
