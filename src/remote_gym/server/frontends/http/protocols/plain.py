"""Our own protocol in JSON, for everybody else: by requests, and by messages of a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from remote_gym.errors import ConfigError, RemoteGymError, SessionLost
from remote_gym.protocol.constants import package_versions
from remote_gym.protocol.description import read_tools
from remote_gym.protocol.requests import reset_request
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.doors import client_of
from remote_gym.server.frontends.http.protocols.operations import OPERATIONS, openapi
from remote_gym.server.frontends.http.reading import (
    Refused,
    answer,
    error_answer,
    parse_object,
    read_body,
    status_of,
    text_of,
)
from remote_gym.server.frontends.http.schemas import schema_of
from remote_gym.server.frontends.http.values import JsonWriter, element_of

PREFIX = "/v1"

MOST_OPENINGS = 1024
"""Answers of `open` that are kept for clients that repeat it; of other requests each session keeps its newest."""

LEAST_REQUEST = 16
"""Characters of a request's id by which a session is opened."""

SILENT = 600.0
"""Seconds for which a WebSocket that holds no session may ask for nothing."""

_WRITERS = {"list": JsonWriter(texts=True), "base64": JsonWriter(texts=True, base64=True)}
_STEP = ("observation", "reward", "terminated", "truncated", "info")


