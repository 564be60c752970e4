"""OpenEnv's own client for tools, and one of MCP itself, unmodified, against a server of ours."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

import tools_entrypoint
from remote_gym.testing import loopback_server
from waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.development, pytest.mark.timeout(600)]

CALLS = [{"number": 2}, {"number": 3, "times": 2}]


@pytest.fixture(scope="module")
def client(peer):
    """The client of openenv 0.10, which brings one of MCP."""
    return peer("openenv-client", ("openenv==0.10.0",), "openenv_tools_client.py")


@pytest.fixture
def server():
    arguments = {"entrypoint": str(Path(tools_entrypoint.__file__))}
    with loopback_server(arguments, secure=False, use_thread=True, http=True) as server:
        yield server


def url_of(server):
    return f"http://localhost:{server.server.port}/openenv"


def test_tools_are_listed_and_called(client, server):
    found = client("call", url_of(server), CALLS)
    assert found["tools"][0] == tools_entrypoint.ADD
    assert (found["totals"], found["told"]) == ([2, 8], {"total": 8, "words": ["a", "b"]})
    assert [error.partition(": ")[2][:20] for error in found["errors"]] == [
        "the environment rais",
        "Tool not found: 'res",
        "the environment rais",
    ]
    assert found["first"] == gym.make("CartPole-v1").reset(seed=3)[0].tolist()
    assert (found["stepped"], found["listed"], found["state"]) == ([9, None, False], ["add", "tell", "fail"], 0)
    assert found["has"] == [True, False]
    wait_until(lambda: not server.server.session_count)  # the client has closed it


def test_the_synchronous_client_calls(client, server):
    assert client("call_synchronously", url_of(server), CALLS) == [2, 8]


def test_a_client_of_mcp_alone_calls(client, server):
    assert client("call_by_mcp", url_of(server), CALLS) == [["add", "tell", "fail"], ["2", "8"]]
