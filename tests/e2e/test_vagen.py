"""VAGEN's protocol, by the bytes that its client sends: retries, failover and images among them."""

from __future__ import annotations

import io
import json
import secrets
import sys
import threading

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra http is not installed")
if sys.platform != "linux":
    pytest.skip("elsewhere HTTP has a port of its own only", allow_module_level=True)

from http_client import asking, context_of
from remote_gym import ConfigError, NotPermitted
from remote_gym.server.frontends.http.protocols.vagen import configuration_in
from remote_gym.testing import loopback_server
from tenants import tenant
from vagen_client import Vagen
from waiting import wait_until

ENTRYPOINT = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces

EXPOSED = ("system_prompt",)


class Agents(gym.Env):
    """Takes texts, and shows a text with an image."""

    observation_space = spaces.Dict({"obs_str": spaces.Text(200), "view": spaces.Box(0, 255, (8, 6, 3), np.uint8)})
    action_space = spaces.Text(200)

    def __init__(self, color=7):
        self.color, self.count = color, 0

    def _see(self, text):
        return {"obs_str": text, "view": np.full((8, 6, 3), self.color, np.uint8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._see(f"seed {seed} <image>"), {"n": 1}

    def step(self, action):
        import time
        self.count += 1
        if action == "slow":
            time.sleep(0.5)
        if action == "raise":
            raise KeyError("a key")
        return self._see(f"{self.count} {action}"), 0.5, self.count >= 3, False, {"nan": float("nan")}

    def system_prompt(self):
        return "You are an agent."


def create_environment(**kwargs):
    return Agents(**kwargs)
'''


@pytest.fixture
def agents(tmp_path):
    (tmp_path / "agents.py").write_text(ENTRYPOINT)
    return {"entrypoint": str(tmp_path / "agents.py")}


@pytest.fixture
def server(agents):
    with loopback_server(agents, secure=False, use_thread=True, http=True) as server:
        yield server


def test_an_agents_loop(server):
    image_module = pytest.importorskip("PIL.Image", reason="the extra jpeg is not installed")
    client = Vagen(server)
    found = client.connect(seed=3, color=200)
    assert found["obs"] == "seed 3 <image>"
    assert found["info"] == {"n": 1}
    picture = image_module.open(io.BytesIO(client.images[0]))
    assert (picture.mode, picture.size) == ("RGB", (6, 8))
    assert np.all(np.asarray(picture) == 200)
    assert client.call("system_prompt")["obs"] == "You are an agent."
    assert client.call("reset", seed=4)["obs"].startswith("seed 4")
    for count in (1, 2, 3):
        found = client.call("step", action_str=f"go {count}")
        assert found["obs"] == f"{count} go {count}<image>"  # which marks its image
        assert (found["reward"], found["done"]) == (0.5, count == 3)
        assert np.isnan(found["info"]["nan"])
    assert client.call("close") == {"closed": True}
    wait_until(lambda: not server.server.session_count)


def test_numbers_are_those_that_the_environment_has_here():
    local = gym.make("CartPole-v1")
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server:
        client = Vagen(server)
        assert json.loads(client.connect(seed=3)["obs"]) == local.reset(seed=3)[0].tolist()
        for action in (0, 1, 1):
            expected, reward, *_ = local.step(action)
            found = client.call("step", action_str=str(action))
            assert (json.loads(found["obs"]), found["reward"]) == (expected.tolist(), reward)
        assert "no JSON" in client.call("step", action_str="left", status=400)
        client.call("close")


def test_what_is_repeated_is_done_once(server):
    client = Vagen(server)
    boundary = f"gym_env_{secrets.token_hex(16)}"
    first = client.connect(seed=1, boundary=boundary)
    assert client.connect(seed=1, boundary=boundary) == first
    assert server.server.session_count == 1
    for count in (1, 2):
        boundary = f"gym_env_{secrets.token_hex(16)}"
        for _ in range(3):
            assert client.call("step", boundary, action_str="go")["obs"].startswith(f"{count} ")
    boundary = f"gym_env_{secrets.token_hex(16)}"
    for _ in range(2):
        assert client.call("close", boundary) == {"closed": True}


def test_what_is_repeated_while_it_is_under_way_is_done_once(server):
    client = Vagen(server)
    client.connect(seed=1)
    boundary, found = f"gym_env_{secrets.token_hex(16)}", []

    def repeat():
        found.append(client.ask("/call", call, boundary)["obs"])

    call = {"session_id": client.session, "method": "step", "params": {"action_str": "slow"}}
    threads = [threading.Thread(target=repeat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["1 slow<image>"] * 3
    assert client.call("step", action_str="go")["obs"].startswith("2 ")


def test_an_error_is_repeated_and_not_what_caused_it(server):
    client = Vagen(server)
    client.connect(seed=1)
    boundary = f"gym_env_{secrets.token_hex(16)}"
    for _ in range(3):
        assert "KeyError" in client.call("step", boundary, status=500, action_str="raise")
    assert client.call("step", action_str="go")["obs"].startswith("2 ")


def test_connecting_without_a_seed_leaves_the_reset_to_the_client(server):
    client = Vagen(server)
    assert client.connect().keys() == {"session_id"}
    assert client.call("step", status=409, action_str="x")
    assert client.call("reset", seed=2)["obs"].startswith("seed 2")


def test_a_reset_at_another_server_opens_anew_and_nothing_else_does(server, agents):
    client = Vagen(server)
    client.connect(seed=1, color=9)
    assert configuration_in(client.session) == {"color": 9}
    with loopback_server(agents, secure=False, use_thread=True, http=True) as other:
        there = Vagen(other)
        for method in ("step", "system_prompt", "close"):
            assert "reset opens a new one" in there.call(method, session=client.session, status=404)
        assert there.call("reset", session=client.session, seed=5)["obs"].startswith("seed 5")
        if there.images:
            image_module = pytest.importorskip("PIL.Image")
            assert np.all(np.asarray(image_module.open(io.BytesIO(there.images[0]))) == 9)
        assert there.call("step", session=client.session, action_str="go")["obs"].startswith("1 ")


def test_an_id_that_is_none_opens_nothing(server):
    client = Vagen(server)
    for session in ("x", "x.", "x.!!!", "x.W10=", "x.bnVsbA==", "a" * 5000):
        client.call("reset", session=session, status=404)
    assert server.server.session_count == 0


def test_sessions_are_listed_and_another_identity_has_none_of_them(agents):
    with loopback_server(agents, use_thread=True, http=True) as server:
        alice = Vagen(server, context_of(tenant(server, "alice")))
        bob = Vagen(server, context_of(tenant(server, "bob")))
        alice.connect(seed=1)
        bob.call("step", session=alice.session, action_str="x", status=404)
        bob.call("reset", session=alice.session, status=404)
        with asking(server) as client:
            status, body, _ = client.ask("GET", "/vagen/sessions")
            assert (status, body["num_sessions"], body["session_timeout"]) == (200, 0, 60.0)
        assert alice.call("step", action_str="x")["reward"] == 0.5


def test_health_and_a_full_server(agents):
    with loopback_server(agents, secure=False, use_thread=True, http=True, max_sessions=1) as server:
        with asking(server) as client:
            body = client.ask("GET", "/vagen/health")[1]
        assert body == {"ok": True, "service": "gym-env-service", "max_inflight": "unlimited"}
        first, second = Vagen(server), Vagen(server)
        first.connect(seed=1)
        boundary = f"gym_env_{secrets.token_hex(16)}"
        data = {"env_config": {}, "seed": 1}
        assert "max_sessions" in second.ask("/connect", data, boundary, status=503)
        first.call("close")
        wait_until(lambda: second.send("/connect", data, boundary)[0] == 200)  # the same bytes are tried again


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--B\r\n\r\n{}\r\n",
        b'--B\r\nContent-Disposition: form-data; name="other"\r\n\r\n{}\r\n--B--\r\n',
        b'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n[1]\r\n--B--\r\n',
        b'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n{\r\n--B--\r\n',
        b'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n{}\r\n--B--\r\n',
        b"--B\r\n" * 1000 + b"--B--\r\n",
        b"x" * 1000,
    ],
)
def test_bodies_that_are_none_are_refused(server, body):
    status, _, answer = Vagen(server).send("/call", None, "B", body)
    assert status == 400
    assert json.loads(answer)["detail"]


# ------------------------------------------------------------------------------------------------ the key and limits


class Keyed(Vagen):
    """Shows a key."""

    def __init__(self, server, key, prefix="/vagen", header="X-API-Key"):
        super().__init__(server, prefix=prefix)
        self.headers = {header: key} if key else {}


def test_a_key_is_asked_for_and_no_worker_has_it(agents, monkeypatch, tmp_path):
    monkeypatch.setenv("GYM_API_KEY", "a secret")
    source = ENTRYPOINT.replace('("system_prompt",)', '("variable",)') + (
        "\n\nimport os\nAgents.variable = lambda self: os.environ.get('GYM_API_KEY', 'none')\n"
    )
    (tmp_path / "agents.py").write_text(source)
    with loopback_server(agents, secure=False, http=True, allow=("key:vagen",)) as server:
        for key in ("", "another", "a secret of another"):
            detail = Keyed(server, key).ask("/connect", {"env_config": {}}, status=401)
            assert "GYM_API_KEY" in detail
            assert "a secret" not in detail
        client = Keyed(server, "a secret")
        client.connect(seed=1)
        assert {status.identity for status in server.server.sessions()} == {"key:vagen"}
        assert client.call("variable") == {"result": "none"}
        Keyed(server, "").call("step", session=client.session, status=401, action_str="go")
        with asking(server) as other:
            assert other.ask("GET", "/vagen/sessions")[0] == 401
            assert other.ask("GET", "/vagen/health")[0] == 200
        client.call("close")
        with pytest.raises(NotPermitted):  # whose rule is for the key's holders alone
            server.environment().reset()


@pytest.mark.parametrize("path", ["/vagen/sessions", "/sessions", "/anything/sessions", "//vagen/sessions"])
def test_the_key_guards_the_root_too_if_that_is_vagens(agents, monkeypatch, path):
    monkeypatch.setenv("GYM_API_KEY", "a secret")
    with loopback_server(agents, secure=False, use_thread=True, http=True, http_root="vagen") as server:
        with asking(server) as client:
            assert client.ask("GET", path)[0] == 401
            assert client.ask("POST", "/openenv/reset", {"seed": 1})[0] == 200
            assert client.ask("GET", "/v1/sessions")[0] == 404  # which is no environment v1 of VAGEN's
            assert client.ask("GET", "/v1/health")[0] == 200
        with asking(server, **{"Authorization": "Bearer a secret"}) as client:
            assert client.ask("GET", path)[0] in (200, 404)


def test_a_certificate_counts_where_there_is_a_key(agents, monkeypatch):
    monkeypatch.setenv("GYM_API_KEY", "a secret")
    with loopback_server(agents, use_thread=True, http=True) as server:
        client = Vagen(server, context_of(tenant(server, "alice")))
        client.connect(seed=1)
        assert {status.identity for status in server.server.sessions()} == {"DNS:alice"}


def test_without_http_the_variable_means_nothing(agents, monkeypatch):
    monkeypatch.setenv("GYM_API_KEY", "a secret")
    with loopback_server(agents, secure=False, use_thread=True) as server:
        assert server.environment().reset(seed=1)


def test_so_many_calls_are_under_way_and_the_next_waits_so_long(agents, monkeypatch):
    monkeypatch.setenv("GYM_MAX_INFLIGHT", "1")
    monkeypatch.setenv("GYM_ADMIT_TIMEOUT", "0.1")
    with loopback_server(agents, secure=False, use_thread=True, http=True) as server:
        with asking(server) as client:
            assert client.ask("GET", "/vagen/health")[1]["max_inflight"] == 1
        slow, other = Vagen(server), Vagen(server)
        slow.connect(seed=1)
        other.connect(seed=1)
        thread = threading.Thread(target=slow.call, args=("step",), kwargs={"action_str": "slow"})
        thread.start()
        wait_until(lambda: "GYM_MAX_INFLIGHT" in json.loads(step(other)[2]).get("detail", ""))
        thread.join()
        wait_until(lambda: step(other)[0] == 200)


def step(client):
    data = {"session_id": client.session, "method": "step", "params": {"action_str": "go"}}
    status, kind, body = client.send("/call", data)
    return status, kind, b"{}" if status == 200 else body


@pytest.mark.parametrize(("name", "text"), [("GYM_MAX_INFLIGHT", "many"), ("GYM_ADMIT_TIMEOUT", "-1")])
def test_a_limit_that_is_no_number_is_refused(agents, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=f"{name} is '{text}'"):
        with loopback_server(agents, secure=False, use_thread=True, http=True):
            pass
