"""Text environments with asynchronous methods, hosted as they are, and as each kind of client sees them."""

from __future__ import annotations

import asyncio
import base64
import io
import secrets
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("PIL.Image", reason="the extra jpeg is not installed")

import text_entrypoint
from http_client import asking, socket_of
from processes import open_descriptors
from remote_gym import AnyText, ImageSpace, InvalidObservation, RemoteEnvironmentError
from remote_gym.testing import loopback_server
from vagen_client import Vagen
from waiting import scaled, wait_until

ENTRYPOINT = Path(text_entrypoint.__file__)
SEED, ACTIONS = 3, ("go", "look äöü 漢字 🦊", "", "end\n")


@pytest.fixture(params=["thread", "process"], scope="module")
def server(request):
    with loopback_server({"entrypoint": str(ENTRYPOINT)}, secure=False, use_thread=request.param == "thread") as server:
        yield server


def local():
    """Observations, rewards, ends and infos as the environment has them by itself."""

    async def play():
        environment = text_entrypoint.Agents()
        obs, info = await environment.reset(SEED)
        found = [(as_arrays(obs), info)]
        for action in ACTIONS:
            obs, *rest = await environment.step(action)
            found.append((as_arrays(obs), *rest))
        await environment.close()
        return found

    return asyncio.run(play())


def as_arrays(obs):
    images = obs.get("multi_modal_input", {}).get("<image>", [])
    return obs["obs_str"], [(image.mode, np.asarray(image).tolist()) for image in images]


def as_local(observation):
    modes = {2: "L", 3: "RGB", 4: "RGBA"}
    images = observation["multi_modal_input"]["<image>"]
    assert all(image.dtype == np.uint8 and image.flags.writeable for image in images)
    return observation["obs_str"], [
        (modes[image.shape[2] if image.ndim == 3 else 2], image.tolist()) for image in images
    ]


def test_what_a_client_sees_is_what_the_environment_has_here(server):
    first, *steps = local()
    environment = server.environment()
    observation, info = environment.reset(seed=SEED)
    assert (as_local(observation), info) == first
    for action, expected in zip(ACTIONS, steps, strict=True):
        observation, reward, terminated, truncated, info = environment.step(action)
        assert (as_local(observation), reward, terminated, info) == expected
        assert truncated is False
        assert environment.observation_space.contains(observation)
    assert terminated


def test_spaces_are_of_any_texts_and_images_of_any_size(server):
    environment = server.environment()
    images = gym.spaces.Dict({"<image>": gym.spaces.Sequence(ImageSpace())})
    assert environment.observation_space == gym.spaces.Dict({"obs_str": AnyText(), "multi_modal_input": images})
    assert environment.action_space == AnyText()
    assert isinstance(environment.action_space.sample(), str)


def test_the_prompt_and_exposed_methods_are_awaited(server):
    environment = server.environment()
    prompt = environment.call("system_prompt")  # before any reset
    assert prompt["obs_str"] == "You see <image>."
    assert [image.shape[:2] for image in prompt["multi_modal_input"]["<image>"]] == [(4, 5)]
    environment.reset(seed=1)
    assert environment.count_words("a b c") == 3
    (tool,) = environment.tools  # an agent does not ask for its own prompt
    assert (tool["name"], tool["description"]) == ("count_words", "Count the words of a text.")
    assert tool["input_schema"]["properties"] == {"text": {"type": "string"}}
    environment.note = "mine"
    assert environment.note == "mine"
    with pytest.raises(AttributeError, match="is not exposed"):
        environment.call("see", "x")


def test_tasks_go_on_while_the_worker_waits(server):
    environment = server.environment()
    environment.reset(seed=1)
    before = environment.beats
    wait_until(lambda: environment.beats > before + 20)


def test_an_episode_that_is_cut_off_is_truncated_and_images_in_infos_are_arrays(server):
    environment = server.environment()
    environment.reset(seed=1)
    *_, terminated, truncated, info = environment.step("cut")
    assert (terminated, truncated) == (False, True)
    assert info["picture"].shape[:2] == (3, 2)


