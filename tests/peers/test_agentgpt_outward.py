"""`from_agentgpt`, with AgentGPT's own environment hosts, unmodified, as they come from PyPI."""

from __future__ import annotations

import contextlib

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("websockets", reason="the extra http is not installed")

from remote_gym import EncodingError, Limits, RemoteEnvironmentError, from_agentgpt
from remote_gym.peers.agentgpt_hub import Hub, Settings

pytestmark = [pytest.mark.long, pytest.mark.development, pytest.mark.timeout(900)]

KEY = "a training key"


@pytest.fixture(scope="module")
def hosts(started):
    return started("agentgpt-host", ("agent-gpt-aws==0.9.5", "gymnasium>=1.2,<2"), "agentgpt_real_host.py")


@pytest.fixture
def key_file(tmp_path):
    (tmp_path / "key").write_text(KEY)
    return tmp_path / "key"


@pytest.fixture
def port():
    hub = Hub.join(Settings("127.0.0.1", 0, KEY.encode(), None, Limits().message_bytes))
    yield hub.port
    hub.leave()


def test_two_hosts_play_the_numbers_of_the_environment_itself(hosts, port, key_file):
    with hosts(f"ws://127.0.0.1:{port}", KEY, "Pendulum-v1", "2"), contextlib.ExitStack() as stack:
        arguments = {"env_id": "Pendulum-v1", "training_key_file": key_file}
        both = [
            stack.enter_context(contextlib.closing(from_agentgpt(port, env_idx=index, **arguments))) for index in (0, 1)
        ]
        for seed, environment in enumerate(both):
            local = gym.make("Pendulum-v1")
            assert (environment.action_space, environment.observation_space) == (
                local.action_space,
                local.observation_space,
            )
            (observation, info), (expected, expected_info) = environment.reset(seed=seed), local.reset(seed=seed)
            local.action_space.seed(seed)
            ended = False
            while not ended:
                assert np.array_equal(observation, expected)
                assert observation.dtype == expected.dtype
                assert info == expected_info
                action = local.action_space.sample()
                observation, *others, info = environment.step(action)
                expected, *expected_others, expected_info = local.step(action)
                assert others == [float(expected_others[0]), *expected_others[1:]]
                ended = others[1] or others[2]


def test_an_environment_with_a_discrete_space_plays_where_that_is_given(hosts, port, key_file):
    arguments = {"env_id": "CartPole-v1", "training_key_file": key_file}
    with hosts(f"ws://127.0.0.1:{port}", KEY, "CartPole-v1", "1"):
        with pytest.raises(EncodingError, match="give action_space"):
            from_agentgpt(port, **arguments)
        with contextlib.closing(from_agentgpt(port, action_space=spaces.Discrete(2), **arguments)) as environment:
            local = gym.make("CartPole-v1")
            assert np.array_equal(environment.reset(seed=3)[0], local.reset(seed=3)[0])
            for action in (0, 1, 1, 0):
                observation, *others = environment.step(action)
                expected, *expected_others = local.step(action)
                assert np.array_equal(observation, expected)
                assert others == expected_others
            with pytest.raises(RemoteEnvironmentError, match="Internal server error"):
                environment.step(7)
            environment.reset()
