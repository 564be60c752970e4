"""Gymnasium's wrappers do around a remote environment what they do around a local one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers

from remote_gym.testing import find_difference, loopback_server, play_in_lockstep

FrameStack: Any = getattr(wrappers, "FrameStackObservation", None)
if FrameStack is None:  # gymnasium < 1

    def FrameStack(environment: gym.Env[Any, Any], size: int) -> gym.Env[Any, Any]:  # noqa: N802
        return wrappers.FrameStack(environment, size)


@pytest.fixture(scope="module")
def both() -> Any:
    """Makes a local and a remote environment of the same kind."""
    opened = []
    with loopback_server("CartPole-v1", secure=False) as server:

        def make(**arguments: Any) -> tuple[gym.Env[Any, Any], gym.Env[Any, Any]]:
            local = gym.make("CartPole-v1", **arguments)
            opened.append(local)
            return local, server.environment(**arguments)

        yield make
        for environment in opened:
            environment.close()


WRAPPERS: dict[str, Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]] = {
    "TimeLimit": lambda environment: wrappers.TimeLimit(environment, 7),
    "FrameStackObservation": lambda environment: FrameStack(environment, 3),
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "all": lambda environment: FrameStack(wrappers.TimeLimit(wrappers.RecordEpisodeStatistics(environment), 9), 2),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_remote_environment_plays_like_a_wrapped_local_one(both, name):
    local, remote = map(WRAPPERS[name], both())
    assert remote.observation_space == local.observation_space
    assert remote.action_space == local.action_space
    play_in_lockstep(without_times(local), without_times(remote), steps=200)


class without_times(gym.Wrapper):  # noqa: N801 - it reads like a function
    """Episode statistics hold how long the episode took, which is never the same."""

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "episode" in info:
            info = {**info, "episode": {key: value for key, value in info["episode"].items() if key != "t"}}
        return plain(observation), reward, terminated, truncated, info

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**arguments)
        return plain(observation), info


def plain(observation: Any) -> Any:
    return np.asarray(observation)  # gymnasium < 1 stacks frames lazily


def test_recorded_videos_have_the_same_frames(both, tmp_path):
    pytest.importorskip("moviepy")
    recorded = {}
    for name, environment in zip(("local", "remote"), both(render_mode="rgb_array"), strict=True):
        recorder = wrappers.RecordVideo(environment, str(tmp_path / name), episode_trigger=lambda episode: True)
        recorder.reset(seed=5)
        frames: list[np.ndarray] = []
        for _ in range(8):
            recorder.step(1)
            frames = list(getattr(recorder, "recorded_frames", frames)) or frames
        recorded[name] = [np.asarray(frame) for frame in frames]
        if hasattr(recorder, "stop_recording"):
            recorder.stop_recording()
        else:
            recorder.close_video_recorder()
        assert [file.stat().st_size > 0 for file in (tmp_path / name).glob("*.mp4")] == [True]
    assert find_difference(recorded["local"], recorded["remote"]) is None
    contents = [next((tmp_path / name).glob("*.mp4")).read_bytes() for name in ("local", "remote")]
    assert contents[0] == contents[1]


def test_human_rendering_shows_the_same_frames(both, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown = []
    for environment in both(render_mode="rgb_array"):
        human = wrappers.HumanRendering(environment)
        assert human.render_mode == "human"
        human.reset(seed=5)
        human.step(1)
        shown.append(pygame.surfarray.array3d(pygame.display.get_surface()))
        pygame.display.quit()
    assert len(np.unique(shown[0])) > 1
    assert find_difference(*shown) is None
