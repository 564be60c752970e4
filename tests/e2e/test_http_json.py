"""Our own protocol in JSON: by requests, by messages, and by JavaScript."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra http is not installed")
if sys.platform != "linux":
    pytest.skip("elsewhere HTTP has a port of its own only", allow_module_level=True)

from environments import ACTION
from http_client import asking, context_of, socket_of
from remote_gym.server.frontends.http.protocols.operations import OPERATIONS
from remote_gym.testing import loopback_server
from tenants import tenant
from waiting import scaled, wait_until

CLIENT = Path(__file__).parents[2] / "exploration" / "http_client.mjs"
SESSIONS = "/v1/sessions"


@pytest.fixture
def server(servers, obedient):
    with servers.lend(obedient, secure=False, use_thread=True, http=True) as lent:
        yield lent


def opened(client, **data):
    status, body, _ = client.ask("POST", SESSIONS, data)
    assert status == 200, body
    return body


def post(client, session, do, status=200, /, **data):
    found, body, _ = client.ask("POST", f"{SESSIONS}/{session}/{do}", data)
    assert found == status, body
    return body


def closed(client, session):
    assert client.ask("DELETE", f"{SESSIONS}/{session}")[:2] == (200, {"closed": True})


def test_an_episode_has_the_numbers_that_it_has_here():
    local = gym.make("CartPole-v1")
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server, asking(server) as client:
        found = opened(client, seed=3)
        assert found["observation"] == local.reset(seed=3)[0].tolist()
        assert (found["action_space"]["maximum"], found["observation_space"]["shape"]) == (1, [4])
        for action in (0, 1, 1):
            observation, reward, terminated, truncated, info = local.step(action)
            assert post(client, found["session"], "step", action=action) == {
                "observation": observation.tolist(),
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "info": info,
            }
        assert post(client, found["session"], "reset", seed=4)["observation"] == local.reset(seed=4)[0].tolist()
        closed(client, found["session"])


def test_arrays_are_lists_or_base64():
    local = gym.make("CartPole-v1")
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server, asking(server) as client:
        found = opened(client, seed=3, arrays="base64")["observation"]
        assert (found["dtype"], found["shape"]) == ("float32", [4])
        array = np.frombuffer(base64.b64decode(found["base64"]), "<f4")
        np.testing.assert_array_equal(array, local.reset(seed=3)[0])
        assert client.ask("POST", SESSIONS, {"arrays": "other"})[0] == 400


def test_actions_may_come_as_base64():
    with loopback_server("Pendulum-v1", secure=False, use_thread=True, http=True) as server, asking(server) as client:
        first, second = opened(client, seed=1)["session"], opened(client, seed=1)["session"]
        data = base64.b64encode(np.array([0.5], "<f4").tobytes()).decode()
        action = {"dtype": "float32", "shape": [1], "base64": data}
        assert post(client, first, "step", action=action) == post(client, second, "step", action=[0.5])
        for wrong in (
            {**action, "dtype": "O"},
            {**action, "shape": [7]},
            {**action, "base64": "!"},
            {**action, "shape": 1},
        ):
            post(client, first, "step", 400, action=wrong)


def test_what_is_exposed_is_called_and_frames_are_rendered(server):
    with asking(server) as client:
        found = opened(client, render_mode="rgb_array")
        session = found["session"]
        assert "add" in found["exposed"]
        assert post(client, session, "call", name="add", args=[1], kwargs={"b": 2}) == {"value": 3}
        assert post(client, session, "call", name="difficulty") == {"value": 3}
        assert "hidden" in post(client, session, "call", 400, name="hidden")["detail"]
        assert np.shape(post(client, session, "render")["frame"]) == (4, 6, 3)
        closed(client, session)


def test_what_is_asked_again_is_answered_again(server):
    with asking(server) as client:
        request = "a-random-request-of-mine"
        session = opened(client, request=request)["session"]
        assert opened(client, request=request)["session"] == session
        assert server.server.session_count == 1
        assert "16" in client.ask("POST", SESSIONS, {"request": "short"})[1]["detail"]
        for count in (1, 2):
            for _ in range(3):
                found = post(client, session, "step", action=ACTION["step"], request=str(count))
                assert found["observation"]["count"] == count
        for _ in range(2):
            post(client, session, "step", 500, action=ACTION["raise"], request="x")
        assert post(client, session, "step", action=ACTION["step"])["observation"]["count"] == 4
        closed(client, session)


def test_what_is_asked_again_while_it_is_under_way_is_done_once(server):
    found = []

    def ask():
        with asking(server) as client:
            found.append(post(client, session, "step", action=ACTION["slow"], request="once")["observation"]["count"])

    with asking(server) as client:
        session = opened(client)["session"]
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1, 1, 1]
        closed(client, session)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("step", {}),
        ("step", {"action": "x"}),
        ("step", {"action": 0, "other": 1}),
        ("reset", {"seed": "x"}),
        ("reset", {"seed": True}),
        ("reset", {"options": [1]}),
        ("call", {"name": 3}),
        ("call", {"name": "add", "args": {}}),
        ("reset", {"request": 1}),
    ],
)
def test_what_an_operation_does_not_take_is_refused(server, name, data):
    with asking(server) as client:
        session = opened(client)["session"]
        assert post(client, session, name, 400, **data)["detail"]
        closed(client, session)


def test_a_session_is_gone_once_it_is_closed_and_never_anothers(obedient):
    with loopback_server(obedient, use_thread=True, http=True) as server, asking(server) as client:
        session = opened(client)["session"]
        from contextlib import closing

        from http_client import Asking

        with closing(Asking(server.server.port, context_of(tenant(server, "mallory")))) as other:
            post(other, session, "step", 404, action=0)
        closed(client, session)
        assert "open another" in post(client, session, "step", 404, action=0)["detail"]


def test_messages_of_a_websocket_say_the_same(server):
    with socket_of(server, "/v1/ws") as ws:

        def ask(**message):
            ws.websocket.send(json.dumps(message))
            return ws.receive()

        opening = ask(id=1, do="open", seed=1)
        session = opening["answer"]["session"]
        assert opening["id"] == 1
        assert ask(id="b", do="step", session=session, action=0)["answer"]["observation"]["count"] == 1
        assert ask(id=3, do="step", session=session)["error"]["status"] == 400
        assert ask(id=4, do="nothing")["error"]["detail"]
        assert ask(do="step", session="none", action=0)["error"]["status"] == 404
        ws.websocket.send("[]")
        assert ws.receive() == {
            "id": None,
            "error": {"status": 400, "detail": "the body is a list; send a JSON object"},
        }
        with socket_of(server, "/v1/ws") as other:  # goes on with it
            other.websocket.send(json.dumps({"do": "step", "session": session, "action": 0}))
            assert other.receive()["answer"]["observation"]["count"] == 2
        assert ask(do="close", session=session)["answer"] == {"closed": True}


def test_a_websocket_holds_its_session_and_leaves_it_to_its_lease(obedient):
    import time

    with loopback_server(obedient, secure=False, use_thread=True, http=True, lease=0.4) as server:
        with socket_of(server, "/v1/ws") as ws:
            ws.websocket.send(json.dumps({"do": "open"}))
            session = ws.receive()["answer"]["session"]
            time.sleep(0.8)
            ws.websocket.send(json.dumps({"do": "step", "session": session, "action": 0}))
            assert "answer" in ws.receive()
        wait_until(lambda: not server.server.session_count)


def test_the_openapi_page_names_every_operation(server):
    with asking(server) as client:
        status, page, _ = client.ask("GET", "/v1/openapi.json")
    assert (status, page["openapi"]) == (200, "3.1.0")
    found = {each["operationId"] for methods in page["paths"].values() for each in methods.values()}
    assert found == set(OPERATIONS)


def test_javascript_plays():
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no Node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=scaled(20.0)).stdout
    if int(version.strip("v\n").partition(".")[0]) < 18:
        pytest.skip(f"Node {version} has no fetch")
    local = gym.make("CartPole-v1")
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server:
        command = [node, str(CLIENT), f"http://localhost:{server.server.port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(30.0))
        assert done.returncode == 0, done.stderr
        first, *steps = map(json.loads, done.stdout.splitlines())
        assert first["observation"] == local.reset(seed=1)[0].tolist()
        for action, step in zip((0, 1, 1, 0), steps, strict=True):
            assert step["observation"] == local.step(action)[0].tolist()
        assert server.server.session_count == 0
