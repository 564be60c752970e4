"""The kinds of faults: what each does, and what its client is to see."""

from __future__ import annotations

import functools
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from faults.ledger_environment import ENDING, HANGING, RAISING
from faults.meanwhile import meanwhile
from faults.player import AwaitingPlayer, Player
from faults.proxy import Interference, Proxy, Way
from faults.serving import PATIENCE, Certificates, Server
from faults.vector_player import VectorPlayer

Connection = Literal["direct", "grpc", "auto"]
Column = Literal["direct", "grpc", "auto", "direct, vector", "grpc, vector", "direct, awaited", "grpc, awaited"]


class Unexpected(Exception):
    """A client saw something else than it should have."""


class Hang(Unexpected):
    """Something took longer than anything may."""


@dataclass
class Lane:
    """One client, its server, and what lies between."""

    connection: Connection
    player: Player | VectorPlayer
    proxy: Proxy
    server: Server
    certificates: Certificates
    random: random.Random
    observation_bytes: int

    @property
    def column(self) -> Column:
        """Where reports count what strikes it."""
        if self.connection == "auto" or type(self.player) is Player:
            return self.connection
        if isinstance(self.player, AwaitingPlayer):
            return "direct, awaited" if self.connection == "direct" else "grpc, awaited"
        return "direct, vector" if self.connection == "direct" else "grpc, vector"

    @property
    def way(self) -> Way:
        """By which kind of connection its steps go."""
        return "direct" if self.connection == "direct" else "grpc"

    def expect(self, *outcomes: str, behaviour: str = "step") -> str:
        """Step, and see that it ends as it should."""
        return self.check(self.player.step(behaviour), outcomes)

    def check(self, outcome: str, outcomes: tuple[str, ...]) -> str:
        if outcome not in outcomes:
            kind = Hang if outcome == "missed" else Unexpected
            raise kind(f"{outcome} instead of {' or '.join(outcomes)}: {self.player.error!r}")
        return outcome

    def begin_anew(self) -> None:
        """Reset after the environment was lost: it is another one, and nobody pretends that it is the same."""
        before = self.player.instance
        self.check(self.player.reset(), ("answered",))
        if self.player.instance == before:
            raise Unexpected("the environment is the old one")

    def begin_all_anew(self) -> None:
        """As `begin_anew`, where all that a server had was lost."""
        if isinstance(self.player, VectorPlayer):
            self.player.begin_all_anew()
        else:
            self.begin_anew()

    def worker(self) -> int:
        """Process of the environment."""
        return self.player.pid

    def interfere(self, **what: Any) -> None:
        """Step while the proxy does something to the connection; the step is answered all the same."""
        fault = self.proxy.arm(Interference(self.way, **what))
        self.expect("answered")
        # After a cut behind the answer, the next one finds the connection broken.
        self.expect("answered")
        if not fault.fired.wait(PATIENCE):
            raise Unexpected("the proxy saw nothing to interfere with")


Fault = Callable[[Lane], None]


def _cut(direction: str, share: float, *, whole: bool = False, act: str = "reset") -> Fault:
    """Interfere within the request, or within the answer, after that share of it."""

    def fault(lane: Lane) -> None:
        size = lane.observation_bytes if direction == "down" else 60
        lane.interfere(direction=direction, after=int(share * lane.random.random() * size), act=act, whole=whole)

    return fault


def _silence(direction: str, *, whole: bool, act: str = "silence", everywhere: bool = False) -> Fault:
    def fault(lane: Lane) -> None:
        lane.interfere(direction=direction, after=0, act=act, whole=whole, everywhere=everywhere)

    return fault


def _delay(direction: str) -> Fault:
    def fault(lane: Lane) -> None:
        lane.interfere(direction=direction, after=0, act="hold", seconds=lane.random.uniform(0.01, 0.5))

    return fault


def _reset_while_idle(lane: Lane) -> None:
    lane.proxy.cut_all()
    lane.expect("answered")


def _outage(lane: Lane) -> None:
    """The network is down for a second, and refuses whoever tries."""
    lane.proxy.is_out = True
    lane.proxy.cut_all()
    with meanwhile(lambda: setattr(lane.proxy, "is_out", False), after=lane.random.uniform(0.2, 1.5)):
        lane.expect("answered")


def _raise(behaviour: str) -> Fault:
    def fault(lane: Lane) -> None:
        lane.expect("raised", behaviour=behaviour)
        lane.expect("answered")

    return fault


def _end(behaviour: str) -> Fault:
    def fault(lane: Lane) -> None:
        lane.expect("lost", behaviour=behaviour)
        lane.begin_anew()

    return fault


