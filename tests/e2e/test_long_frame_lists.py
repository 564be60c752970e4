"""A list of frames arrives however long it is, from one environment and from many."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from remote_gym.config import Limits
from remote_gym.testing import find_difference, loopback_server

ENTRYPOINT = """
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RenderCollection


class Painter(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Discrete(10_000)
    action_space = gym.spaces.Discrete(2)
    render_mode = "rgb_array"
    clock = 0

    def reset(self, *, seed=None, options=None):
        return np.int64(0), {}

    def step(self, action):
        self.clock += 1
        return np.int64(0), 1.0, False, False, {}

    def render(self):
        return np.full((40, 50, 3), self.clock, np.uint8)


def create_environment(render_mode=None):
    return RenderCollection(Painter())
"""


@pytest.fixture(params=["direct", "grpc"])
def server(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "painter.py").write_text(ENTRYPOINT)
    limits = Limits(message_bytes=100_000)
    with loopback_server({"entrypoint": "painter.py"}, message_limits=limits) as running:
        running.client_arguments |= {
            "connection": request.param,
            "render_mode": "rgb_array_list",
            "message_limits": limits,
        }
        yield running


def expected(first: int, last: int) -> list[np.ndarray]:
    return [np.full((40, 50, 3), number, np.uint8) for number in range(first, last + 1)]


def test_a_list_that_no_message_could_hold_arrives_and_the_next_follows(server):
    environment: gym.Env = server.environment()
    environment.reset()
    for _ in range(60):  # frames of 6 kB: 366 kB
        environment.step(0)
    assert find_difference(expected(0, 60), environment.render()) is None
    assert environment.render() == []
    environment.step(0)
    assert find_difference(expected(61, 61), environment.render()) is None


def test_the_lists_of_many_environments_arrive_too(server):
    environments = server.vector_environment(5, workers=2)
    environments.reset()
    for _ in range(20):
        environments.step(np.zeros(5, np.int64))
    for frames in (expected(0, 20), []):
        assert find_difference((frames,) * 5, environments.render()) is None
