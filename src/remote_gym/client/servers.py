"""The servers at which an environment can be opened, and which of them to try."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from remote_gym.address import Address, Place, grpc_address, to_place
from remote_gym.client.connect.circuit import Circuit
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.diagnosis import diagnose, summarise
from remote_gym.client.connect.opening import connect
from remote_gym.client.session import ClientSession
from remote_gym.config import SERVER_VARIABLE, ClientOptions, TlsFiles
from remote_gym.errors import (
    ConfigError,
    ConnectError,
    ConnectionLost,
    NotPermitted,
    RemoteGymError,
    ServerFull,
    reworded,
)
from remote_gym.logs import get_logger
from remote_gym.protocol.open_request import choose_encodings
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)

LOAD_TIMEOUT = 2.0
"""Seconds that servers have to tell how busy they are, all at once; who does not is not there."""

MOST_AT_ONCE = 16
"""Servers that are looked at together, to say why none of them can be reached."""

UNKNOWN_LOAD = 0.5
"""Load assumed of a server whose release does not report it."""

_random = random.SystemRandom()  # so as to draw nothing from the trainer's own generator


DEFAULT_PLACE: Place = ("localhost", 56789)
"""Url and port where they are not given, and `SERVER_VARIABLE` names none."""


def to_places(url: str | None, port: int | None, addresses: Iterable[Address] | None) -> list[Place]:
    """Where to look: at `addresses` if there are any, else at `url` and `port`.

    Where all three are None, it is at the address in `SERVER_VARIABLE`, if there is one.

    Raises:
        ConfigError: If one of them is none, or another url or port than the usual one stands beside `addresses`.
    """
    is_given = url is not None or port is not None
    url = DEFAULT_PLACE[0] if url is None else url
    port = DEFAULT_PLACE[1] if port is None else port
    if addresses is None:
        named = os.environ.get(SERVER_VARIABLE)
        return [_named_place(named) if named and not is_given else to_place((url, port))]
    if isinstance(addresses, str) or not isinstance(addresses, Iterable):
        address = addresses if isinstance(addresses, str) else grpc_address(*DEFAULT_PLACE)
        raise ConfigError(
            f"is {addresses!r}; use a list of them, such as [{address!r}]", field="addresses", where="addresses"
        )
    if (url, port) != DEFAULT_PLACE:
        raise ConfigError(
            f"url is {url!r} and port {port!r} beside addresses, which take their place; add the server to addresses, "
            "or leave url and port out",
            field="addresses",
        )
    places = [to_place(address) for address in addresses]
    if not places:
        raise ConfigError(
            "is empty; name at least one server, such as 'localhost:56789'", field="addresses", where="addresses"
        )
    return places


def _named_place(address: str) -> Place:
    try:
        return to_place(address)
    except ConfigError as error:
        raise ConfigError(f"{SERVER_VARIABLE} {error.problem}") from error


class Addresses:
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

    def open(self, request: pb.OpenRequest) -> ClientSession:
        """Open a session.

        Args:
            request: What to open; encodings are chosen here.

        Raises:
            ConnectError: If no server could be reached.
            ServerFull: If those that could have no room.
            NotPermitted: If none of those that could lets this client open it.
            RemoteGymError: As `ClientSession` does.
        """
        if len(self._circuits) == 1:
            return self.open_at(next(iter(self._circuits)), request)
        failures: list[tuple[Place, RemoteGymError]] = []
        for places in self._rounds():
            session = self._open_least_loaded(places, request, failures)
            if session is not None:
                return session
        if not failures:
            return self._open_at_any(request)
        (_, first), *others = failures
        also = "".join(f"; {grpc_address(*place)}: {error}" for place, error in others)
        raise reworded(first, f"{first}{also}") from first

    def open_at(self, place: Place, request: pb.OpenRequest) -> ClientSession:
        """Open a session at one of them.

        Raises:
            RemoteGymError: As `ClientSession` does.
        """
        return self._open_by(self._connect(place), request)

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

    def _open_at_any(self, request: pb.OpenRequest) -> ClientSession:
        """Nobody has answered in time, so one is given more of it, and looked at."""
        with self._lock:
            place = min(self._circuits, key=lambda place: self._circuits[place].next_trial)
        try:
            return self._try(place, None, request)
        except (ConnectError, ConnectionLost) as error:
            others = [other for other in self._circuits if other != place]
            with ThreadPoolExecutor(min(len(others), MOST_AT_ONCE)) as threads:
                also = "".join(f"; {text}" for text in threads.map(self._why_not, others))
            raise reworded(error, f"{error}{also}") from error

    def _why_not(self, place: Place) -> str:
        """Why a server that did not answer cannot be reached."""
        name = self._options.server_name
        checks = diagnose(*place, self._files, server_name=name, timeout=LOAD_TIMEOUT)
        return f"{grpc_address(*place)}: {summarise(checks)}"

    def _open_least_loaded(
        self, places: Sequence[Place], request: pb.OpenRequest, failures: list[tuple[Place, RemoteGymError]]
    ) -> ClientSession | None:
        """Try those that answer; None if none opens a session, of which `failures` are told."""
        connections = {place: self._connect(place) for place in places}
        try:
            for place in self._by_load(connections):
                try:
                    return self._try(place, connections.pop(place), request)
                except (ConnectError, ConnectionLost, NotPermitted, ServerFull) as error:
                    logger.info("%s; trying another address", error)
                    failures.append((place, error))
        finally:
            for connection in connections.values():
                connection.close()
        return None

    def _by_load(self, connections: Mapping[Place, GrpcConnection]) -> list[Place]:
        """Servers that answer, the least loaded first and those that are stopping last."""
        answers = {place: connection.ask_load(LOAD_TIMEOUT) for place, connection in connections.items()}
        found = {}
        for place, answer in answers.items():
            try:
                load = answer()
            except RemoteGymError as error:
                logger.info("%s does not tell how busy it is: %s", grpc_address(*place), error)
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

    def _try(self, place: Place, connection: GrpcConnection | None, request: pb.OpenRequest) -> ClientSession:
        with self._lock:
            self._opening[place] += 1
        try:
            session = self._open_by(connection or self._connect(place), request)
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

    def _connect(self, place: Place) -> GrpcConnection:
        connection = connect(*place, self._files, self._options, self._credentials)
        # For the next one: files that are being replaced do not fit in between, which is to stop no environment.
        self._credentials = connection.credentials
        return connection

    def _open_by(self, connection: GrpcConnection, request: pb.OpenRequest) -> ClientSession:
        choose_encodings(request, self._options, connection.place[0])
        return ClientSession.open(connection, request, self._options)
