"""`from_openenv`, over OpenEnv's own server, unmodified, as it comes from PyPI."""

from __future__ import annotations

import contextlib
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded

pytest.importorskip("websockets", reason="the extra http is not installed")

from remote_gym import DeadlineExceeded, InvalidAction, RemoteEnvironmentError, ServerFull, from_openenv

pytestmark = [pytest.mark.long, pytest.mark.development, pytest.mark.timeout(600)]

REQUIREMENTS = ("openenv==0.10.0", "gymnasium>=1.2,<2")


@pytest.fixture(scope="module")
def server(started):
    return started("openenv-server", REQUIREMENTS, "openenv_real_server.py")


def test_episodes_are_those_of_the_environment_itself(server):
    local = gym.make("CartPole-v1")
    with server("CartPole", "4") as port, contextlib.closing(from_openenv(f"http://127.0.0.1:{port}")) as environment:
        assert environment.action_space == spaces.Discrete(2)
        assert environment.observation_space == spaces.Box(-np.inf, np.inf, (4,), np.float64)
        for seed in (1, 2):
            (observation, info), (expected, _) = environment.reset(seed=seed), local.reset(seed=seed)
            assert info == {"episode": None, "more": []}
            ended = False
            while not ended:
                assert np.array_equal(observation, expected)
                observation, *others = environment.step(1)
                expected, *expected_others = local.step(1)
                assert others == expected_others
                ended = others[1]


def test_a_server_without_room_says_so(server):
    with server("CartPole", "1") as port, contextlib.closing(from_openenv(f"http://127.0.0.1:{port}")) as environment:
        environment.reset()
        with contextlib.closing(from_openenv(f"http://127.0.0.1:{port}")) as other:
            with pytest.raises(ServerFull, match="1/1"):
                other.reset()
        environment.step(0)
        environment.close()
        with contextlib.closing(from_openenv(f"http://127.0.0.1:{port}")) as other:
            deadline = time.monotonic() + 60
            while True:  # their server ends a session when it comes to it
                try:
                    other.reset()
                    break
                except ServerFull:
                    assert time.monotonic() < deadline


def test_texts_lists_and_objects_travel_and_errors_are_told(server):
    with server("Talk", "4") as port:
        url = f"http://127.0.0.1:{port}"
        with contextlib.closing(from_openenv(url, step_timeout=1.0)) as environment:
            assert environment.action_space["kind"] == spaces.Discrete(3)
            observation, _ = environment.reset(seed=4, options={"level": 3})
            assert observation["text"] == "4 {'level': 3}"
            observation, *others = environment.step({"text": "hello, there", "kind": 2})
            assert others == [0.0, False, False, {}]
            assert [int(each) for each in observation["numbers"]] == [0, 1]
            assert observation["place"] == {"row": 2, "name": "hello, there"}
            for action, text in (
                ({"text": "raise", "kind": 1}, "does not like"),
                ({"text": "x", "kind": 9}, "0, 1 or 2"),
            ):
                with pytest.raises(RemoteEnvironmentError, match=text):
                    environment.step(action)
            with pytest.raises(InvalidAction):
                environment.step({"text": "x"})
            with pytest.raises(DeadlineExceeded):
                environment.step({"text": "3", "kind": 0})
            with pytest.raises(ResetNeeded):
                environment.step({"text": "x", "kind": 0})
            environment.reset()
            assert environment.step({"text": "new", "kind": 0})[0]["text"] == "new"
