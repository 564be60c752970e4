"""The servers at which an environment can be opened, and which of them to try."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from remote_gym.address import Address, Place, grpc_address, to_place
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.diagnosis import diagnose, summarise
from remote_gym.client.connect.opening import connect
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import perform
from remote_gym.client.rules.servers import LOAD_TIMEOUT, Choice
from remote_gym.client.session import ClientSession
from remote_gym.config import SERVER_VARIABLE
from remote_gym.errors import ConfigError, RemoteGymError
from remote_gym.protocol.open_request import choose_encodings
from remote_gym.v1 import remote_gym_pb2 as pb

MOST_AT_ONCE = 16
"""Servers that are looked at together, to say why none of them can be reached."""

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


class Addresses(Choice):
    """Servers one of which is chosen by blocking; see `Choice`."""

    def open(self, request: pb.OpenRequest) -> ClientSession:
        """Open a session; see `Choice`."""
        session: ClientSession = perform(self._opening_one(request))
        return session

    def open_at(self, place: Place, request: pb.OpenRequest) -> ClientSession:
        """Open a session at one of them.

        Raises:
            RemoteGymError: As `ClientSession` does.
        """
        return self._open_by(self._connect(place), request)

    def _connect(self, place: Place) -> GrpcConnection:
        connection = connect(*place, self._files, self._options, self._credentials)
        # For the next one: files that are being replaced do not fit in between, which is to stop no environment.
        self._credentials = connection.credentials
        return connection

    def _open_by(self, connection: Connection, request: pb.OpenRequest) -> ClientSession:
        assert isinstance(connection, GrpcConnection)
        choose_encodings(request, self._options, connection.place[0])
        return ClientSession.open(connection, request, self._options)

    def _ask_loads(self, connections: Mapping[Place, Any]) -> dict[Place, pb.LoadResponse | RemoteGymError | None]:
        answers = {place: connection.ask_load(LOAD_TIMEOUT) for place, connection in connections.items()}
        found: dict[Place, pb.LoadResponse | RemoteGymError | None] = {}
        for place, answer in answers.items():
            try:
                found[place] = answer()
            except RemoteGymError as error:
                found[place] = error
        return found

    def _explain(self, places: Sequence[Place]) -> list[str]:
        with ThreadPoolExecutor(min(len(places), MOST_AT_ONCE)) as threads:
            return list(threads.map(self._why_not, places))

    def _why_not(self, place: Place) -> str:
        name = self._options.server_name
        checks = diagnose(*place, self._files, server_name=name, timeout=LOAD_TIMEOUT)
        return f"{grpc_address(*place)}: {summarise(checks)}"
