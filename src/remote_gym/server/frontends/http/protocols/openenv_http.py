"""OpenEnv's protocol by single requests, as its clients before 0.2 make them, and what all of them ask beside."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Sequence

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from remote_gym.protocol.constants import package_versions
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.connection import connection_of
from remote_gym.server.frontends.http.doors import client_of
from remote_gym.server.frontends.http.protocols.openenv import (
    Player,
    cookie_header,
    cookie_key,
    metadata,
    new_key,
    schemas,
)
from remote_gym.server.frontends.http.protocols.openenv_socket import Conversation, RpcConversation
from remote_gym.server.frontends.http.protocols.openenv_tools import ToolCalls
from remote_gym.server.frontends.http.reading import answer, error_answer, parse_object, read_body
from remote_gym.server.service import Service


class OpenEnv:
    """Routes of the protocol.

    Args:
        service: The server's.
        bridge: Opens sessions.
    """

    def __init__(self, service: Service, bridge: Bridge) -> None:
        self._service = service
        self._bridge = bridge
        self._turns: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()
        self._facts: dict[tuple[str, str], tuple[bytes, bytes]] = {}  # by identity and environment

    def routes(self) -> list[BaseRoute]:
        """Below the prefix; the name of an environment, where it is not the default, stands before the rest."""
        found: list[BaseRoute] = [Route("/health", self._health, methods=["GET"])]
        for prefix in ("", "/{environment}"):
            found += [
                WebSocketRoute(f"{prefix}/ws", self._converse),
                WebSocketRoute(f"{prefix}/mcp", self._converse_by_rpc),
                Route(f"{prefix}/mcp", self._call_tools, methods=["POST"]),
                Route(f"{prefix}/reset", self._reset, methods=["POST"]),
                Route(f"{prefix}/step", self._step, methods=["POST"]),
                Route(f"{prefix}/state", self._state, methods=["GET"]),
                Route(f"{prefix}/schema", self._schema, methods=["GET"]),
                Route(f"{prefix}/metadata", self._metadata, methods=["GET"]),
                Route(f"{prefix}/health", self._health, methods=["GET"]),
            ]
        return found

    async def _health(self, _: Request) -> Response:
        if self._service.load().draining:
            return answer(b'{"status": "unhealthy", "detail": "the server is about to stop"}', 503)
        return answer(b'{"status": "healthy"}')

    async def _converse(self, websocket: WebSocket) -> None:
        await Conversation(websocket, self._bridge, _environment(websocket)).serve()

    async def _converse_by_rpc(self, websocket: WebSocket) -> None:
        await RpcConversation(websocket, self._bridge, _environment(websocket)).serve()

    async def _call_tools(self, request: Request) -> Response:
        try:
            text = await read_body(request)
            player = self._player(request)
            async with self._turn(player.identity, player.key):
                player.find()
            calls = ToolCalls(self._bridge, client_of(request.scope), _environment(request), player)
            body = await calls.answer(text)
        except Exception as error:  # noqa: BLE001 - of the body
            return error_answer(error)
        if not body:
            return Response(status_code=202)
        return answer(body, headers=_cookies(player, request) if player.hosted is not None else {})

    async def _reset(self, request: Request) -> Response:
        try:
            data = parse_object(await read_body(request))
            player = self._player(request)
            async with self._turn(player.identity, player.key):
                player.find()
                body = await player.reset(data)
            return answer(body, headers=_cookies(player, request))
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return error_answer(error)

    async def _step(self, request: Request) -> Response:
        try:
            body = await read_body(request)
            data = parse_object(body)
            action = data.get("action", data)
            # An action that is no object is what `action` of one would be.
            data = action if isinstance(action, dict) else {"action": action}
            player = self._player(request).find()
            return answer(await player.step(data, len(body)))
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return error_answer(error)

    async def _state(self, request: Request) -> Response:
        return answer(json.dumps(self._player(request).find().progress.state()).encode())

    def _turn(self, identity: str, key: str) -> asyncio.Lock:
        """Lock of whoever may open a session under a key."""
        return self._turns.setdefault((identity, key), asyncio.Lock())

    def _player(self, request: Request) -> _Asking:
        client = client_of(request.scope)
        sent = cookie_key(request)
        key = sent if sent and self._bridge.kept(client.identity, sent) is not None else new_key()
        # A client that keeps no cookies has one session for each environment, or, where nobody knows it, one for each
        # of its connections.
        others = [f"http {_environment(request)}"] if client.identity else []
        others.append(f"connection {connection_of(request.scope).number}")
        return _Asking(self._bridge, client, _environment(request), key, others)

    async def _schema(self, request: Request) -> Response:
        return await self._fact(request, 0)

    async def _metadata(self, request: Request) -> Response:
        return await self._fact(request, 1)

    async def _fact(self, request: Request, which: int) -> Response:
        """Answer by what only an environment itself knows: one is opened for that, once for each identity."""
        client, environment = client_of(request.scope), _environment(request)
        try:
            async with self._turn(client.identity, f"facts {environment}"):
                await self._learn(client, environment)
            return answer(self._facts[client.identity, environment][which])
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return error_answer(error)

    async def _learn(self, client: Client, environment: str) -> None:
        if (client.identity, environment) in self._facts:
            return
        hosted = await self._bridge.open(client, {"environment": environment} if environment else {})
        try:
            version = package_versions()["remote-gym"]
            facts = (json.dumps(schemas(hosted)).encode(), json.dumps(metadata(hosted, version)).encode())
            self._facts[client.identity, environment] = facts
        finally:
            await hosted.close()


class _Asking(Player):
    """Plays for a client that makes single requests.

    Args:
        bridge: Opens sessions.
        client: Whose they are.
        environment: Name of what is played.
        key: The cookie's value.
        others: Keys under which the session is kept as well.
    """

    def __init__(self, bridge: Bridge, client: Client, environment: str, key: str, others: Sequence[str]) -> None:
        super().__init__(bridge, client, environment)
        self.identity = client.identity
        self.key = key
        self._others = others

    def find(self) -> _Asking:
        """Go on with the session that the client has."""
        found = (self._bridge.kept(self.identity, key) for key in (self.key, *self._others))
        self.hosted = next((hosted for hosted in found if hosted is not None), None)
        return self

    async def _opened(self, hosted: Hosted) -> None:
        for key in (self.key, *self._others):
            self._bridge.keep(self.identity, key, hosted)


def _cookies(player: _Asking, request: Request) -> dict[str, str]:
    """Headers that have the client send the key of its session from now on, if it does not yet."""
    return {} if player.key == cookie_key(request) else {"set-cookie": cookie_header(player.key, request)}


def _environment(request: HTTPConnection) -> str:
    return str(request.path_params.get("environment", ""))