class Plain:
    """Routes of the protocol.

    Args:
        bridge: Opens sessions.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._openings: dict[tuple[str, str], asyncio.Task[bytes]] = {}

    def routes(self) -> list[BaseRoute]:
        """With their prefix."""
        found: list[BaseRoute] = [
            Route(f"{PREFIX}/health", _health, methods=["GET"]),
            Route(f"{PREFIX}/openapi.json", _openapi, methods=["GET"]),
            WebSocketRoute(f"{PREFIX}/ws", self._converse),
        ]
        for name, operation in OPERATIONS.items():
            endpoint = functools.partial(self._answer, name)
            found.append(Route(PREFIX + operation.path, endpoint, methods=[operation.method]))
        return found

    async def ask(self, client: Client, name: str, session: str, data: Mapping[str, Any], size: int) -> bytes:
        """Answer one request.

        Args:
            client: Who makes it.
            name: Of its operation.
            session: Whose it is; empty to open one.
            data: Its members.
            size: Bytes that they came in.

        Returns:
            The answer's JSON.

        Raises:
            Exception: Why not.
        """
        OPERATIONS[name].check(data)
        request = data.get("request") or ""
        if name == "open":
            return await self._once_opened(client, str(request), data)
        playing = self.playing(client, session)
        if request and playing.newest is not None and playing.newest[0] == (name, request):
            return await asyncio.shield(playing.newest[1])
        task = _begin(getattr(self, f"_{name}")(playing, data, size))
        playing.newest = (name, str(request)), task
        return await asyncio.shield(task)

    def playing(self, client: Client, session: str) -> Playing:
        """The session that a client names.

        Raises:
            SessionLost: If there is none, or no longer.
        """
        hosted = self._bridge.kept(client.identity, f"plain {session}")
        if hosted is None or not isinstance(hosted.progress, Playing):
            raise SessionLost(f"session {session[:8]!r}... is not, or no longer, one of yours; open another")
        return hosted.progress

    async def _answer(self, name: str, request: Request) -> Response:
        try:
            body = await read_body(request) if request.method == "POST" else b""
            session = str(request.path_params.get("session", ""))
            return answer(await self.ask(client_of(request.scope), name, session, parse_object(body), len(body)))
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return error_answer(error)

    async def _converse(self, websocket: WebSocket) -> None:
        await _Conversation(self, websocket).serve()

    async def _once_opened(self, client: Client, request: str, data: Mapping[str, Any]) -> bytes:
        if 0 < len(request) < LEAST_REQUEST:
            raise ConfigError(
                f"has {len(request)} characters; send {LEAST_REQUEST} or more, at random: who sends the same is given "
                "the same session",
                field="request",
                where="request",
            )
        key = client.identity, request
        known = self._openings.get(key) if request else None
        if known is not None and not (known.done() and (known.cancelled() or known.exception())):
            return await asyncio.shield(known)
        task = _begin(self._open(client, data))
        if request:
            self._openings[key] = task
            if len(self._openings) > MOST_OPENINGS:
                del self._openings[next(iter(self._openings))]
        return await asyncio.shield(task)

    async def _open(self, client: Client, data: Mapping[str, Any]) -> bytes:
        arrays = data.get("arrays") or "list"
        if arrays not in _WRITERS:
            raise ConfigError(f"is {arrays!r:.100}; send 'list' or 'base64'", field="arrays", where="arrays")
        arguments = {"environment": data.get("environment") or "", "entrypoint_kwargs": data.get("kwargs") or {}}
        first = reset_request(data.get("seed"), data.get("options"), self._bridge.options.message_limits)
        hosted = await self._bridge.open(client, arguments, first, render_mode=data.get("render_mode"))
        hosted.progress = playing = Playing(hosted, _WRITERS[arrays])
        session = secrets.token_urlsafe(24)
        facts = {
            "session": session,
            "observation_space": schema_of(hosted.observation_space),
            "action_space": schema_of(hosted.action_space),
            "exposed": [each.name for each in hosted.description.exposed],
            "lease": self._bridge.options.lease,
        }

        def read(*found: Any) -> bytes:
            return playing.write({**facts, **dict(zip(_BEGUN, found, strict=True))})

        try:
            written = await hosted.first(read)
        except BaseException:  # nobody could name it
            await hosted.close()
            raise
        self._bridge.keep(client.identity, f"plain {session}", hosted)
        return written

    async def _reset(self, playing: Playing, data: Mapping[str, Any], _: int) -> bytes:
        request = reset_request(data.get("seed"), data.get("options"), self._bridge.options.message_limits)
        return await playing.hosted.reset(request, lambda *found: playing.write(dict(zip(_BEGUN, found, strict=True))))

    async def _step(self, playing: Playing, data: Mapping[str, Any], size: int) -> bytes:
        return await playing.hosted.step(
            lambda: element_of(playing.hosted.action_space, data["action"]),
            lambda *found: playing.write(dict(zip(_STEP, found, strict=True))),
            size,
        )

    async def _render(self, playing: Playing, _data: Mapping[str, Any], _: int) -> bytes:
        return await playing.hosted.render(lambda frame: playing.write({"frame": frame}))

    async def _call(self, playing: Playing, data: Mapping[str, Any], size: int) -> bytes:
        try:
            return await playing.hosted.call(
                data["name"],
                data.get("args") or [],
                data.get("kwargs") or {},
                lambda value: playing.write({"value": value}),
                size,
            )
        except AttributeError as error:
            raise Refused(400, str(error)) from None

    async def _tools(self, playing: Playing, _data: Mapping[str, Any], _: int) -> bytes:
        return playing.write({"tools": read_tools(playing.hosted.description)})

    async def _close(self, playing: Playing, _data: Mapping[str, Any], _: int) -> bytes:
        await playing.hosted.close()
        return b'{"closed": true}'


_BEGUN = ("observation", "info")


class Playing:
    """A session as this protocol has it.

    Args:
        hosted: The session.
        writer: Writes its values.

    Attributes:
        newest: The newest request's name and id, and what answers it.
    """

    def __init__(self, hosted: Hosted, writer: JsonWriter) -> None:
        self.hosted = hosted
        self.write = writer.write
        self.newest: tuple[tuple[str, str], asyncio.Task[bytes]] | None = None


class _Conversation:
    """Answers the messages of one WebSocket in order, and holds the sessions that they name."""

    def __init__(self, plain: Plain, websocket: WebSocket) -> None:
        self._plain = plain
        self._websocket = websocket
        self._client = client_of(websocket.scope)
        self._held: dict[str, Hosted] = {}

    async def serve(self) -> None:
        """Answer until the end."""
        await self._websocket.accept()
        code = 1000
        try:
            while True:
                timeout = None if self._held else SILENT
                message = await asyncio.wait_for(self._websocket.receive(), timeout)
                if message["type"] == "websocket.disconnect":
                    return
                if time.monotonic() >= self._client.answered_until:
                    code = 1001
                    return
                text = message.get("text")
                await self._websocket.send_text(await self._answer(text if text is not None else message["bytes"]))
        except asyncio.TimeoutError:
            code = 1001
        except WebSocketDisconnect:
            pass
        finally:
            for hosted in self._held.values():
                if hosted.holder is self:
                    hosted.holder = None
                    await hosted.settled(hosted.detach)
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._websocket.close(code)

    async def _answer(self, text: str | bytes) -> str:
        number: Any = None
        try:
            message = parse_object(text)
            number, name = message.pop("id", None), message.pop("do", None)
            session = str(message.pop("session", ""))
            if not isinstance(name, str) or name not in OPERATIONS:
                raise Refused(400, f"do is {name!r:.100}; send one of {', '.join(OPERATIONS)}")
            if session:
                self._hold(session)
            body = await self._plain.ask(self._client, name, session, message, len(text))
            if name == "open":
                self._hold(json.loads(body)["session"])
            return f'{{"id": {json.dumps(number)}, "answer": {body.decode()}}}'
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return json.dumps({"id": number, "error": {"status": status_of(error), "detail": text_of(error)}})

    def _hold(self, session: str) -> None:
        hosted = self._plain.playing(self._client, session).hosted
        if hosted.holder is not self:
            hosted.attach()
            hosted.holder, hosted.on_cut = self, self._on_cut
        self._held[session] = hosted

    def _on_cut(self, reason: RemoteGymError) -> None:
        """Let the next message's answer say why a session has ended."""


def _begin(coroutine: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
    task = asyncio.ensure_future(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _health(_: Request) -> Response:
    return answer(b'{"status": "healthy"}')


async def _openapi(_: Request) -> Response:
    return answer(json.dumps(openapi(package_versions()["remote-gym"], PREFIX)).encode())
