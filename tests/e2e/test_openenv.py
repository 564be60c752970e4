"""OpenEnv's protocol, by the frames that its clients send and read."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra http is not installed")
if sys.platform != "linux":
    pytest.skip("elsewhere HTTP has a port of its own only", allow_module_level=True)

from websockets.exceptions import ConnectionClosed

from environments import ACTION
from http_client import Asking, asking, context_of, socket_of
from remote_gym.server.frontends.http import server as server_module
from remote_gym.server.frontends.http.protocols import openenv_socket
from remote_gym.testing import loopback_server
from tenants import tenant
from waiting import scaled, wait_until

ENTRYPOINT = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Drawn(gym.Env):
    """Observes an image and a text, and takes a text, or a dict."""

    def __init__(self, kind="text"):
        screen = spaces.Box(0, 255, (84, 84, 3), np.uint8)
        self.observation_space = spaces.Dict({"screen": screen, "said": spaces.Text(100)})
        move = spaces.Dict({"dx": spaces.Box(-1, 1, (2,), np.float32), "fire": spaces.Discrete(2)})
        self.action_space = spaces.Text(100) if kind == "text" else move

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"screen": self.np_random.integers(0, 256, (84, 84, 3), np.uint8), "said": str(options)}, {}

    def step(self, action):
        screen = self.np_random.integers(0, 256, (84, 84, 3), np.uint8)
        return {"screen": screen, "said": str(action)[:100]}, 0.5, False, False, {"nan": float("nan")}


def create_environment(**kwargs):
    return Drawn(**kwargs)
'''


@pytest.fixture
def server(servers, obedient):
    with servers.lend(obedient, secure=False, use_thread=True, http=True) as lent:
        yield lent


@pytest.fixture
def secure(obedient):
    with loopback_server(obedient, use_thread=True, http=True) as server:
        yield server


@pytest.fixture
def drawn(tmp_path):
    (tmp_path / "drawn.py").write_text(ENTRYPOINT)
    return {"entrypoint": str(tmp_path / "drawn.py")}


def test_an_episode_of_cartpole_has_the_numbers_that_it_has_here():
    local = gym.make("CartPole-v1")
    rng = np.random.default_rng(1)
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server, socket_of(server) as ws:
        for seed in (3, None, 4):
            expected, _ = local.reset(seed=seed)
            found = ws.ask("reset", {} if seed is None else {"seed": seed})
            if seed is not None:
                assert found == {
                    "type": "observation",
                    "data": {"observation": {"observation": expected.tolist()}, "reward": None, "done": False},
                }
            done = False
            while not done:
                action = int(rng.integers(2))
                observation, reward, terminated, truncated, _ = local.step(action)
                done = terminated or truncated
                data = ws.ask("step", {"action": action})["data"]
                assert data["observation"]["observation"] == observation.tolist()
                assert (data["reward"], data["done"]) == (reward, done)
                assert data["metadata"] == {"terminated": terminated, "truncated": truncated}


def test_the_state_tells_episode_and_steps(server):
    with socket_of(server) as ws:
        assert ws.ask("state") == {"type": "state", "data": {"episode_id": None, "step_count": 0}}
        ws.ask("reset", {"episode_id": "mine"})
        ws.ask("step", {"action": ACTION["step"]})
        assert ws.ask("state")["data"] == {"episode_id": "mine", "step_count": 1}
        ws.ask("reset")
        state = ws.ask("state")["data"]
        assert state["step_count"] == 0
        assert state["episode_id"] not in (None, "mine")


def test_dicts_are_members_and_options_reach_the_environment(server):
    with socket_of(server) as ws:
        data = ws.ask("reset", {"seed": 1, "do": "step", "options": {"more": 1}})["data"]
        assert data["observation"].keys() == {"position", "count"}
        assert data["metadata"]["options"] == {"do": "step", "more": 1}


@pytest.mark.parametrize("name", ["action", "text", "message"])
def test_a_text_has_any_of_its_names(drawn, name):
    with loopback_server(drawn, secure=False, use_thread=True, http=True) as server, socket_of(server) as ws:
        ws.ask("reset")
        data = ws.ask("step", {name: "hello", "metadata": {}})["data"]
        assert data["observation"]["said"] == "hello"
        assert np.isnan(data["metadata"]["nan"])


def test_a_dict_action_is_the_data_itself(drawn):
    with loopback_server(drawn, secure=False, use_thread=True, http=True) as server, socket_of(server) as ws:
        ws.ask("reset", {"remote_args": {"entrypoint_kwargs": {"kind": "dict"}}})
        data = ws.ask("step", {"dx": [0.5, 1], "fire": 1, "metadata": {"by": "me"}})["data"]
        assert "0.5" in data["observation"]["said"]
        wrong = ws.ask("step", {"dx": [0.5, 1]})
        assert wrong["data"]["code"] == "VALIDATION_ERROR"
        assert "fire" in wrong["data"]["message"]


@pytest.mark.parametrize("images", ["list", "png", "both"])
def test_images_are_lists_or_pngs(drawn, images):
    image_module = pytest.importorskip("PIL.Image", reason="the extra jpeg is not installed")
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(5))).integers(0, 256, (84, 84, 3), np.uint8)
    with loopback_server(drawn, secure=False, use_thread=True, http=True, http_images=images) as server:
        with socket_of(server) as ws:
            observation = ws.ask("reset", {"seed": 5})["data"]["observation"]
    if images != "png":
        np.testing.assert_array_equal(observation["screen"], expected)
    if images != "list":
        png = observation["screen_png" if images == "both" else "screen"]
        np.testing.assert_array_equal(np.asarray(image_module.open(io.BytesIO(base64.b64decode(png)))), expected)


def test_environments_have_paths(obedient):
    with loopback_server(
        obedient, secure=False, use_thread=True, http=True, environments={"pole": "CartPole-v1"}
    ) as server:
        with socket_of(server, "/openenv/pole/ws") as ws:
            assert len(ws.ask("reset")["data"]["observation"]["observation"]) == 4
        with socket_of(server, "/openenv/nothing/ws") as ws:
            assert "pole" in ws.ask("reset")["data"]["message"]
        with asking(server) as client:
            schema = client.ask("GET", "/openenv/pole/schema")[1]
            assert schema["action"]["properties"]["action"]["maximum"] == 1
            assert client.ask("GET", "/openenv/pole/metadata")[1]["name"] == "CartPole-v1"


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{", "INVALID_JSON"),
        ("[]", "INVALID_JSON"),
        (b"\xff", "INVALID_JSON"),
        ("[" * 100_000, "INVALID_JSON"),
        ('{"type": "tasks", "data": {}}', "UNKNOWN_TYPE"),
        ("{}", "UNKNOWN_TYPE"),
        ('{"type": ["step"]}', "UNKNOWN_TYPE"),
        ('{"type": "step", "data": [1]}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"action": 1}}', "VALIDATION_ERROR"),  # before the first reset
        ('{"type": "reset", "data": {"seed": "x"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": true}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"remote_args": 3}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"remote_args": {"entrypoint": "x.py"}}}', "SESSION_ERROR"),
        ('{"type": "reset", "data": {"remote_args": {"python": "x"}}}', "VALIDATION_ERROR"),
    ],
)
def test_what_is_wrong_is_answered_by_its_code_and_costs_nothing(server, sent, code):
    with socket_of(server) as ws:
        ws.websocket.send(sent)
        answer = ws.receive()
        assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert answer["data"]["message"]
        assert ws.ask("reset")["type"] == "observation"
        ws.send("close")


@pytest.mark.parametrize("action", [None, "a", 1.5, [1], {}])
def test_actions_that_do_not_fit_are_refused_and_no_step(server, action):
    with socket_of(server) as ws:
        ws.ask("reset")
        answer = ws.ask("step", {"action": action})
        assert answer["data"]["code"] == "VALIDATION_ERROR"
        assert ws.ask("state")["data"]["step_count"] == 0
        ws.send("close")


def test_what_the_environment_raises_is_an_answer_and_the_episode_goes_on(server):
    with socket_of(server) as ws:
        ws.ask("reset")
        answer = ws.ask("step", {"action": ACTION["raise"]})
        assert answer["data"]["code"] == "EXECUTION_ERROR"
        assert "KeyError" in answer["data"]["message"]
        assert ws.ask("step", {"action": ACTION["step"]})["data"]["observation"]["count"] == 2
        ws.send("close")


def test_a_crash_is_told_and_the_next_reset_opens_anew(obedient):
    with loopback_server(obedient, secure=False, http=True) as server, socket_of(server) as ws:
        ws.ask("reset")
        answer = ws.ask("step", {"action": ACTION["exit"]})
        assert answer["data"]["code"] == "SESSION_ERROR"
        assert ws.ask("step", {"action": 0})["data"]["code"] == "SESSION_ERROR"
        assert ws.ask("reset")["type"] == "observation"


def test_a_full_server_says_so(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, http=True, max_sessions=1) as server:
        with socket_of(server) as first, socket_of(server) as second:
            first.ask("reset")
            assert second.ask("reset")["data"]["code"] == "CAPACITY_REACHED"
            first.send("close")
            wait_until(lambda: not server.server.session_count)
            wait_until(lambda: second.ask("reset")["type"] == "observation")


# ------------------------------------------------------------------------------------------- sessions and sockets


def test_each_socket_has_a_session_and_a_slow_one_keeps_nobody_waiting(server):
    with socket_of(server) as slow, socket_of(server) as quick:
        slow.ask("reset")
        quick.ask("reset")
        slow.send("step", {"action": ACTION["slow"]})
        begun = time.monotonic()
        for count in range(1, 11):
            assert quick.ask("step", {"action": 0})["data"]["observation"]["count"] == count
        assert time.monotonic() - begun < scaled(0.9)
        assert slow.receive()["data"]["observation"]["count"] == 1
        slow.send("close")
        quick.send("close")


def test_close_ends_session_and_socket(server):
    with socket_of(server) as ws:
        ws.ask("reset")
        assert server.server.session_count == 1
        ws.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            ws.receive()
        assert closed.value.rcvd.code == 1000
        assert server.server.session_count == 0


def test_an_answer_that_is_late_is_not_the_next_ones(server):
    with socket_of(server) as ws:
        ws.ask("reset")
        ws.send("step", {"action": ACTION["slow"]})  # which the client gives up waiting for
        time.sleep(0.2)
        answer = ws.ask("step", {"action": ACTION["step"]})
        assert answer["data"]["observation"]["count"] == 2
        assert answer["data"]["metadata"]["action"] == ACTION["step"]
        ws.send("close")


def test_a_session_outlives_its_socket_for_its_lease(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, http=True, lease=0.5) as server:
        with socket_of(server) as ws:
            ws.ask("reset")
            time.sleep(1.0)
            assert ws.ask("step", {"action": 0})["type"] == "observation"
        wait_until(lambda: not server.server.session_count)


def test_a_client_that_sends_our_cookie_goes_on_with_its_episode(server):
    with socket_of(server) as ws:
        cookie = ws.websocket.response.headers["set-cookie"].partition(";")[0]
        ws.ask("reset")
        ws.ask("step", {"action": 0})
    with socket_of(server, headers={"Cookie": cookie}) as ws:
        assert ws.ask("step", {"action": 0})["data"]["observation"]["count"] == 2
        assert server.server.session_count == 1
        with socket_of(server, headers={"Cookie": cookie}) as newer:  # though the older socket seems to be there
            assert newer.ask("step", {"action": 0})["data"]["observation"]["count"] == 3
            with pytest.raises(ConnectionClosed):
                ws.receive()
            assert newer.ask("step", {"action": 0})["data"]["observation"]["count"] == 4
            newer.send("close")


def test_without_the_cookie_it_is_another_session(server):
    with socket_of(server) as ws:
        ws.ask("reset", {"episode_id": "mine"})
        ws.ask("step", {"action": 0})
        with socket_of(server, headers={"Cookie": "remote_gym_session=guessed", "X-Episode-Id": "mine"}) as other:
            assert other.ask("step", {"action": 0})["type"] == "error"
            assert other.ask("reset", {"episode_id": "mine"})["data"]["observation"]["count"] == 0
            other.send("close")
        ws.send("close")


def test_a_cookie_is_no_key_of_another_kind(server):
    with asking(server) as client:
        client.ask("POST", "/openenv/reset", {})
        numbers = [connection.number for connection in server.server._ports._http._connections]
        assert numbers
        for number in numbers:
            for cookie in (f"connection {number}", f"cookie connection {number}"):
                headers = {"Cookie": f"remote_gym_session={cookie}"}
                with asking(server) as other:
                    assert other.ask("GET", "/openenv/state", headers=headers)[1]["episode_id"] is None
                with socket_of(server, headers=headers) as ws:
                    assert ws.ask("state")["data"]["episode_id"] is None


def test_a_cookie_that_is_not_ours_is_replaced(server):
    with asking(server, Cookie="remote_gym_session=mine") as client:
        cookie = client.ask("POST", "/openenv/reset", {})[2].headers["set-cookie"]
        assert len(cookie.partition(";")[0]) > len("remote_gym_session=") + 30
    with socket_of(server, headers={"Cookie": "remote_gym_session=mine"}) as ws:
        assert "remote_gym_session=" in ws.websocket.response.headers["set-cookie"]


def test_a_client_that_is_known_goes_on_by_its_episodes_id(secure):
    with socket_of(secure) as ws:
        ws.ask("reset", {"episode_id": "mine", "seed": 1})
        last = ws.ask("step", {"action": 0})
    with socket_of(secure) as ws:
        assert ws.ask("reset", {"episode_id": "mine", "seed": 1}) == last
        assert ws.ask("state")["data"] == {"episode_id": "mine", "step_count": 1}
        assert ws.ask("step", {"action": 0})["data"]["observation"]["count"] == 2
        assert ws.ask("reset", {"episode_id": "mine"})["data"]["observation"]["count"] == 0  # once it is connected
    with socket_of(secure, ssl=context_of(tenant(secure, "mallory"))) as ws:
        assert ws.ask("reset", {"episode_id": "mine"})["data"]["metadata"]["options"] is None
        assert ws.ask("state")["data"]["step_count"] == 0


def test_a_client_that_is_known_goes_on_by_a_header(secure):
    headers = {"X-Episode-Id": "run-7"}
    with socket_of(secure, headers=headers) as ws:
        ws.ask("reset")
        ws.send("step", {"action": ACTION["slow"]})  # whose answer it does not wait for
        time.sleep(0.1)
    with socket_of(secure, headers=headers) as ws:
        assert ws.ask("step", {"action": 0})["data"]["observation"]["count"] == 2
        ws.send("close")


def test_half_open_sockets_are_noticed_by_pings(obedient, monkeypatch):
    import socket

    monkeypatch.setattr(server_module, "PING_EVERY", 0.2)
    monkeypatch.setattr(server_module, "PONG_TIMEOUT", 0.2)
    with loopback_server(obedient, secure=False, use_thread=True, http=True, lease=0.2) as server:
        with socket.create_connection(("127.0.0.1", server.server.port), timeout=scaled(20.0)) as sock:
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            sock.sendall(
                b"GET /openenv/ws HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert sock.recv(4096).startswith(b"HTTP/1.1 101")
            text = b'{"type":"reset"}'
            sock.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
            wait_until(lambda: server.server.session_count == 1)
            wait_until(lambda: server.server.session_count == 0)


def test_sockets_that_ask_nothing_are_ended(obedient, monkeypatch):
    monkeypatch.setattr(openenv_socket, "NO_SESSION_TIMEOUT", 0.2)
    with loopback_server(obedient, secure=False, use_thread=True, http=True, idle_timeout=0.3) as server:
        with socket_of(server) as ws, pytest.raises(ConnectionClosed):
            ws.receive()
        with socket_of(server) as ws:
            ws.ask("reset")
            wait_until(lambda: not server.server.session_count)
            assert ws.ask("step", {"action": 0})["data"]["code"] == "SESSION_ERROR"


def test_an_identity_has_as_many_as_it_may(obedient):
    with loopback_server(obedient, use_thread=True, http=True, max_sessions_per_identity=1) as server:
        with socket_of(server) as first, socket_of(server) as second:
            first.ask("reset")
            assert second.ask("reset")["data"]["code"] == "CAPACITY_REACHED"
            with socket_of(server, ssl=context_of(tenant(server, "other"))) as third:
                assert third.ask("reset")["type"] == "observation"


def test_a_drain_lets_the_episode_end(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, http=True, drain_timeout=20.0) as server:
        with socket_of(server) as ws:
            ws.ask("reset")
            server.server.stop()
            assert ws.ask("step", {"action": 0})["type"] == "observation"
            with asking(server) as client, contextlib.suppress(ConnectionError):
                assert client.ask("GET", "/openenv/health")[0] == 503
            assert ws.ask("reset")["data"]["code"] in ("SESSION_ERROR", "CAPACITY_REACHED")


# ------------------------------------------------------------------------------------------------ single requests


def test_single_requests_have_the_numbers_that_it_has_here():
    local = gym.make("CartPole-v1")
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server, asking(server) as client:
        expected, _ = local.reset(seed=2)
        status, body, answer = client.ask("POST", "/openenv/reset", {"seed": 2})
        assert (status, body["observation"]["observation"], body["done"]) == (200, expected.tolist(), False)
        client.headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]
        for action in (0, 1, 1, 0):
            expected = local.step(action)[0]
            _, body, _ = client.ask("POST", "/openenv/step", {"action": {"action": action}, "timeout_s": 15})
            assert body["observation"]["observation"] == expected.tolist()
        assert client.ask("GET", "/openenv/state")[1]["step_count"] == 4
        assert client.ask("POST", "/openenv/step", {"action": {"action": 9.5}})[0] == 400


def test_a_client_without_cookies_has_its_connections_session(server):
    with asking(server) as client, asking(server) as other:
        assert client.ask("POST", "/openenv/step", {"action": 0})[0] == 400
        client.ask("POST", "/openenv/reset", {})
        assert client.ask("POST", "/openenv/step", {"action": 0})[1]["observation"]["count"] == 1
        assert other.ask("POST", "/openenv/step", {"action": 0})[0] == 400
        other.ask("POST", "/openenv/reset", {})
        assert client.ask("POST", "/openenv/step", {"action": 0})[1]["observation"]["count"] == 2


def test_a_client_that_is_known_needs_neither(secure):
    context = context_of(secure.client_credentials_paths)
    for count in range(3):
        with contextlib.closing(Asking(secure.server.port, context)) as client:
            path = "reset" if count == 0 else "step"
            body = client.ask("POST", f"/openenv/{path}", {"action": 0})[1]
            assert body["observation"]["count"] == count


def test_errors_of_single_requests_are_json(server):
    with asking(server) as client:
        client.ask("POST", "/openenv/reset", {})
        status, body, _ = client.ask("POST", "/openenv/step", {"action": ACTION["raise"]})
        assert (status, "KeyError" in body["detail"]) == (500, True)


@pytest.mark.long
def test_one_large_image_stalls_nobody(drawn):
    with loopback_server(drawn, secure=False, use_thread=True, http=True) as server:
        ended = threading.Event()

        def load() -> None:
            with socket_of(server, max_size=None) as ws:
                ws.ask("reset")
                while not ended.is_set():
                    ws.ask("step", {"action": "x"})

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            with asking(server) as client:
                for _ in range(50):
                    assert client.ask("GET", "/openenv/health")[0] == 200
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def test_schemas_are_json_and_cost_one_session(server):
    with asking(server) as client:
        for _ in range(2):
            status, body, _ = client.ask("GET", "/openenv/schema")
            assert (status, body.keys()) == (200, {"action", "observation", "state"})
        assert json.dumps(body)
        assert server.server.session_count == 0
