"""A conversation of OpenEnv's by WebSocket: one message at a time, each answered once, and never too late."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from gymnasium import spaces
from starlette.websockets import WebSocket, WebSocketDisconnect

from remote_gym.errors import (
    ConfigError,
    EncodingError,
    InvalidAction,
    NotPermitted,
    RemoteGymError,
    ServerFull,
    SessionLost,
)
from remote_gym.logs import get_logger, host_of
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.connection import connection_of
from remote_gym.server.frontends.http.doors import client_of
from remote_gym.server.frontends.http.protocols.openenv import (
    EPISODE_HEADER,
    Player,
    cookie_header,
    cookie_key,
    new_key,
)
from remote_gym.server.frontends.http.protocols.openenv_tools import (
    ToolCalls,
    asked_session,
    session_key,
    step_by_tool,
)
from remote_gym.server.frontends.http.reading import Refused, parse_object, text_of

logger = get_logger(__name__)

NO_SESSION_TIMEOUT = 600.0
"""Seconds for which a connection may ask for nothing while it has no session; with one, `idle_timeout` says."""

MOST_WAITING = 4
"""Messages that are read ahead. A client sends the next one once it has an answer, or has given up waiting for it."""

_TAKEN, _GONE, _POLICY = 4001, 1001, 1008
"""Codes by which a WebSocket is closed: the session is another connection's, its time is up, not permitted."""


