"""AgentGPT's protocol over HTTP, by the requests that its clients make."""

from __future__ import annotations

import contextlib
import http.client
import sys

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra http is not installed")
if sys.platform != "linux":
    pytest.skip("elsewhere HTTP has a port of its own only", allow_module_level=True)

from environments import ACTION
from http_client import Asking, asking, context_of
from remote_gym.testing import loopback_server
from tenants import tenant
from waiting import scaled

msgpack = pytest.importorskip("msgpack", reason="the extra http is not installed")


@pytest.fixture
def server(servers, obedient):
    with servers.lend(obedient, secure=False, use_thread=True, http=True) as lent:
        yield lent


@pytest.fixture
def cartpole(servers):
    with servers.lend("CartPole-v1", secure=False, use_thread=True, http=True) as lent:
        yield lent


class Caller:
    """Asks in one connection, and closes what it made."""

    def __init__(self, client: Asking) -> None:
        self.client = client
        self.made: list[str] = []

    def post(self, name, status=200, **data):
        found, body, _ = self.client.ask("POST", f"/agentgpt/{name}", data)
        assert found == status, body
        if name.startswith("make") and found == 200:
            self.made.append(body["env_key"])
        return body

    def get(self, name, status=200, **query):
        found, body, _ = self.client.ask("GET", f"/agentgpt/{name}?" + "&".join(f"{k}={v}" for k, v in query.items()))
        assert found == status, body
        return body

    def close(self):
        for key in self.made:
            self.client.ask("POST", "/agentgpt/close", {"env_key": key})


@contextlib.contextmanager
def caller(server):
    with asking(server) as client, contextlib.closing(Caller(client)) as calling:
        yield calling


@pytest.mark.parametrize("keyed", [True, False])
def test_an_episode_has_the_numbers_that_it_has_here(cartpole, keyed):
    local = gym.make("CartPole-v1")
    with caller(cartpole) as ask:
        key = {"env_key": ask.post("make", env_id="CartPole-v1", env_key="mine")["env_key"]} if keyed else {}
        if not keyed:
            assert ask.post("make", env_name="CartPole-v1")["message"]
        expected, info = local.reset(seed=3)
        assert ask.post("reset", seed=3, **key) == {"observation": expected.tolist(), "info": info}
        for action in (0, 1, 1, 0):
            observation, *rest, info = local.step(action)
            names = ("observation", "reward", "terminated", "truncated", "info")
            found = ask.post("step", action=action, **key)
            assert found == dict(zip(names, (observation.tolist(), *rest, info), strict=True))


def test_spaces_are_told_as_their_clients_read_them(cartpole):
    with caller(cartpole) as ask:
        ask.post("make")
        assert ask.get("action_space") == {"type": "Discrete", "n": 2, "start": 0}
        space = ask.get("observation_space")
        assert (space["type"], space["shape"], space["dtype"]) == ("Box", [4], "float32")
        local = gym.make("CartPole-v1").observation_space
        assert [float(bound) for bound in space["low"]] == local.low.tolist()
        assert [float(bound) for bound in space["high"]] == local.high.tolist()


def test_a_caller_has_several_environments(server):
    with caller(server) as ask:
        for key in ("a", "b"):
            ask.post("make", env_key=key)
            ask.post("reset", env_key=key)
        assert ask.post("step", env_key="a", action=0)["observation"]["count"] == 1
        assert ask.post("step", env_key="b", action=0)["observation"]["count"] == 1
        assert ask.post("step", env_key="a", action=0)["observation"]["count"] == 2
        assert "2 environments" in ask.post("step", 400, action=0)["error"]
        ask.post("close", env_key="a")
        assert ask.post("step", action=0)["observation"]["count"] == 2
        assert server.server.session_count == 1


def test_closing_a_key_that_there_is_not_closes_nothing(server):
    with caller(server) as ask:
        ask.post("make", env_key="a")
        assert "none of that key" in ask.post("close", 400, env_key="other")["error"]
        assert server.server.session_count == 1


def test_another_caller_has_none_of_them(server):
    with caller(server) as ask, caller(server) as other:
        ask.post("make", env_key="a")
        other.post("reset", 400, env_key="a")
        other.post("close", 400, env_key="a")
        other.post("make", env_key="a")
        assert server.server.session_count == 2


def test_a_cookie_finds_them_by_another_connection(server):
    with asking(server) as client:
        cookie = client.ask("POST", "/agentgpt/make", {"env_key": "a"})[2].headers["set-cookie"].partition(";")[0]
    with asking(server, Cookie=cookie) as client:
        assert client.ask("POST", "/agentgpt/reset", {})[0] == 200
        assert client.ask("POST", "/agentgpt/close", {})[0] == 200


