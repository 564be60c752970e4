"""Several steps in one message, and a first reset with the opening."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from environments import ACTION
from remote_gym import EncodingError, InvalidAction, RemoteEnvironmentError
from remote_gym.testing import find_difference, loopback_server
from remote_gym.worker.host import Host
from waiting import wait_until


def test_many_steps_return_what_single_ones_would(server):
    many, single = server.environment(), server.environment()
    for environment in (many, single):
        environment.reset(seed=3)
    actions = [ACTION["step"], np.int64(ACTION["numpy_flags"]), ACTION["python_kinds"]]
    # The second would end no episode: its flags are NumPy's, and one of them is true, so it does.
    expected = [single.step(action) for action in actions[:2]]
    assert find_difference(expected, many.step_many(actions)) is None
    assert find_difference(single.step(0), many.step(0)) is None


def test_the_end_of_an_episode_ends_the_steps():
    with loopback_server("CartPole-v1", use_thread=True) as server:
        environment, local = server.environment(), gym.make("CartPole-v1")
        environment.reset(seed=1)
        local.reset(seed=1)
        transitions = environment.step_many([np.int64(1)] * 100)
        expected = []
        while not expected or not expected[-1][2]:
            expected.append(local.step(np.int64(1)))
        assert find_difference(expected, transitions) is None
        assert environment.step_many([]) == []


def test_a_server_that_answers_more_steps_than_were_asked_is_refused(monkeypatch):
    step_many = Host._step_many

    def step_twice_as_many(host, request, response):
        step_many(host, request, response)
        response.step_many.transitions.extend(list(response.step_many.transitions))

    monkeypatch.setattr(Host, "_step_many", step_twice_as_many)
    with loopback_server("CartPole-v1", use_thread=True) as server:
        environment = server.environment()
        environment.reset(seed=1)
        with pytest.raises(EncodingError, match="6 transitions came for 3 actions"):
            environment.step_many([0, 1, 0])


def test_frames_come_with_the_last_of_many_steps(server):
    environment = server.environment(render_mode="rgb_array")
    environment.reset()
    environment.step_many([0, 0, 0])
    assert environment.render().shape == (7, 6, 3)


def test_a_step_that_fails_brings_along_those_before_it(server):
    environment = server.environment()
    environment.reset()
    with pytest.raises(RemoteEnvironmentError, match="a key") as caught:
        environment.step_many([0, 0, ACTION["raise"], 0])
    assert [transition[0]["count"] for transition in caught.value.transitions] == [1, 2]
    assert environment.step(0)[0]["count"] == 4  # the failed one had begun to count


def test_an_action_that_does_not_fit_keeps_all_from_being_sent(server):
    environment = server.environment()
    with pytest.raises(ResetNeeded):
        environment.step_many([0])
    environment.reset()
    with pytest.raises(InvalidAction):
        environment.step_many([0, "no"])
    assert environment.step(0)[0]["count"] == 1


def test_a_session_that_is_opened_by_a_reset_brings_its_first_answer_along(server, tmp_path):
    log = tmp_path / "log"
    environment = server.environment(remote_args={"entrypoint_kwargs": {"log": str(log)}})
    copied = pickle.loads(pickle.dumps(environment))
    environment.close()
    observation, info = copied.reset(seed=5, options={"a": 1})
    assert info["options"] == {"a": 1}
    assert copied._session._carrier.stream is None  # nothing but the opening was asked
    assert copied.step(0)[0]["count"] == 1
    copied.close()
    again = server.environment()
    assert find_difference(observation, again.reset(seed=5)[0]) is None
    wait_until(lambda: log.read_text().count("close") == 2)
    assert [line.split()[0] for line in log.read_text().splitlines()][-4:] == ["open", "reset", "step", "close"]


def test_a_first_reset_that_fails_is_told_and_the_session_stays(server):
    environment = server.environment()
    environment.close()
    with pytest.raises(RemoteEnvironmentError, match="a key"):
        environment.reset(options={"do": "raise"})
    assert server.server.session_count == 1
    environment.reset()
    assert environment.step(0)[0]["count"] == 1
