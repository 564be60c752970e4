"""stable-baselines3 takes a remote environment for a local one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remote_gym.testing import loopback_server

pytest.importorskip("stable_baselines3", reason="stable-baselines3 is in no lock; the nox session 'sb3' installs it")

EXPLORATION = Path(__file__).parents[2] / "exploration"


@pytest.mark.parametrize("id_", ["CartPole-v1", "MountainCarContinuous-v0", "FrozenLake-v1"])
def test_sb3_checker_accepts_a_remote_environment(id_):
    from stable_baselines3.common.env_checker import check_env

    with loopback_server(id_) as server:
        check_env(server.environment())


def test_sb3_ppo_reaches_the_same_returns_as_locally(monkeypatch):
    monkeypatch.syspath_prepend(EXPLORATION)
    monkeypatch.setattr(sys, "argv", [""])
    from train_with_stable_baselines3 import compare

    remote, local = compare(timesteps=4_000, seed=3)
    assert len(remote) > 50
    assert remote == local


def test_sb3_ppo_learns_on_a_remote_vector_environment(monkeypatch):
    monkeypatch.syspath_prepend(EXPLORATION)
    monkeypatch.setattr(sys, "argv", [""])
    from train_vector_with_stable_baselines3 import train

    returns = train(num_envs=8, workers=2, timesteps=20_000, seed=1)
    assert sum(returns[-20:]) > 2 * sum(returns[:20])


def test_sb3_sets_what_is_exposed_and_is_refused_what_is_not(tmp_path, monkeypatch):
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    monkeypatch.chdir(tmp_path)
    entrypoint = "import gymnasium\nEXPOSED = ('gravity',)\ndef create_environment():\n"
    (tmp_path / "entrypoint.py").write_text(entrypoint + "    return gymnasium.make('CartPole-v1')\n")
    with loopback_server({"entrypoint": "entrypoint.py"}) as server:
        remote = server.environment()
        environments = DummyVecEnv([lambda: remote])
        environments.set_attr("gravity", 5.5)
        assert (environments.get_attr("gravity"), remote.call("gravity")) == ([5.5], 5.5)
        with pytest.raises(AttributeError, match="'gravitation' in the entrypoint's EXPOSED"):
            environments.set_attr("gravitation", 5.5)
        wrapped = DummyVecEnv([lambda: Monitor(remote)])
        wrapped.env_method("set_wrapper_attr", "gravity", 6.5)
        assert (wrapped.get_attr("gravity"), remote.call("gravity")) == ([6.5], 6.5)


def test_sb3_makes_environments_that_ask_for_frames_and_send_none_until_it_looks():
    from stable_baselines3.common.env_util import make_vec_env

    with loopback_server("CartPole-v1") as server:
        place = {"url": server.server.url, "port": server.server.port}
        arguments = {**place, "client_credentials_paths": server.client_credentials_paths}
        environments = make_vec_env("remote_gym/Remote-v0", n_envs=2, env_kwargs=arguments)
        assert environments.get_attr("render_mode") == ["rgb_array"] * 2
        environments.reset()
        environments.step([0, 1])
        for environment in environments.envs:
            assert environment.unwrapped._reader.frame is None
        assert environments.render().shape == (2 * 400, 600, 3)
        environments.step([0, 1])
        for environment in environments.envs:
            assert environment.unwrapped._reader.frame is not None
        environments.close()