def test_an_identity_finds_them_without(obedient):
    with loopback_server(obedient, use_thread=True, http=True) as server:
        with asking(server) as client:
            client.ask("POST", "/agentgpt/make", {"env_key": "a"})
        with asking(server) as client:
            assert client.ask("POST", "/agentgpt/reset", {"env_key": "a"})[0] == 200
        with contextlib.closing(Asking(server.server.port, context_of(tenant(server, "mallory")))) as client:
            assert client.ask("POST", "/agentgpt/reset", {"env_key": "a"})[0] == 400


def test_nothing_is_imported_on_a_clients_word(server):
    with caller(server) as ask:
        for name in ("env_entry_point", "entry_point", "env_dir"):
            assert "server's to say" in ask.post("make", 403, env_id="x", **{name: "os:system"})["error"]
        assert server.server.session_count == 0


def test_environments_are_chosen_by_name_or_by_id():
    with loopback_server(
        {}, secure=False, use_thread=True, http=True, ids=("CartPole-v1",), environments={"swing": "Acrobot-v1"}
    ) as server:
        with caller(server) as ask:
            ask.post("make", env_id="swing", env_key="a")
            ask.post("make", env_id="CartPole-v1", env_key="b")
            assert ask.get("action_space", env_key="a")["n"] == 3
            assert ask.get("action_space", env_key="b")["n"] == 2
            assert "error" in ask.post("make", 403, env_id="Pendulum-v1")


def test_a_seed_of_the_making_is_that_of_the_first_reset(cartpole):
    with caller(cartpole) as ask:
        ask.post("make", seed=5)
        first, second = ask.post("reset"), ask.post("reset")
        assert first["observation"] == gym.make("CartPole-v1").reset(seed=5)[0].tolist()
        assert second["observation"] != first["observation"]


def test_vectors_step_together(cartpole):
    with caller(cartpole) as ask:
        ask.post("make_vec", env_id="CartPole-v1", num_envs=3)
        assert ask.get("action_space") == {"type": "MultiDiscrete", "nvec": [2, 2, 2], "start": [0, 0, 0]}
        found = np.array(ask.post("reset", seed=1)["observation"])
        for index in range(3):
            assert found[index].tolist() == gym.make("CartPole-v1").reset(seed=1 + index)[0].tolist()
        step = ask.post("step", action=[0, 1, 0])
        assert np.shape(step["observation"]) == (3, 4)
        assert step["reward"] == [1.0, 1.0, 1.0]
        assert step["terminated"] == [False] * 3
        ask.post("make_vec", 400, num_envs=0)


def test_errors_are_told(server):
    with caller(server) as ask:
        ask.post("reset", 400)
        ask.post("make")
        assert "reset" in ask.post("step", 400, action=0)["error"]
        ask.post("reset")
        assert "action" in ask.post("step", 400)["error"]
        assert "expected" in ask.post("step", 400, action="x")["error"]
        assert "KeyError" in ask.post("step", 400, action=ACTION["raise"])["error"]
        assert ask.post("step", action=0)["observation"]["count"] == 2
        ask.post("reset", 400, seed="x")
        ask.post("reset", 400, options=[1])


def test_msgpack_carries_the_same(cartpole):
    connection = http.client.HTTPConnection("localhost", cartpole.server.port, timeout=scaled(20.0))

    def post(name, data, kind="application/x-msgpack"):
        body = data if isinstance(data, bytes) else msgpack.packb(data)
        connection.request("POST", f"/agentgpt/{name}", body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()

    with contextlib.closing(connection):
        status, body = post("make", {"env_key": "a", "env_id": "CartPole-v1", "env_dir": None, "render_mode": None})
        assert (status, msgpack.unpackb(body)["env_key"]) == (200, "a")
        status, body = post("reset", {"env_key": "a", "seed": 2})
        assert msgpack.unpackb(body)["observation"] == gym.make("CartPole-v1").reset(seed=2)[0].tolist()
        status, body = post("step", {"env_key": "a", "action": 1})
        assert msgpack.unpackb(body)["reward"] == 1.0
        for bad in (b"\xc1", msgpack.packb([1]), msgpack.packb({1: 2}), b"\x81", b"\x91" * 5000):
            status, body = post("step", bad)
            assert status == 400
            assert b"detail" in body
        assert post("close", {"env_key": "a"})[0] == 200