class Conversation:
    """Answers one WebSocket until its end, or the server's.

    Args:
        websocket: Not accepted yet.
        bridge: Opens sessions.
        environment: Name of what is played; empty for the server's default.
        headers: Of the answer that accepts it.
    """

    def __init__(self, websocket: WebSocket, bridge: Bridge, environment: str) -> None:
        self._websocket = websocket
        self._bridge = bridge
        self._client: Client = client_of(websocket.scope)
        self._inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue(MOST_WAITING)
        self._player = _Attached(bridge, self._client, environment, self)
        sent = cookie_key(websocket)
        # One that stands for nothing is not ours, or no longer.
        self._sent_key = sent if sent and bridge.kept(self._client.identity, sent) is not None else ""
        self._key = self._sent_key or new_key()
        episode = websocket.headers.get(EPISODE_HEADER, "")
        # An anonymous client's names would be everybody's.
        self._episode = f"episode {environment} {episode}" if episode and self._client.identity else ""
        self._code: int | None = None
        self._asked = asked_session(websocket)
        self._tools = ToolCalls(bridge, self._client, environment, self._player)

    async def serve(self) -> None:
        """Answer until the end, and leave the session for its lease, or end it where the client has said so."""
        await self._websocket.accept(headers=self._cookie())
        is_there = self._resume(session_key(self._asked)) if self._asked else True
        self._resume(*(() if self._asked else (self._sent_key, self._episode)))
        reading = asyncio.ensure_future(self._read())
        try:
            if is_there:
                await self._answer_all()
            else:
                missing = f"session_id {self._asked[:8]!r}... is not, or no longer, one of yours"
                await self._websocket.send_text(_error("SESSION_ERROR", missing))
        except WebSocketDisconnect:
            pass
        finally:
            reading.cancel()
            await self._leave()
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._websocket.close(self._code or 1000)

    def keep(self, hosted: Hosted) -> None:
        """Note a session of this conversation's, for its client to come back to."""
        hosted.attach()
        hosted.holder, hosted.on_cut = self, self._on_cut
        self._bridge.keep(self._client.identity, self._key, hosted)
        if self._episode:
            self._bridge.keep(self._client.identity, self._episode, hosted)

    def lose(self) -> None:
        """End, since the session is another connection's from now on."""
        self._player.hosted = None
        self._end(_TAKEN)

    def _cookie(self) -> list[tuple[bytes, bytes]]:
        if self._sent_key:
            return []
        return [(b"set-cookie", cookie_header(self._key, self._websocket).encode())]

    def _resume(self, *keys: str) -> bool:
        """Go on with a session that the client has left, or that it has lost the connection to."""
        for key in filter(None, keys):
            if (hosted := self._bridge.kept(self._client.identity, key)) is not None and hosted.holder is not self:
                if isinstance(hosted.holder, Conversation):
                    hosted.holder.lose()
                try:
                    self.keep(hosted)
                except RemoteGymError:  # it has ended meanwhile
                    continue
                self._player.hosted = hosted
                return True
        return False

    async def _read(self) -> None:
        """Read ahead, so that a client that leaves, or gives up waiting, is noticed while the environment works."""
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                text = message.get("text")
                await self._inbox.put(text if text is not None else message.get("bytes") or b"")
        finally:
            self._end(1000)

    def _end(self, code: int) -> None:
        """Have `_answer_all` end as soon as it looks for another message."""
        if self._code is None:
            self._code = code
        while True:
            try:
                self._inbox.put_nowait(None)
                return
            except asyncio.QueueFull:  # of what nobody waits for any more
                self._inbox.get_nowait()

    async def _answer_all(self) -> None:
        while True:
            timeout = NO_SESSION_TIMEOUT if self._player.hosted is None else None
            try:
                text = await asyncio.wait_for(self._inbox.get(), timeout)
            except asyncio.TimeoutError:
                self._code = _GONE
                return
            if text is None:
                return
            if time.monotonic() >= self._client.answered_until:
                self._code = _GONE  # the client makes another connection, for which it shows its certificate again
                return
            answer = await self._answer(text)
            if answer is None:
                return
            # A message that has come meanwhile says that the client has given up waiting. It would take this answer
            # for the next one's, and from then on each for the one after it.
            if answer and self._inbox.empty():
                await self._websocket.send_text(answer)

    async def _answer(self, text: str | bytes) -> str | None:
        """The answer to a message; None to end."""
        try:
            message = _parse(text)
            kind, data = message.get("type"), message.get("data") or {}
            if kind == "close":
                await self._player.close()
                return None
            if not isinstance(data, dict):
                return _error("VALIDATION_ERROR", f"data is a {type(data).__name__}; send an object")
            if kind == "reset":
                return _message("observation", await self._reset(data))
            if kind == "mcp":
                return _message("mcp", await self._tools.answer_message(data))
            if kind == "step" and (by_tool := await self._by_tool(data)) is not None:
                return _message("observation", by_tool)
            if kind == "step":
                return _message("observation", await self._player.step(data, len(text)))
            if kind == "state":
                return _message("state", json.dumps(self._player.progress.state()).encode())
        except _NotJsonError as error:
            return _error("INVALID_JSON", str(error))
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return self._error_of(error)
        return _error("UNKNOWN_TYPE", f"the type is {kind!r:.100}; send reset, step, state, mcp or close")

    async def _by_tool(self, data: dict[str, Any]) -> bytes | None:
        """Answer a step that is no step, but lists the tools or calls one; None for any other."""
        hosted = self._player.hosted
        if hosted is not None and isinstance(hosted.action_space, spaces.Dict) and "type" in hosted.action_space.spaces:
            return None
        return await step_by_tool(self._player, data)

    async def _reset(self, data: dict[str, Any]) -> bytes:
        """Reset; or, of a client that is known and comes back with its episode's id, go on with that episode."""
        episode = data.get("episode_id")
        if self._player.hosted is None and self._client.identity and isinstance(episode, str) and episode:
            key = f"id {episode}"
            if self._resume(key) and self._player.hosted is not None:
                progress = self._player.progress
                if not progress.is_over and progress.last and progress.episode_id == episode:
                    return bytes(await self._player.hosted.settled(lambda: progress.last))
        answer = await self._player.reset(data)
        if self._client.identity and self._player.hosted is not None:
            self._bridge.keep(self._client.identity, f"id {self._player.progress.episode_id}", self._player.hosted)
        return answer

    def _error_of(self, error: Exception) -> str:
        """An error of the protocol, with the code that says most."""
        if isinstance(error, ServerFull):
            return _error("CAPACITY_REACHED", text_of(error))
        if isinstance(error, (InvalidAction, EncodingError, ConfigError, Refused)):
            return _error("VALIDATION_ERROR", text_of(error))
        if isinstance(error, (SessionLost, NotPermitted)):
            return _error("SESSION_ERROR", text_of(error))
        if self._player.hosted is None:
            return _error("FACTORY_ERROR", text_of(error))
        return _error("EXECUTION_ERROR", text_of(error))

    def _on_cut(self, reason: RemoteGymError) -> None:
        """The session has ended, which the next message's answer says; or the client is not let in any more."""
        if isinstance(reason, NotPermitted):
            self._end(_POLICY)
        else:
            peer = connection_of(self._websocket.scope).peer
            logger.info("the session of a WebSocket of %s has ended: %s", peer, reason, repeats=host_of(peer))

    async def _leave(self) -> None:
        hosted, self._player.hosted = self._player.hosted, None
        if hosted is not None and hosted.holder is self:
            hosted.holder = None
            # Once its last request is answered, so that its lease begins then.
            await hosted.settled(hosted.detach)


class RpcConversation(Conversation):
    """As any conversation, of messages that are requests of JSON-RPC."""

    async def _answer(self, text: str | bytes) -> str | None:
        return (await self._tools.answer(text)).decode()


class _Attached(Player):
    """Plays for a conversation, which keeps its session."""

    def __init__(self, bridge: Bridge, client: Client, environment: str, conversation: Conversation) -> None:
        super().__init__(bridge, client, environment)
        self._conversation = conversation

    async def _opened(self, hosted: Hosted) -> None:
        self._conversation.keep(hosted)


class _NotJsonError(Exception):
    pass


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        return parse_object(text)
    except Refused as error:
        raise _NotJsonError(str(error)) from None


def _message(kind: str, data: bytes) -> str:
    return f'{{"type": "{kind}", "data": {data.decode()}}}'


def _error(code: str, message: str) -> str:
    return json.dumps({"type": "error", "data": {"message": message, "code": code}})
