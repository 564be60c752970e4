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
