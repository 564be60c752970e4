"""Compressed frames and observations, from the environment to the client."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from remote_gym import ConfigError
from remote_gym.testing import find_difference, loopback_server, play_in_lockstep

LOSSLESS = {"frame_encoding": "zstd", "observation_encoding": "zstd"}


@pytest.fixture(params=["direct", "grpc"])
def connection(request):
    return request.param


@pytest.mark.parametrize(("id_", "module"), [("CartPole-v1", "pygame"), ("ALE/Pong-v5", "ale_py")])
def test_zstd_plays_in_lockstep_with_a_local_environment(servers, id_, module, connection):
    pytest.importorskip("zstandard")
    pytest.importorskip(module)
    with servers.lend({"entrypoint_kwargs": {"id": id_}}, imports=(module,)) as server:
        remote = server.environment(render_mode="rgb_array", connection=connection, **LOSSLESS)
        local = gym.make(id_, render_mode="rgb_array")
        try:
            play_in_lockstep(local, remote, steps=40, seed=3, frames=True)
        finally:
            local.close()


def test_frames_on_demand_and_many_steps_at_once_are_compressed_too(servers, connection):
    pytest.importorskip("zstandard")
    pytest.importorskip("ale_py")
    with servers.lend({"entrypoint_kwargs": {"id": "ALE/Pong-v5"}}, imports=("ale_py",)) as server:
        arguments = {"render_mode": "rgb_array", "connection": connection, "frames": "on_demand"}
        plain, compressed = server.environment(**arguments), server.environment(**arguments, **LOSSLESS)
        assert find_difference(plain.reset(seed=5), compressed.reset(seed=5)) is None
        actions = [2, 3, 0, 2]
        assert find_difference(plain.step_many(actions), compressed.step_many(actions)) is None
        assert find_difference(plain.render(), compressed.render()) is None


def test_a_vector_environments_observations_are_compressed_too(servers, connection):
    pytest.importorskip("zstandard")
    pytest.importorskip("ale_py")
    with servers.lend({"entrypoint_kwargs": {"id": "ALE/Pong-v5"}}, imports=("ale_py",), use_thread=True) as server:
        arguments = {"num_envs": 2, "workers": 2, "connection": connection}
        plain = server.vector_environment(**arguments)
        compressed = server.vector_environment(**arguments, observation_encoding="zstd")
        assert find_difference(plain.reset(seed=5), compressed.reset(seed=5)) is None
        for _ in range(5):
            actions = plain.action_space.sample()
            assert find_difference(plain.step(actions), compressed.step(actions)) is None


@pytest.mark.parametrize("frames", ["step", "on_demand"])
def test_a_vector_environments_frames_are_compressed_too(servers, frames):
    pytest.importorskip("zstandard")
    pytest.importorskip("pygame")
    with servers.lend({"entrypoint_kwargs": {"id": "CartPole-v1"}}) as server:
        arguments = {"workers": 2, "render_mode": "rgb_array", "frames": frames}
        plain = server.vector_environment(3, **arguments)
        compressed = server.vector_environment(3, **arguments, frame_encoding="zstd")
        for environment in (plain, compressed):
            environment.reset(seed=5)
        assert find_difference(plain.render(), compressed.render()) is None


def test_jpeg_frames_look_like_the_environments(servers, connection):
    pytest.importorskip("PIL")
    pytest.importorskip("pygame")
    with servers.lend({"entrypoint_kwargs": {"id": "CartPole-v1"}}) as server:
        arguments = {"render_mode": "rgb_array", "connection": connection}
        plain = server.environment(**arguments)
        lossy = server.environment(**arguments, frame_encoding="jpeg")
        for environment in (plain, lossy):
            environment.reset(seed=1)
            environment.step(0)
        image, found = plain.render(), lossy.render()
        assert (found.shape, found.dtype) == (image.shape, image.dtype)
        assert 0 < np.abs(found.astype(int) - image).mean() < 2


def test_a_server_without_the_library_says_which_extra_it_lacks(tmp_path, monkeypatch):
    pytest.importorskip("zstandard")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lacking.py").write_text(
        "import sys\nsys.modules['zstandard'] = None\nimport gymnasium\n"
        "def create_environment():\n    return gymnasium.make('CartPole-v1')\n",
        encoding="utf-8",
    )
    with loopback_server({"entrypoint": "lacking.py"}) as server:
        with pytest.raises(ConfigError, match=r"the server lacks a library; pip install 'remote-gym\[zstd\]'"):
            server.environment(**LOSSLESS)
        server.environment().reset()
