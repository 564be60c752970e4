"""Tools in OpenEnv's protocol: ``tools/list`` and ``tools/call`` of MCP by JSON-RPC, and actions that mean the same."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import HTTPConnection

from remote_gym.errors import RemoteEnvironmentError, ServerFull, SessionLost
from remote_gym.protocol.constants import package_versions
from remote_gym.protocol.description import read_tools
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.protocols.openenv import Player
from remote_gym.server.frontends.http.reading import text_of
from remote_gym.server.frontends.http.values import JsonWriter, Written

RESERVED = frozenset({"reset", "step", "state", "close"})
"""Names of the protocol's own operations, which no tool may have."""

_PARSE, _INVALID, _NO_METHOD, _PARAMS, _INTERNAL, _SERVER = -32700, -32600, -32601, -32602, -32603, -32000
_REVISION = "2025-06-18"
_WRITER = JsonWriter()


class RpcError(Exception):
    """An error of JSON-RPC.

    Args:
        code: One of its own.
        text: Why, and what would be right.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def tools_of(hosted: Hosted) -> list[dict[str, Any]]:
    """The tools of a session's environment, each with ``name``, ``description`` and ``input_schema``."""
    return [tool for tool in read_tools(hosted.description) if tool["name"] not in RESERVED]


async def call_tool(hosted: Hosted, name: Any, arguments: Any) -> Written:
    """Call a tool.

    Returns:
        What MCP calls a result, with the value itself as ``data``.

    Raises:
        RpcError: If there is no such tool.
        Exception: As `Hosted.call`.
    """
    known = [tool["name"] for tool in tools_of(hosted)]
    if name not in known:
        raise RpcError(_PARAMS, f"Tool not found: {name!r:.100}; there are {', '.join(known) or 'none'}")
    if not isinstance(arguments, dict):
        raise RpcError(_PARAMS, f"arguments are a {type(arguments).__name__}; send an object")
    return await hosted.call(name, [], arguments, _result, size=len(str(arguments)))


def _result(value: Any) -> Written:
    data = _WRITER.write(value)
    text = value if isinstance(value, str) else data.decode()
    found = {"content": [{"type": "text", "text": text}], "data": Written(data), "isError": False}
    return Written(
        _WRITER.write({**found, **({"structuredContent": Written(data)} if isinstance(value, dict) else {})})
    )


class ToolCalls:
    """Answers the requests of JSON-RPC that one client makes.

    Args:
        bridge: Opens sessions.
        client: Whose they are.
        environment: Name of what is played; empty for the server's default.
        player: Has the session of requests that name none, and opens it.
    """

    def __init__(self, bridge: Bridge, client: Client, environment: str, player: Player) -> None:
        self._bridge = bridge
        self._client = client
        self._environment = environment
        self._player = player

    async def answer(self, text: str | bytes) -> bytes:
        """Answer one request; of a notification with nothing."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            return _failed(None, _PARSE, f"the request is no JSON: {error}")
        return await self.answer_message(message)

    async def answer_message(self, message: Any) -> bytes:
        """As `answer`, of a request that was read."""
        number = message.get("id") if isinstance(message, dict) else None
        try:
            method, params = _method_of(message)
            if "id" not in message and method.startswith("notifications/"):
                return b""
            result = await self._run(method, params)
            return _WRITER.write({"jsonrpc": "2.0", "id": number, "result": result})
        except RpcError as error:
            return _failed(number, error.code, str(error))
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return _failed(number, _code_of(error), text_of(error))

    async def _run(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "initialize":
            server = {"name": "remote_gym", "version": package_versions()["remote-gym"]}
            return {"protocolVersion": _REVISION, "capabilities": {"tools": {}}, "serverInfo": server}
        if method == "ping":
            return {}
        if method == "openenv/session/create":
            return {"session_id": await self._create()}
        if method == "openenv/session/close":
            session = str(params.get("session_id") or "")
            await self._named(session).close()
            return {"session_id": session, "closed": True}
        if method not in ("tools/list", "tools/call"):
            raise RpcError(_NO_METHOD, f"Method not found: {method:.100}")
        session = str(params.get("session_id") or "")
        hosted = self._named(session) if session else await self._player.open()
        if method == "tools/list":
            return {"tools": [_as_mcp(tool) for tool in tools_of(hosted)]}
        return await call_tool(hosted, params.get("name"), params.get("arguments") or {})

    async def _create(self) -> str:
        hosted = await Player(self._bridge, self._client, self._environment).open()
        session = secrets.token_urlsafe(24)
        self._bridge.keep(self._client.identity, session_key(session), hosted)
        return session

    def _named(self, session: str) -> Hosted:
        hosted = self._bridge.kept(self._client.identity, session_key(session))
        if hosted is None:
            raise RpcError(_PARAMS, f"Unknown session_id: {session[:8]!r}... is not, or no longer, one of yours")
        return hosted


def session_key(session: str) -> str:
    """Key under which a session is kept that a client has created by itself."""
    return f"tools {session}"


def asked_session(request: HTTPConnection) -> str:
    """The session that a WebSocket asks for, of those that its client has created; empty for none."""
    return request.query_params.get("session_id", "")


async def step_by_tool(player: Player, data: Mapping[str, Any]) -> bytes | None:
    """Answer an action that lists the tools, or calls one; None for any other.

    Returns:
        An observation's data, as JSON. Nothing is stepped, and so there is no reward.
    """
    kind = data.get("type")
    if kind == "list_tools":
        observation: dict[str, Any] = {"tools": tools_of(await player.open())}
    elif kind == "call_tool" and "tool_name" in data:
        observation = await _called(await player.open(), data["tool_name"], data.get("arguments") or {})
    else:
        return None
    return _WRITER.write({"observation": observation, "reward": None, "done": player.progress.is_over})


async def _called(hosted: Hosted, name: Any, arguments: Any) -> dict[str, Any]:
    try:
        return {"tool_name": name, "result": await call_tool(hosted, name, arguments), "error": None}
    except RpcError as error:
        kind, text = "tool_not_found" if isinstance(arguments, dict) else "invalid_args", str(error)
    except RemoteEnvironmentError as error:
        kind, text = "execution_error", text_of(error)
    return {"tool_name": name, "result": None, "error": {"error_type": kind, "message": text}}


def _method_of(message: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        raise RpcError(_INVALID, 'the request is none of JSON-RPC; send {"jsonrpc": "2.0", "id": 1, "method": ...}')
    params = message.get("params") or {}
    if not isinstance(params, dict):
        raise RpcError(_PARAMS, f"params are a {type(params).__name__}; send an object")
    return message["method"], params


def _as_mcp(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": tool["name"], "description": tool["description"], "inputSchema": tool["input_schema"]}


def _code_of(error: Exception) -> int:
    if isinstance(error, ServerFull):
        return _SERVER
    return _PARAMS if isinstance(error, SessionLost) else _INTERNAL


def _failed(number: Any, code: int, text: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}).encode()
