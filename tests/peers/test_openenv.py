"""OpenEnv's own clients, unmodified, against a server of ours: the numbers are those that the environment has here."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from environments import ACTION
from remote_gym import create_remote_environment_server
from remote_gym.auth.tokens import add_token
from remote_gym.testing import loopback_server

pytestmark = [pytest.mark.long, pytest.mark.development, pytest.mark.timeout(600)]

ACTIONS = [0, 1, 1, 0, 1, 0, 0, 1]
OBEDIENT = {"entrypoint": str(Path(__file__).parents[1] / "environments.py")}


@pytest.fixture(scope="module")
def newest(peer):
    """The client of openenv 0.10."""
    return peer("openenv-client", ("openenv==0.10.0",), "openenv_client.py")


@pytest.fixture(scope="module")
def oldest(peer):
    """The `HTTPEnvClient` of openenv-core 0.1."""
    return peer("openenv-core-client", ("openenv-core==0.1.1",), "openenv_core_client.py")


@pytest.fixture(scope="module")
def cartpole():
    with loopback_server("CartPole-v1", secure=False, use_thread=True, http=True) as server:
        yield f"http://localhost:{server.server.port}/openenv"


def locally(seed, actions=ACTIONS):
    """What the environment returns here, as their clients have it."""
    environment = gym.make("CartPole-v1")
    found = [[{"observation": environment.reset(seed=seed)[0].tolist()}, None, False]]
    for action in actions:
        observation, reward, terminated, truncated, _ = environment.step(action)
        found.append([{"observation": observation.tolist()}, reward, terminated or truncated])
    return found


def test_the_newest_client_plays_the_same_numbers(newest, cartpole):
    results, steps = newest("play", cartpole, 7, [{"action": action} for action in ACTIONS], {})
    assert results == locally(7)
    assert steps == len(ACTIONS)


def test_many_of_them_play_at_once(newest, cartpole):
    seeds = list(range(16))
    found = newest("play_many", cartpole, seeds, [{"action": action} for action in ACTIONS])
    assert found == [locally(seed) for seed in seeds]


def test_the_newest_client_shows_a_token(newest, certificates, tmp_path):
    token = add_token(tmp_path / "tokens", "agent")
    with create_remote_environment_server(
        "CartPole-v1",
        "localhost",
        0,
        (certificates.server, certificates.server_key, None),
        use_thread=True,
        http=True,
        token_file=tmp_path / "tokens",
    ) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificates.ca))
            url = f"https://localhost:{server.port}/openenv"
            results, _ = newest("play", url, 1, [{"action": 0}], {"Authorization": f"Bearer {token}"})
            assert results == locally(1, [0])
            with pytest.raises(AssertionError, match="401"):
                newest("play", url, 1, [{"action": 0}], {})


def test_a_client_that_gave_up_waiting_goes_on_with_its_episode(newest, certificates, tmp_path):
    """By a header that it sends with each connection, where it is known. With their own server the episode is lost."""
    token_file = tmp_path / "tokens"
    add_token(token_file, "agent")
    paths = (certificates.server, certificates.server_key, None)
    options = {"use_thread": True, "check": False, "http": True, "token_file": token_file, "http_url_tokens": True}
    with create_remote_environment_server(OBEDIENT, "localhost", 0, paths, **options) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificates.ca))
            url = f"https://localhost:{server.port}/token/{add_token(token_file, 'agent')}/openenv"
            slow, quick = ({"action": ACTION[name]} for name in ("slow", "step"))
            raised, observation, steps = newest("give_up", url, slow, quick)
        assert raised == "TimeoutError"
        assert (observation["count"], steps) == (2, 2)


def test_a_client_that_gave_up_waiting_gets_no_late_answer(newest):
    with loopback_server(OBEDIENT, secure=False, use_thread=True, http=True) as server:
        with contextlib.suppress(AssertionError):  # its next step has no episode
            _, observation, _ = newest(
                "give_up",
                f"http://localhost:{server.server.port}/openenv",
                {"action": ACTION["slow"]},
                {"action": ACTION["step"]},
            )
            assert observation["count"] != 1


def test_the_newest_client_starts_a_server_of_ours(newest):
    found = newest("start_and_play", sys.executable, "CartPole-v1", 3, [{"action": action} for action in ACTIONS])
    assert found == locally(3)


def test_the_oldest_client_plays(oldest, cartpole):
    results, steps = oldest("play", cartpole, {}, ACTIONS)
    assert steps == len(ACTIONS)
    # It has no seed to send. From the state that its first observation shows the rest follows.
    environment = gym.make("CartPole-v1").unwrapped
    environment.reset()
    environment.state = np.array(results[0][0]["observation"], np.float64)
    for action, (observation, reward, done) in zip(ACTIONS, results[1:], strict=True):
        expected, expected_reward, terminated, _, _ = environment.step(action)
        np.testing.assert_allclose(observation["observation"], expected, rtol=1e-5, atol=1e-6)
        assert (reward, done) == (expected_reward, terminated)


def test_two_of_the_oldest_have_a_session_each(oldest):
    with loopback_server(OBEDIENT, secure=False, use_thread=True, http=True) as server:
        found = oldest("two", f"http://localhost:{server.server.port}/openenv", [0, 0, 0], [0, 0, 0])
    assert [[each["count"] for each in one] for one in found] == [[1, 2, 3], [1, 2, 3]]


def test_the_oldest_client_starts_a_server_of_ours(oldest):
    results, steps = oldest("start_and_play", sys.executable, "CartPole-v1", ACTIONS)
    assert (len(results), steps) == (len(ACTIONS) + 1, len(ACTIONS))
