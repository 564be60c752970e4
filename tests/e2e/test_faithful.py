"""What a client sees is what the environment returned."""

from __future__ import annotations

import copy
import pickle
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import remote_gym
from environments import ACTION
from remote_gym import ConfigError, DeadlineExceeded, RemoteEnvironment, RemoteEnvironmentError
from remote_gym.testing import find_difference, loopback_server
from waiting import scaled, wait_until


def test_rewards_and_flags_keep_their_kind(server):
    environment = server.environment()
    environment.reset()
    _, reward, terminated, truncated, _ = environment.step(ACTION["step"])
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    returned = environment.step(ACTION["numpy_flags"])[1:4]
    assert find_difference((np.float32(0.5), np.True_, np.False_), returned) is None


def test_observations_keep_a_kind_that_the_space_would_not_sample(server):
    environment = server.environment()
    environment.reset()
    observation, reward, *_ = environment.step(ACTION["python_kinds"])
    assert type(observation["count"]) is int
    assert observation["position"].dtype == np.float64
    assert type(reward) is int


def test_observations_are_writable_and_share_no_memory(server):
    environment = server.environment()
    first, _ = environment.reset()
    second, *_ = environment.step(ACTION["step"])
    assert not np.shares_memory(first["position"], second["position"])
    second["position"][:] = 7


def test_options_and_the_kind_of_an_action_reach_the_environment(server):
    environment = server.environment()
    options = {"list": [1, 2.5, None], ("a", 1): np.arange(3), "nested": {"b": b"x"}}
    _, info = environment.reset(seed=3, options=options)
    assert find_difference(options, info["options"]) is None
    assert type(environment.step(0)[4]["action"]) is int
    assert type(environment.step(np.int64(0))[4]["action"]) is np.int64
    assert type(environment.step(np.int8(0))[4]["action"]) is np.int64


def test_the_environment_runs_in_the_main_thread_of_a_process_of_its_own(process_server):
    environment = process_server.environment()
    _, info = environment.reset()
    assert info["main"]
    assert info["thread"] == "MainThread"


def test_env_ids_are_the_lowest_free(server):
    first, second = server.environment(), server.environment()
    assert [each.reset()[1]["env_id"] for each in (first, second)] == [0, 1]


def test_metadata_arrives_without_what_has_no_wire_form(server):
    environment = server.environment()
    assert environment.metadata == {"render_modes": ["rgb_array", "human"], "render_fps": 12}
    assert environment.spec is None


def test_frames_come_with_observations_when_asked_for_and_may_change_shape(server):
    environment = server.environment(render_mode="rgb_array")
    assert environment.render_mode == "rgb_array"
    assert environment.render() is None
    environment.reset()
    assert environment.render().shape == (4, 6, 3)
    environment.step(ACTION["step"])
    frame = environment.render()
    assert frame.shape == (5, 6, 3)
    assert (frame == 1).all()
    assert environment.latest_image is frame


def test_frames_on_demand_are_rendered_when_asked_for(server):
    environment = server.environment(render_mode="rgb_array", frames="on_demand")
    environment.reset()
    environment.step(ACTION["raise_in_render"])
    with pytest.raises(RemoteEnvironmentError, match="painter"):
        environment.render()
    assert environment.latest_image is None


def test_no_frame_is_rendered_or_sent_when_none_is_asked_for(server):
    environment = server.environment()
    environment.reset()
    environment.step(ACTION["raise_in_render"])
    assert environment.render() is None


def test_exposed_names_can_be_called_and_read_and_nothing_else(server):
    environment = server.environment()
    assert environment.call("add", 2, b=3) == 5
    assert environment.add(2) == 2
    assert environment.call("difficulty") == environment.difficulty == 3
    assert environment.as_static() == "static"
    assert environment.action_masks().all()
    assert environment.get_wrapper_attr("action_masks")().all()
    with pytest.raises(AttributeError, match="hidden"):
        _ = environment.hidden
    with pytest.raises(AttributeError, match="not exposed"):
        environment.call("hidden")
    with pytest.raises(RemoteEnvironmentError, match="nothing here"):
        environment.call("fail")


def test_a_pickled_copy_opens_a_session_of_its_own_at_its_next_reset(server):
    environment = server.environment()
    environment.reset()
    environment.step(ACTION["step"])
    copied = pickle.loads(pickle.dumps(environment))
    assert server.server.session_count == 1
    assert copied.observation_space == environment.observation_space
    _, info = copied.reset()
    assert server.server.session_count == 2
    assert info["env_id"] == 1
    assert environment.step(ACTION["step"])[0]["count"] == 2
    copied.close()
    copy.deepcopy(environment).close()