def test_errors_are_the_environments_and_it_goes_on(server):
    environment = server.environment()
    environment.reset(seed=1)
    with pytest.raises(RemoteEnvironmentError, match="a key") as raised:
        environment.step("raise")
    assert 'raise KeyError("a key")' in raised.value.remote_traceback
    with pytest.raises(RemoteEnvironmentError, match="SystemExit"):
        environment.step("exit")
    with pytest.raises(InvalidObservation, match="<video>"):
        environment.step("video")
    with pytest.raises(InvalidObservation, match="four values"):
        environment.step("nothing")
    assert environment.step("go")[0]["obs_str"].startswith("5 go")  # the environment saw each of them once


def test_one_that_blocks_keeps_no_other_waiting(server):
    blocked, other = server.environment(), server.environment()
    blocked.reset(seed=1)
    other.reset(seed=1)
    thread = threading.Thread(target=blocked.step, args=("block",))
    thread.start()
    other.step("go")
    assert thread.is_alive()
    thread.join()


def test_several_are_one_vector(server):
    environments = server.vector_environment(2)
    observations, _ = environments.reset(seed=[SEED, SEED])
    first, (expected, reward, *_), *_ = local()
    assert observations["obs_str"] == (first[0][0],) * 2
    observations, rewards, *_ = environments.step(["go", "go"])
    images = observations["multi_modal_input"]["<image>"]
    singles = [
        {"obs_str": text, "multi_modal_input": {"<image>": found}}
        for text, found in zip(observations["obs_str"], images, strict=True)
    ]
    assert [as_local(each) for each in singles] == [expected] * 2
    assert rewards.tolist() == [reward] * 2
    assert [prompt["obs_str"] for prompt in environments.call("system_prompt")] == ["You see <image>."] * 2


def test_closing_one_leaves_nothing(tmp_path):
    threads, descriptors = set(threading.enumerate()), set(open_descriptors().items())
    with loopback_server({"entrypoint": str(ENTRYPOINT)}, secure=False, use_thread=True) as server:
        environment = server.environment()
        environment.reset(seed=1)
        environment.close()
        wait_until(lambda: not server.server.session_count)
    # Not that there are the same: what other tests have left open may have gone meanwhile.
    wait_until(lambda: not set(threading.enumerate()) - threads)
    wait_until(lambda: not set(open_descriptors().items()) - descriptors)


@pytest.mark.long
def test_a_close_without_an_end_holds_nobody_up():
    arguments = {"entrypoint": str(ENTRYPOINT), "entrypoint_kwargs": {"slow_close": True}}
    with loopback_server(arguments, secure=False, close_timeout=0.5) as server:
        environment = server.environment()
        environment.reset(seed=1)
        began = time.monotonic()
        environment.close()
        wait_until(lambda: not server.server.session_count)
        assert time.monotonic() - began < scaled(10.0)


def test_an_asynchronous_function_may_create_it(tmp_path):
    entrypoint = tmp_path / "later.py"
    entrypoint.write_text(
        ENTRYPOINT.read_text().replace("def create_environment", "async def create_environment")
        + "\n\nclass Plain:\n    def reset(self):\n        return 1\n"
    )
    with loopback_server({"entrypoint": str(entrypoint)}, secure=False, use_thread=True) as server:
        environment = server.environment()
        assert environment.reset(seed=SEED)[0]["obs_str"] == local()[0][0][0]
        environment.close()


def test_options_reach_those_that_take_them(server):
    environment = server.environment()
    with pytest.raises(RemoteEnvironmentError, match="options"):
        environment.reset(seed=1, options={"level": 2})
    environment.reset(seed=1, options={})


@pytest.fixture(scope="module")
def web():
    pytest.importorskip("uvicorn", reason="the extra http is not installed")
    if sys.platform != "linux":
        pytest.skip("elsewhere HTTP has a port of its own only")
    arguments = {"entrypoint": str(ENTRYPOINT)}
    with loopback_server(arguments, secure=False, use_thread=True, http=True) as server:
        yield server


