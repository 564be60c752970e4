"""Choice of the server at which a session is opened."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from remote_gym.address import Place, grpc_address
from remote_gym.client.connect.circuit import Circuit
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import Operations
from remote_gym.client.rules.session import OpenSession
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import ConnectError, ConnectionLost, NotPermitted, RemoteGymError, ServerFull, reworded
from remote_gym.logs import get_logger
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)

LOAD_TIMEOUT = 2.0
"""Seconds that servers have to tell how busy they are, all at once; who does not is not there."""

UNKNOWN_LOAD = 0.5
"""Load assumed of a server whose release does not report it."""

_random = random.SystemRandom()  # so as to draw nothing from the trainer's own generator


class Choice(ABC):
    """Opens sessions on the least loaded of several servers.

    Where there is one, it is simply used. Of several, those whose `Circuit` is closed are asked how busy they are, all
    at once, and tried in the order of what they say; then the others in the same way. Where nobody answers, the one is
    tried whose trial is next. May be used by several threads.

    Args:
        places: Where the servers are; at least one.
        credentials: PEM files; None for no TLS.
        options: The client's.
    """

    def __init__(self, places: Sequence[Place], credentials: TlsFiles | None, options: ClientOptions) -> None:
        self._files = credentials
        self._credentials: Credentials | None = None
        self._options = options
        self._circuits = {place: Circuit() for place in places}
        # Of sessions that are being opened from here, of which servers do not tell yet.
        self._opening = dict.fromkeys(places, 0)
        self._lock = threading.Lock()  # of these two

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy finds out by itself: it may be used by another machine.
        return type(self), (list(self._circuits), self._files, self._options)

    @abstractmethod
    def open(self, request: pb.OpenRequest) -> Any:
        """Open a session, and return it.

        Args:
            request: What to open; encodings are chosen here.

        Raises:
            ConnectError: If no server could be reached.
            ServerFull: If those that could have no room.
            NotPermitted: If none of those that could lets this client open it.
            RemoteGymError: As `OpenSession.opening` does.
        """

    @abstractmethod
    def _connect(self, place: Place) -> Connection:
        """A connection to one of them; nothing is sent yet."""

    @abstractmethod
    def _open_by(self, connection: Connection, request: pb.OpenRequest) -> Any:
        """Open a session by a connection, which is closed if that fails."""

    @abstractmethod
    def _ask_loads(self, connections: Mapping[Place, Connection]) -> Any:
        """Ask servers how busy they are, all at once.

        Returns:
            The answer of each, a `pb.LoadResponse`; None where it does not tell; or the `RemoteGymError`.
        """

    @abstractmethod
    def _explain(self, places: Sequence[Place]) -> Any:
        """A list of why servers that did not answer cannot be reached, as texts."""

    def _opening_one(self, request: pb.OpenRequest) -> Operations[Any]:
        """Do as `open`."""
        if len(self._circuits) == 1:
            place = next(iter(self._circuits))
            return (yield lambda: self._open_by(self._connect(place), request))
        failures: list[tuple[Place, RemoteGymError]] = []
        for places in self._rounds():
            session = yield from self._opening_least_loaded(places, request, failures)
            if session is not None:
                return session
        if not failures:
            return (yield from self._opening_at_any(request))
        (_, first), *others = failures
        also = "".join(f"; {grpc_address(*place)}: {error}" for place, error in others)
        raise reworded(first, f"{first}{also}") from first

    def lost(self, place: Place) -> None:
        """A session there was lost."""
        with self._lock:
            if place in self._circuits:
                self._circuits[place].lost()

    def _rounds(self) -> tuple[list[Place], list[Place]]:
        """Servers not known to be in trouble, and those to ask if none of these will do."""
        with self._lock:
            usual = [place for place, circuit in self._circuits.items() if not circuit.is_open]
            for place in usual:
                self._circuits[place].begin()
        return usual, [place for place in self._circuits if place not in usual]

    def _opening_at_any(self, request: pb.OpenRequest) -> Operations[OpenSession]:
        """Nobody has answered in time, so one is given more of it, and looked at."""
        with self._lock:
            place = min(self._circuits, key=lambda place: self._circuits[place].next_trial)
        try:
            return (yield from self._trying(place, None, request))
        except (ConnectError, ConnectionLost) as error:
            others = [other for other in self._circuits if other != place]
            explained: list[str] = yield lambda: self._explain(others)
            also = "".join(f"; {text}" for text in explained)
            raise reworded(error, f"{error}{also}") from error

    def _opening_least_loaded(
        self, places: Sequence[Place], request: pb.OpenRequest, failures: list[tuple[Place, RemoteGymError]]
    ) -> Operations[OpenSession | None]:
        """Try those that answer; None if none opens a session, of which `failures` are told."""
        connections = {place: self._connect(place) for place in places}
        try:
            for place in (yield from self._ordering(connections)):
                try:
                    return (yield from self._trying(place, connections.pop(place), request))
                except (ConnectError, ConnectionLost, NotPermitted, ServerFull) as error:
                    logger.info("%s; trying another address", error)
                    failures.append((place, error))
        finally:
            for connection in connections.values():
                connection.close()
        return None

    def _ordering(self, connections: Mapping[Place, Connection]) -> Operations[list[Place]]:
        """Servers that answer, the least loaded first and those that are stopping last."""
        loads: Mapping[Place, pb.LoadResponse | RemoteGymError | None] = yield lambda: self._ask_loads(connections)
        found = {}
        for place, load in loads.items():
            if isinstance(load, RemoteGymError):
                logger.info("%s does not tell how busy it is: %s", grpc_address(*place), load)
                with self._lock:
                    self._circuits[place].failed()
            else:
                found[place] = (load is not None and load.draining, self._share(place, load), _random.random())
        return sorted(found, key=found.__getitem__)

    def _share(self, place: Place, load: pb.LoadResponse | None) -> float:
        """How much of a server's room is taken."""
        if load is None:
            return UNKNOWN_LOAD
        with self._lock:
            return (load.open + load.waiting + self._opening[place]) / max(1, load.capacity)

    def _trying(self, place: Place, connection: Connection | None, request: pb.OpenRequest) -> Operations[OpenSession]:
        with self._lock:
            self._opening[place] += 1
        try:
            session: OpenSession = yield lambda: self._open_by(connection or self._connect(place), request)
        except (ConnectError, ConnectionLost):
            with self._lock:
                self._circuits[place].failed()
            raise
        finally:
            with self._lock:
                self._opening[place] -= 1
        with self._lock:
            self._circuits[place].succeeded()
        return session
