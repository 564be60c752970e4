"""EnvPool's and SuperSuit's vector environments are served as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pools_entrypoint
from remote_gym import ConfigError, RemoteEnvironmentError
from remote_gym.testing import find_difference, loopback_server


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        with loopback_server({"entrypoint": "pools_entrypoint.py"}) as found:
            yield found


@pytest.fixture
def open_pool(server):
    def opened(num_envs: int, workers: int = 1, **kwargs):
        return server.vector_environment(num_envs, workers=workers, remote_args={"entrypoint_kwargs": kwargs})

    return opened


def test_unbatched_spaces_and_infos_in_a_list_become_gymnasiums(open_pool):
    environments = open_pool(4, workers=2)
    assert environments.single_observation_space == pools_entrypoint.Unbatched.observation_space
    assert environments.observation_space.shape == (4, 2)
    observations, infos = environments.reset(seed=3, options={"a": 1})
    # Each worker's environments get the seed of its first one.
    assert observations[:, 0].tolist() == [3, 3, 5, 5]
    assert infos["options"]["a"].tolist() == [1, 1, 1, 1]
    observations, rewards, terminations, _, infos = environments.step(np.array([0, 1, 2, 1]))
    assert observations[:, 1].tolist() == [0, 1, 2, 1]
    assert rewards.dtype == np.float32
    assert terminations.dtype == np.uint8
    assert infos["_last"].tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"kind": "nothing"}, "make_gymnasium"),
        ({"kind": "stable-baselines"}, "gymnasium.vector.VectorEnv"),
    ],
)
def test_what_is_none_of_them_is_named_with_what_to_do(open_pool, kwargs, says):
    with pytest.raises(ConfigError, match=says):
        open_pool(2, **kwargs)


def test_a_mask_of_some_environments_is_refused(open_pool):
    environments = open_pool(2)
    environments.reset()
    with pytest.raises(RemoteEnvironmentError, match="reset all"):
        environments.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.filterwarnings("ignore:.*precision lowered")  # of EnvPool's own spaces
@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Pong-v5"])
def test_an_envpool_plays_as_a_local_one(open_pool, task):
    pytest.importorskip("envpool", reason="envpool is not installed, so its pools were not tried")
    environments = open_pool(6, kind="envpool", task=task, seed=7)
    local = pools_entrypoint.envpool(task, 6, seed=7)
    assert environments.single_action_space == local.action_space
    assert environments.single_observation_space == local.observation_space
    assert environments.metadata["autoreset_mode"].value == "NextStep"
    assert find_difference(local.reset(), environments.reset()) is None
    environments.action_space.seed(1)
    steps = 60 if task != "Pong-v5" else 20
    for _ in range(steps):
        actions = environments.action_space.sample()
        assert find_difference(local.step(actions), environments.step(actions)) is None
    local.close()


def test_env_ids_count_through_all_workers(open_pool):
    pytest.importorskip("envpool", reason="envpool is not installed, so its pools were not tried")
    environments = open_pool(6, workers=2, kind="envpool", task="CartPole-v1")
    _, infos = environments.reset()
    for _ in range(2):
        assert infos["env_id"].tolist() == infos["players"]["env_id"].tolist() == list(range(6))
        assert infos["env_id"].dtype == np.int32
        infos = environments.step(environments.action_space.sample())[4]


@pytest.mark.parametrize(
    ("options", "says"), [({"batch_size": 2}, "batch_size"), ({"env_type": "dm"}, "make_gymnasium")]
)
def test_pools_that_cannot_be_served_are_named_with_what_to_do(open_pool, options, says):
    pytest.importorskip("envpool", reason="envpool is not installed, so its pools were not tried")
    with pytest.raises(ConfigError, match=says):
        open_pool(4, kind="envpool", task="CartPole-v1", **options)


@pytest.mark.filterwarnings("ignore:The old environment creation API")  # of PettingZoo's, which imports so itself
def test_supersuits_vector_environments_play_as_local_ones(open_pool):
    for name in ("supersuit", "pettingzoo"):
        pytest.importorskip(name, reason=f"{name} is not installed, so its environments were not tried")
    environments = open_pool(4, kind="supersuit")
    local = pools_entrypoint.supersuit(4)
    assert environments.single_observation_space == local.observation_space
    assert environments.metadata["autoreset_mode"].value == "SameStep"
    assert np.array_equal(local.reset(seed=1)[0], environments.reset(seed=1)[0])
    for _ in range(20):
        actions = environments.action_space.sample()
        expected, found = local.step(actions), environments.step(actions)
        for one, other in zip(expected[:4], found[:4], strict=True):
            assert find_difference(one, other) is None
