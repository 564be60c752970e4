"""Faults of a hub that stands between a server and its clients: nobody loses a session by them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from faults.hub import Hub
from faults.kinds import Lane
from faults.meanwhile import meanwhile
from faults.serving import Server

WITHIN = 0.1
"""Seconds after which a hub is struck while steps take 0.3."""


def _answer_all(lanes: Sequence[Lane], behaviour: str = "step") -> None:
    with ThreadPoolExecutor(len(lanes)) as threads:
        list(threads.map(lambda lane: lane.expect("answered", behaviour=behaviour), lanes))


def _within_steps(server: Server, lanes: Sequence[Lane], strike: Callable[[Hub], None]) -> None:
    hub = server.hub
    assert hub is not None
    with meanwhile(lambda: strike(hub), after=WITHIN):
        _answer_all(lanes, "slow")
    _answer_all(lanes)


def kill(server: Server, lanes: Sequence[Lane]) -> None:
    """It dies within steps, and another takes its place, which the server and its clients find again."""

    def strike(hub: Hub) -> None:
        hub.kill()
        hub.start()

    _within_steps(server, lanes, strike)


def stop(server: Server, lanes: Sequence[Lane]) -> None:
    """An operator stops it within steps, and starts another."""

    def strike(hub: Hub) -> None:
        hub.stop()
        hub.kill()
        hub.start()

    _within_steps(server, lanes, strike)


def pause(server: Server, lanes: Sequence[Lane]) -> None:
    """It stands still for a second within steps, and connections break meanwhile."""

    def strike(hub: Hub) -> None:
        hub.signal(signal.SIGSTOP)
        try:
            for lane in lanes:
                lane.proxy.cut_all()
            time.sleep(1.0)
        finally:
            hub.signal(signal.SIGCONT)

    _within_steps(server, lanes, strike)


KINDS = {"hub killed, started again": kill, "hub stopped, started again": stop, "hub paused": pause}
"""By their names in reports."""
