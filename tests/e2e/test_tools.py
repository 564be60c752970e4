"""Exposed methods as tools: for our own clients, in JSON, and for OpenEnv's clients, by the bytes that these send."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from gymnasium.error import ResetNeeded

from remote_gym.testing import loopback_server

pytest.importorskip("uvicorn", reason="the extra http is not installed")
if sys.platform != "linux":
    pytest.skip("elsewhere HTTP has a port of its own only", allow_module_level=True)

import tools_entrypoint
from http_client import asking, socket_of
from tools_entrypoint import ADD


@pytest.fixture(scope="module")
def server():
    arguments = {"entrypoint": str(Path(tools_entrypoint.__file__))}
    with loopback_server(arguments, secure=False, use_thread=True, http=True) as server:
        yield server


class Rpc:
    """Sends requests of JSON-RPC on one connection, without cookies."""

    def __init__(self, client):
        self.client, self.number = client, 0

    def raw(self, body):
        return self.client.ask("POST", "/openenv/mcp", body)

    def ask(self, method, **params):
        self.number += 1
        status, found, _ = self.raw({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        assert (status, found["jsonrpc"], found["id"]) == (200, "2.0", self.number)
        return found.get("error") or found["result"]


@pytest.fixture
def rpc(server):
    with asking(server) as client:
        yield Rpc(client)


def test_our_clients_know_them(server):
    environment = server.environment()
    environment.close()
    with pytest.raises(ResetNeeded, match="no session"):
        _ = environment.tools
    environment = server.environment()
    assert environment.tools[0] == ADD
    assert [tool["name"] for tool in environment.tools] == ["add", "tell", "fail", "reset"]

    async def awaited():
        async with server.async_environment() as environment:
            await environment.reset()
            return environment.tools

    assert asyncio.run(awaited()) == environment.tools


def test_what_is_made_by_its_id_describes_nothing():
    with loopback_server("CartPole-v1", secure=False, use_thread=True) as server:
        assert server.environment().tools == []


def test_in_json(server):
    with asking(server) as client:
        session = client.ask("POST", "/v1/sessions", {"seed": 1})[1]["session"]
        status, found, _ = client.ask("GET", f"/v1/sessions/{session}/tools")
        assert (status, found["tools"][0]) == (200, ADD)
        with socket_of(server, "/v1/ws") as socket:
            socket.websocket.send(json.dumps({"id": 1, "do": "tools", "session": session}))
            assert socket.receive()["answer"] == found
        assert "/v1/sessions/{session}/tools" in client.ask("GET", "/v1/openapi.json")[1]["paths"]
        client.ask("DELETE", f"/v1/sessions/{session}")


def test_a_session_of_its_own_keeps_its_state(rpc, server):
    session = rpc.ask("openenv/session/create")["session_id"]
    tools = rpc.ask("tools/list", session_id=session)["tools"]
    assert tools[0] == {"name": "add", "description": ADD["description"], "inputSchema": ADD["input_schema"]}
    assert [tool["name"] for tool in tools] == ["add", "tell", "fail"]  # without the protocol's own operation
    assert rpc.ask("tools/call", name="add", arguments={"number": 2}, session_id=session)["data"] == 2
    found = rpc.ask("tools/call", name="add", arguments={"number": 3, "times": 2}, session_id=session)
    assert found == {"content": [{"type": "text", "text": "8"}], "data": 8, "isError": False}
    found = rpc.ask("tools/call", name="tell", session_id=session)
    assert found["structuredContent"] == found["data"] == {"total": 8, "words": ["a", "b"]}
    assert json.loads(found["content"][0]["text"]) == found["data"]
    assert "a key" in rpc.ask("tools/call", name="fail", session_id=session)["message"]
    assert rpc.ask("openenv/session/close", session_id=session) == {"session_id": session, "closed": True}
    assert rpc.ask("tools/list", session_id=session)["code"] == -32602


def test_without_a_session_a_connection_has_one(rpc):
    assert rpc.ask("tools/call", name="add", arguments={"number": 2})["data"] == 2
    assert rpc.ask("tools/call", name="add", arguments={"number": 2})["data"] == 4


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({"name": "reset"}, -32602, "Tool not found: 'reset'; there are add, tell, fail"),
        ({"name": "total"}, -32602, "Tool not found"),
        ({"name": ["add"]}, -32602, "Tool not found"),
        ({}, -32602, "Tool not found"),
        ({"name": "add", "arguments": [1]}, -32602, "send an object"),
        ({"name": "add", "arguments": {"sum": 1}}, -32603, "TypeError"),
        ({"name": "add", "session_id": "x"}, -32602, "Unknown session_id"),
    ],
)
def test_calls_that_cannot_be_are_refused(rpc, params, code, text):
    error = rpc.ask("tools/call", **params)
    assert error["code"] == code
    assert text in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b'{"jsonrpc": "1.0", "method": "ping", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": 5, "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": "ping", "params": [1], "id": 1}', -32602),
        (b'{"jsonrpc": "2.0", "method": "nothing", "id": 1}', -32601),
    ],
)
def test_requests_that_are_none_are_refused(rpc, body, code):
    status, found, _ = rpc.client.ask("POST", "/openenv/mcp", body, {"Content-Type": "application/json"})
    assert (status, found["error"]["code"]) == (200, code)


def test_a_client_of_mcp_introduces_itself(rpc):
    assert rpc.ask("initialize", protocolVersion="x")["capabilities"] == {"tools": {}}
    status, found, _ = rpc.raw({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (status, found) == (202, None)
    assert rpc.ask("ping") == {}


def test_a_websocket_joins_the_session_that_a_client_has_created(rpc, server):
    session = rpc.ask("openenv/session/create")["session_id"]
    rpc.ask("tools/call", name="add", arguments={"number": 5}, session_id=session)
    with socket_of(server, f"/openenv/ws?session_id={session}") as socket:

        def ask(kind, data):
            return socket.ask(kind, data)["data"]

        listed = ask("step", {"type": "list_tools"})
        assert listed["observation"]["tools"][0] == ADD
        assert ask("reset", {"seed": 1})["done"] is False
        found = ask("step", {"type": "call_tool", "tool_name": "add", "arguments": {"number": 1}})
        assert (found["observation"]["result"]["data"], found["reward"], found["done"]) == (6, None, False)
        found = ask("step", {"type": "call_tool", "tool_name": "none"})
        assert found["observation"]["error"]["error_type"] == "tool_not_found"
        found = ask("step", {"type": "call_tool", "tool_name": "fail"})
        assert found["observation"]["error"]["error_type"] == "execution_error"
        assert ask("state", {})["step_count"] == 0  # no tool is a step
        assert ask("step", {"action": 1})["reward"] == 1.0
        call = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "tools/call",
            "params": {"name": "add", "arguments": {"number": 1}},
        }
        assert ask("mcp", call)["result"]["data"] == 7
    assert rpc.ask("tools/call", name="add", arguments={"number": 1}, session_id=session)["data"] == 8
    assert rpc.ask("openenv/session/close", session_id=session)["closed"]
    with socket_of(server, "/openenv/ws?session_id=another") as socket:
        assert socket.receive()["data"]["code"] == "SESSION_ERROR"


def test_a_websocket_of_json_rpc_alone(server):
    with socket_of(server, "/openenv/mcp") as socket:
        for number, expected in ((1, 3), (2, 6)):
            params = {"name": "add", "arguments": {"number": 3}}
            socket.websocket.send(
                json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
            )
            answer = socket.receive()
            assert (answer["id"], answer["result"]["data"]) == (number, expected)
        socket.websocket.send("{")
        assert socket.receive()["error"]["code"] == -32700
