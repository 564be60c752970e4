"""An asynchronous environment returns what a local one does: bit for bit, and kind for kind."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from assorted import Assorted
from awaited import LOOPS, Awaited
from environments import Sampler, make_spaces
from remote_gym.testing import loopback_server, play_in_lockstep

STEPS = 500


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_a_registered_environment_plays_in_lockstep_with_a_local_one(connection, loop, servers):
    with servers.lend("CartPole-v1") as server:
        remote = Awaited(loop, **server._arguments({"connection": connection}))
        local = gym.make("CartPole-v1")
        try:
            assert remote.observation_space == local.observation_space
            assert remote.action_space == local.action_space
            assert remote.awaited.metadata["render_fps"] == local.metadata["render_fps"]
            play_in_lockstep(local, remote, steps=STEPS, seed=7)
        finally:
            remote.close()
            local.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_frames_and_large_observations_are_those_of_a_local_one(connection, loop, servers):
    """Of 210 x 160 x 3 bytes, which come in several records and are read into memory of their own."""
    ale = pytest.importorskip("ale_py")
    gym.register_envs(ale)
    with servers.lend("ALE/Pong-v5", imports=("ale_py",)) as server:
        remote = Awaited(loop, **server._arguments({"connection": connection, "render_mode": "rgb_array"}))
        local = gym.make("ALE/Pong-v5", render_mode="rgb_array")
        try:
            play_in_lockstep(local, remote, steps=60, seed=7, frames=True)
        finally:
            remote.close()
            local.close()


@pytest.mark.parametrize("name", make_spaces())
def test_an_environment_of_any_space_plays_in_lockstep_with_a_local_one(name, monkeypatch, tests_folder):
    monkeypatch.chdir(tests_folder)
    arguments = {"entrypoint": "environments.py", "entrypoint_kwargs": {"space": name}}
    with loopback_server(arguments, use_thread=True) as server:
        remote = Awaited(**server._arguments({}))
        try:
            play_in_lockstep(Sampler(make_spaces()[name]), remote, steps=100, seed=11)
        finally:
            remote.close()


def test_values_of_every_kind_play_in_lockstep_with_local_ones(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    with loopback_server({"entrypoint": "assorted.py"}, use_thread=True) as server:
        remote = Awaited(**server._arguments({}))
        try:
            play_in_lockstep(Assorted(), remote, steps=200, seed=3)
        finally:
            remote.close()