def test_the_constructor_runs_once_for_each_session(server, tmp_path):
    log = tmp_path / "log"
    environment = server.environment(remote_args={"entrypoint_kwargs": {"log": str(log)}})
    environment.reset()
    environment.step(ACTION["step"])
    environment.close()
    wait_until(lambda: "close" in log.read_text())
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["open", "reset", "step", "close"]


def test_close_is_idempotent_and_reset_opens_again(server):
    environment = server.environment()
    environment.reset()
    environment.close()
    environment.close()
    wait_until(lambda: server.server.session_count == 0)
    environment.reset()
    assert server.server.session_count == 1


def test_gym_make_makes_one(server):
    assert remote_gym
    environment = gym.make(
        "remote_gym/Remote-v0",
        url=server.server.url,
        port=server.server.port,
        client_credentials_paths=server.client_credentials_paths,
        render_mode="rgb_array",
    )
    try:
        environment.reset(seed=1)
        environment.step(ACTION["step"])
        assert environment.render().shape == (5, 6, 3)
        assert isinstance(environment.unwrapped, RemoteEnvironment)
    finally:
        environment.close()


def test_the_spec_is_the_servers_but_for_what_makes_it():
    with loopback_server("FrozenLake-v1", use_thread=True) as server:
        arguments = {"entrypoint_kwargs": {"map_name": "4x4"}}
        environment = server.environment(render_mode="rgb_array", frames="on_demand", remote_args=arguments)
        spec, local = environment.spec, gym.spec("FrozenLake-v1")
        assert spec.id == local.id == "FrozenLake-v1"
        assert spec.reward_threshold == local.reward_threshold == 0.70
        assert spec.max_episode_steps == local.max_episode_steps == 100
        assert spec.nondeterministic is local.nondeterministic is False
        assert spec.entry_point == "remote_gym:RemoteEnvironment"
        assert spec.order_enforce is False  # the server's has the wrappers of these two
        assert spec.disable_env_checker is True
        assert not getattr(spec, "additional_wrappers", ())
        assert spec.vector_entry_point is None
        assert spec.kwargs == {
            "url": "localhost",
            "port": server.server.port,
            "remote_args": arguments,
            "client_credentials_paths": tuple(map(str, server.client_credentials_paths)),
            "render_mode": "rgb_array",
            "frames": "on_demand",
        }
        again = pickle.loads(pickle.dumps(spec)).make()
        assert again.unwrapped._session.id != environment._session.id
        assert again.reset(seed=1)[0] == 0
        again.close()


def test_the_spec_of_an_environment_without_limits_has_none():
    with loopback_server("Taxi-v3" if "Taxi-v3" in gym.registry else "Taxi-v4", use_thread=True) as server:
        assert server.environment().spec.reward_threshold == 8
    gym.register("Bare-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", nondeterministic=True)
    try:
        with loopback_server("Bare-v0", use_thread=True) as server:
            spec = server.environment().spec
            assert (spec.reward_threshold, spec.max_episode_steps, spec.nondeterministic) == (None, None, True)
    finally:
        del gym.registry["Bare-v0"]


def test_an_exposed_name_reads_like_an_attribute_and_never_raises_from_hasattr(server):
    environment = server.environment()
    environment.reset()
    copied = pickle.loads(pickle.dumps(environment))
    assert hasattr(environment, "difficulty")
    assert hasattr(environment, "add")
    assert not hasattr(copied, "difficulty")  # it has no session yet to ask
    environment.close()
    assert not hasattr(environment, "difficulty")
    with pytest.raises(AttributeError, match=r"reset"):
        _ = environment.difficulty
    with pytest.raises(ResetNeeded):
        environment.call("difficulty")
    environment.reset()
    assert environment.difficulty == 3


def test_a_pickled_copy_holds_no_frame(server):
    environment = server.environment(render_mode="rgb_array")
    environment.reset()
    assert environment.latest_image is not None
    copied = pickle.loads(pickle.dumps(environment))
    assert copied.latest_image is None
    assert copied.render() is None
    copied.reset()
    assert copied.latest_image.shape == (4, 6, 3)
    copied.close()


def test_a_client_does_not_wait_longer_than_its_open_timeout(obedient):
    slow = {**obedient, "entrypoint_kwargs": {"delay": 60.0}}
    with loopback_server(slow, close_timeout=scaled(0.3)) as server:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="opening a session"):
            server.environment(open_timeout=scaled(0.5))
        assert time.monotonic() - before < scaled(20.0)
        wait_until(lambda: server.server.session_count == 0)


def test_unknown_arguments_are_refused(server):
    with pytest.raises(ConfigError, match="entry_point"):
        server.environment(remote_args={"entry_point": "x"})
    with pytest.raises(ConfigError, match="on_demand"):
        server.environment(frames="sometimes")
    with pytest.raises(ConfigError, match="no 'step_timout'; did you mean step_timeout"):
        server.environment(step_timout=3)