def test_vagens_clients_get_what_its_own_server_sends(web):
    from PIL import Image

    client = Vagen(web)

    def seen(found):
        images = [Image.open(io.BytesIO(content)) for content in client.images]
        return found["obs"], [(image.mode, np.asarray(image).tolist()) for image in images]

    first, *steps = local()
    found = client.connect(seed=SEED)
    assert (seen(found), found["info"]) == first
    assert seen(client.call("system_prompt"))[0] == "You see <image>."
    assert len(client.images) == 1
    for action, expected in zip(ACTIONS, steps, strict=True):
        found = client.call("step", action_str=action)
        assert (seen(found), found["reward"], found["done"], found["info"]) == expected
    assert client.call("count_words", text="a b") == {"result": 2}
    assert client.call("close") == {"closed": True}


def test_a_step_of_vagens_that_is_repeated_is_taken_once(web):
    client = Vagen(web)
    client.connect(seed=SEED)
    boundary = f"gym_env_{secrets.token_hex(16)}"
    for _ in range(3):
        assert client.call("step", boundary, action_str="go")["obs"].startswith("1 go")
    client.call("close")


def test_in_json_texts_are_texts_and_images_lists(web):
    (text, _), (expected, reward, *_), *_ = [local()[0][0], *local()[1:]]
    with asking(web) as client:
        _, opened, _ = client.ask("POST", "/v1/sessions", {"seed": SEED})
        assert opened["observation"]["obs_str"] == text
        assert opened["action_space"] == {"type": "string", "space": "AnyText"}
        images = opened["observation_space"]["properties"]["multi_modal_input"]["properties"]["<image>"]
        assert images["items"]["space"] == "ImageSpace"
        _, found, _ = client.ask("POST", f"/v1/sessions/{opened['session']}/step", {"action": "go"})
        observation = found["observation"]
        assert (observation["obs_str"], found["reward"]) == (expected[0], reward)
        assert observation["multi_modal_input"]["<image>"] == [pixels for _, pixels in expected[1]]
        client.ask("DELETE", f"/v1/sessions/{opened['session']}")


def test_openenvs_clients_send_texts_and_get_images_as_they_like():
    pytest.importorskip("uvicorn", reason="the extra http is not installed")
    from PIL import Image

    (text, images), *_ = [step[0] for step in local()[1:]]
    arguments = {"entrypoint": str(ENTRYPOINT)}
    with loopback_server(arguments, secure=False, use_thread=True, http=True, http_images="png") as server:
        with socket_of(server) as socket:
            assert socket.ask("reset", {"seed": SEED})["data"]["observation"]["obs_str"] == f"seed {SEED}"
            found = socket.ask("step", {"text": "go"})["data"]["observation"]
            sent = [base64.b64decode(each) for each in found["multi_modal_input"]["<image>"]]
            pictures = [Image.open(io.BytesIO(each)) for each in sent]
            assert (found["obs_str"], [(each.mode, np.asarray(each).tolist()) for each in pictures]) == (text, images)


def test_the_same_is_awaited(server):
    async def play():
        async with server.async_environment() as environment:
            observation, info = await environment.reset(seed=SEED)
            found = [(as_local(observation), info)]
            for action in ACTIONS:
                observation, reward, terminated, _, info = await environment.step(action)
                found.append((as_local(observation), reward, terminated, info))
            assert (await environment.call("system_prompt"))["obs_str"] == "You see <image>."
            return found

    assert asyncio.run(play()) == local()


def test_one_that_was_made_ahead_is_as_good():
    arguments = {"entrypoint": str(ENTRYPOINT), "warm": 1}
    with loopback_server(arguments, secure=False, use_thread=True) as server:
        wait_until(lambda: server.server.spare_count == 1)
        environment = server.environment()
        observation, info = environment.reset(seed=SEED)
        assert (as_local(observation), info) == local()[0]
        assert environment.call("system_prompt")["obs_str"] == "You see <image>."
