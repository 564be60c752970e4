"""The servers at which an environment of an event loop can be opened."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from remote_gym.address import Place, grpc_address
from remote_gym.client.aio.channel import server_at
from remote_gym.client.aio.connection import AsyncConnection
from remote_gym.client.aio.session import AsyncSession
from remote_gym.client.connect.diagnosis import summarise
from remote_gym.client.connect.opening import token_to_show
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import perform_async
from remote_gym.client.rules.servers import LOAD_TIMEOUT, Choice
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import RemoteGymError
from remote_gym.protocol.open_request import choose_encodings
from remote_gym.v1 import remote_gym_pb2 as pb


def connect(place: Place, files: TlsFiles | None, options: ClientOptions) -> AsyncConnection:
    """A connection to a server, over a channel that is shared; nothing is sent yet.

    Raises:
        ConfigError: As `remote_gym.client.connect.opening.connect` does.
    """
    return AsyncConnection(*place, files, options, token_to_show(place[0], files, options))


class AsyncAddresses(Choice):
    """Servers one of which is chosen by awaiting; see `Choice`."""

    async def open(self, request: pb.OpenRequest) -> AsyncSession:
        """Open a session; see `Choice`."""
        session: AsyncSession = await perform_async(self._opening_one(request))
        return session

    def _connect(self, place: Place) -> AsyncConnection:
        return connect(place, self._files, self._options)

    async def _open_by(self, connection: Connection, request: pb.OpenRequest) -> AsyncSession:
        try:
            choose_encodings(request, self._options, connection.place[0])
        except BaseException:
            connection.close()
            raise
        return await perform_async(AsyncSession.opening(connection, request, self._options))

    async def _ask_loads(
        self, connections: Mapping[Place, Any]
    ) -> dict[Place, pb.LoadResponse | RemoteGymError | None]:
        async def ask(connection: AsyncConnection) -> pb.LoadResponse | RemoteGymError | None:
            try:
                return await connection.ask_load(LOAD_TIMEOUT)
            except RemoteGymError as error:
                return error

        answers = await asyncio.gather(*map(ask, connections.values()))
        return dict(zip(connections, answers, strict=True))

    async def _explain(self, places: Sequence[Place]) -> list[str]:
        async def why_not(place: Place) -> str:
            token = token_to_show(place[0], self._files, self._options)
            checks = await server_at(place, self._files, token, self._options).diagnose(LOAD_TIMEOUT)
            return f"{grpc_address(*place)}: {summarise(checks)}"

        return list(await asyncio.gather(*map(why_not, places)))