def _hang(behaviour: str) -> Fault:
    def fault(lane: Lane) -> None:
        patience = lane.player.set_patience(1.0)
        lane.expect("missed", behaviour=behaviour)
        lane.player.set_patience(patience)
        lane.begin_anew()

    return fault


def _kill_worker(lane: Lane) -> None:
    os.kill(lane.worker(), signal.SIGKILL)
    lane.expect("lost")
    lane.begin_anew()


def _kill_worker_within_step(lane: Lane) -> None:
    with meanwhile(functools.partial(os.kill, lane.worker(), signal.SIGKILL), after=0.1):
        lane.expect("lost", "answered", behaviour="slow")
    if lane.player.error is None:  # the timer was late
        lane.expect("lost")
    lane.begin_anew()


def _pause_worker(lane: Lane) -> None:
    pid = lane.worker()
    os.kill(pid, signal.SIGSTOP)
    with meanwhile(functools.partial(os.kill, pid, signal.SIGCONT), after=lane.random.uniform(0.05, 1.0)):
        lane.expect("answered")


def _stop_worker(lane: Lane) -> None:
    """Paused for good: the client leaves it, and its session's end kills it."""
    pid = lane.worker()
    os.kill(pid, signal.SIGSTOP)
    patience = lane.player.set_patience(1.0)
    lane.expect("missed")
    lane.player.set_patience(patience)
    lane.begin_anew()


def _reset_into_paused_worker(lane: Lane) -> None:
    """The request arrives, the connection breaks, and the worker finds both when it goes on."""
    pid = lane.worker()
    os.kill(pid, signal.SIGSTOP)
    fault = lane.proxy.arm(Interference(lane.way, "up", 0, "reset", whole=True))
    with meanwhile(functools.partial(os.kill, pid, signal.SIGCONT), after=lane.random.uniform(0.2, 1.0)):
        lane.expect("answered")
    if not fault.fired.wait(PATIENCE):
        raise Unexpected("the proxy saw nothing to interfere with")


def _rotate(role: str) -> Fault:
    """New certificates, and connections made anew under them while they are written."""

    def fault(lane: Lane) -> None:
        certificates = lane.certificates if role == "client" else lane.server.certificates
        with meanwhile(functools.partial(certificates.rotate, role)):
            lane.proxy.cut_all()
            lane.expect("answered")
        lane.proxy.cut_all()
        lane.expect("answered")

    return fault


@dataclass(frozen=True)
class Kind:
    """A kind of fault that strikes one client.

    Attributes:
        strike: Does it, and raises `Unexpected` if the client sees what it should not.
        seconds: About how long it takes.
    """

    strike: Fault
    seconds: float = 0.1


KINDS: dict[str, Kind] = {
    "reset before delivery": Kind(_cut("up", 0.0)),
    "reset within the request": Kind(_cut("up", 1.0)),
    "reset after delivery": Kind(_cut("up", 0.0, whole=True)),
    "reset before the answer": Kind(_cut("down", 0.0)),
    "reset within the answer": Kind(_cut("down", 1.0)),
    "reset after the answer": Kind(_cut("down", 1.0, whole=True)),
    "reset while idle": Kind(_reset_while_idle),
    "request delayed": Kind(_delay("up"), 0.3),
    "answer delayed": Kind(_delay("down"), 0.3),
    "network refuses for a while": Kind(_outage, 1.0),
    "request dropped silently": Kind(_silence("up", whole=False), 10.0),
    "answer dropped silently": Kind(_silence("up", whole=True), 10.0),
    "answer dropped half way": Kind(_cut("down", 1.0, act="silence"), 10.0),
    "all connections silent": Kind(_silence("up", whole=True, everywhere=True), 10.0),
    "half open, server knows": Kind(_silence("up", whole=True, act="forget_client"), 10.0),
    "half open, client knows": Kind(_silence("up", whole=True, act="forget_server")),
    "worker killed": Kind(_kill_worker),
    "worker killed within a step": Kind(_kill_worker_within_step, 0.5),
    "worker paused": Kind(_pause_worker, 0.5),
    "worker paused, then reset": Kind(_reset_into_paused_worker, 0.5),
    "worker stopped": Kind(_stop_worker, 5.0),
    **{f"environment: {name}": Kind(_raise(name)) for name in RAISING},
    **{f"worker ends: {name}": Kind(_end(name)) for name in ENDING},
    **{f"worker hangs: {name}": Kind(_hang(name), 5.0) for name in HANGING},
    "server's certificate rotated": Kind(_rotate("server")),
    "client's certificate rotated": Kind(_rotate("client")),
}
"""By their names in reports."""
