"""Arrays of other libraries are arrays, wherever an environment or a client has them."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from arrays_entrypoint import Foreign, maker
from remote_gym.testing import find_difference, loopback_server

LIBRARIES = ["array", "dlpack", "torch", "jax"]


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        with loopback_server({"entrypoint": "arrays_entrypoint.py"}, use_thread=True) as found:
            yield found


@pytest.fixture(params=LIBRARIES)
def library(request) -> str:
    if request.param in ("torch", "jax"):
        pytest.importorskip(request.param, reason=f"{request.param} is not installed, so its arrays were not tried")
    return request.param


def test_observations_rewards_flags_infos_and_frames_arrive_as_numpys(server, library):
    remote = server.environment(
        remote_args={"entrypoint_kwargs": {"library": library}}, render_mode="rgb_array", frames="step"
    )
    local = Foreign(library, "rgb_array")
    assert find_difference(local.reset(seed=1), remote.reset(seed=1)) is None
    action = np.zeros(2, np.float32)
    for _ in range(4):
        expected, found = local.step(action), remote.step(action)
        assert find_difference(expected, found) is None
        assert type(found[0]["x"]) is type(found[1]) is type(found[3]) is np.ndarray
        assert found[0]["x"].flags.writeable
        assert (remote.render() == np.asarray(found[4]["nested"][0]["array"])).all()
    assert found[3]


def test_actions_and_options_of_other_libraries_reach_the_environment_as_numpys(server, library):
    remote = server.environment(remote_args={"entrypoint_kwargs": {"library": library}})
    make = maker(library)
    remote.reset(options={"array": make([1, 2], "int32")})
    for action in (make([0.5, -0.5], "float32"), [make(0.5, "float32"), -0.5]):
        info = remote.step(action)[4]
        assert find_difference(np.array([0.5, -0.5], np.float32), info["action"]) is None


def test_several_environments_in_one_worker_are_stepped_as_one(server, library):
    environments = server.vector_environment(2, remote_args={"entrypoint_kwargs": {"library": library}})
    observations, infos = environments.reset()
    assert find_difference(np.array([[0, 1], [0, 1]], np.float32), observations) is None
    assert infos["lives"].tolist() == [3, 3]
    actions = maker(library)([[0.5, 0], [0, 0.5]], "float32")
    observations, rewards, terminations, truncations, infos = environments.step(actions)
    assert observations.tolist() == [[0.5, 0], [0, 0.5]]
    assert rewards.tolist() == [0.5, 0.5]
    assert (terminations.any(), truncations.all()) == (False, True)
    assert infos["a"].tolist() == [1, 1]


def test_gymnasiums_own_functional_environment_plays_as_a_local_one():
    for name in ("jax", "flax"):
        pytest.importorskip(name, reason=f"{name} is not installed, so phys2d/CartPole-v1 was not tried")
    with loopback_server("phys2d/CartPole-v1") as server:
        local, remote = gym.make("phys2d/CartPole-v1"), server.environment()
        assert local.observation_space == remote.observation_space
        for seed in range(3):
            assert find_difference(local.reset(seed=seed), remote.reset(seed=seed)) is None
            done = False
            while not done:
                action = local.action_space.sample()
                expected = local.step(action)
                assert find_difference(expected, remote.step(action)) is None
                done = expected[2] or expected[3]
        local.close()


def test_gymnasiums_own_functional_vector_environment_is_served(server):
    for name in ("jax", "flax"):
        pytest.importorskip(name, reason=f"{name} is not installed, so phys2d/CartPole-v1 was not tried")
    remote = server.vector_environment(3, remote_args={"entrypoint_kwargs": {"library": "jax", "own": False}})
    local = gym.make_vec("phys2d/CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    assert np.array_equal(local.reset(seed=1)[0], remote.reset(seed=1)[0])
    for _ in range(20):
        actions = remote.action_space.sample()
        for expected, found in zip(local.step(actions)[:4], remote.step(actions)[:4], strict=True):
            assert np.array_equal(expected, found)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_bfloat16_is_refused_by_name(server, library):
    pytest.importorskip(library, reason=f"{library} is not installed, so its bfloat16 was not tried")
    remote = server.environment(remote_args={"entrypoint_kwargs": {"library": library}})
    remote.reset()
    with pytest.raises(ValueError, match="bfloat16"):
        remote.step(maker(library)([0.5, 0.5], "bfloat16"))
