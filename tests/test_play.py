"""Playing, measuring and recording."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from remote_gym.config import Limits
from remote_gym.errors import ConfigError
from remote_gym.play import Episode, MessageSizes, Recording, Step, load_policy, play_episodes, summarise
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.worker.host import Host


@pytest.fixture
def cartpole():
    environment = gym.make("CartPole-v1", render_mode="rgb_array")
    yield environment
    environment.close()


def returns(environment, **arguments):
    return [episode.total_reward for episode in play_episodes(environment, 3, **arguments)]


def test_same_seed_plays_the_same_episodes(cartpole):
    assert returns(cartpole, seed=7) == returns(cartpole, seed=7)
    assert returns(cartpole, seed=7) != returns(cartpole, seed=8)


def test_policy_chooses_the_actions(cartpole):
    steps = []
    list(play_episodes(cartpole, 1, policy=lambda observation: int(observation[2] > 0), watch=steps.append))
    assert steps.pop(0) is None
    assert [step.action for step in steps[1:]] == [int(step.observation[2] > 0) for step in steps[:-1]]
    assert steps[-1].terminated


def test_episode_tells_each_steps_time(cartpole):
    [episode] = play_episodes(cartpole, 1, seed=0)
    assert episode.total_reward == len(episode.step_seconds)
    assert (episode.step_seconds > 0).all()
    assert episode.seconds > episode.step_seconds.sum()


def test_summary_puts_steps_of_all_episodes_together():
    episodes = [
        Episode(total_reward=1.0, step_seconds=np.array([0.1, 0.1]), seconds=0.5),
        Episode(total_reward=4.0, step_seconds=np.array([0.3]), seconds=0.5),
    ]
    summary = summarise(episodes)
    assert (summary.episodes, summary.steps, summary.mean_return) == (2, 3, 2.5)
    assert summary.steps_per_second == 3.0
    assert summary.latency_p50 == pytest.approx(0.1)
    assert 0.1 < summary.latency_p99 <= 0.3


@pytest.mark.parametrize("id_", ["CartPole-v1", "FrozenLake-v1", "Blackjack-v1"])
def test_message_sizes_are_those_that_travel(id_):
    environment = gym.make(id_, render_mode="rgb_array")
    host = Host(environment, send_frames=True, limits=Limits())
    reset = pb.Request(sequence=1)
    reset.reset.SetInParent()
    host.answer(reset.SerializeToString())
    action = environment.action_space.sample()
    request = pb.Request(sequence=2)
    encode_action(compile_layout(environment.action_space), action, request.step, Limits())
    sent = request.SerializeToString()
    answered = host.answer(sent)

    twin = gym.make(id_, render_mode="rgb_array")
    twin.reset()
    step = Step(action, *twin.step(action))
    # Two of these are random: what counts is that every part is there.
    assert MessageSizes(twin).measure(step, twin.render()) == pytest.approx(len(sent) + len(answered), abs=16)
    host.close()
    twin.close()


def record(path, shape):
    with Recording(path, fps=10) as recording:
        for number in range(5):
            recording.add(np.full((*shape, 3), 40 * number, np.uint8))


def test_gif_holds_every_frame(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    record(tmp_path / "episode.gif", (64, 48))
    with imageio.get_reader(tmp_path / "episode.gif") as reader:
        frames = [np.asarray(frame)[..., :3] for frame in reader]
    assert [round(float(frame.mean()) / 40) for frame in frames] == [0, 1, 2, 3, 4]


def test_mp4_holds_every_frame_though_sides_are_odd(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    record(tmp_path / "episode.mp4", (63, 49))
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "episode.mp4"))[0] == 5


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups and no forks")
def test_ffmpeg_survives_ctrl_c_and_no_code_of_ours_runs_in_a_fork(tmp_path, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append((self, options))

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with Recording(tmp_path / "episode.mp4", fps=10) as recording:
        for number in range(5):
            recording.add(np.full((48, 64, 3), 40 * number, np.uint8))
            process, options = started[-1]
            assert options["preexec_fn"] is None
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "episode.mp4"))[0] == 5
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert "IMAGEIO_FFMPEG_NO_PREVENT_SIGINT" not in os.environ


def test_gif_is_made_small(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    with Recording(tmp_path / "large.gif", fps=10) as recording:
        recording.add(np.zeros((640, 960, 3), np.uint8))
    assert imageio.imread(tmp_path / "large.gif").shape[:2] == (214, 320)


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_recording_of_nothing_leaves_no_file(ending, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    with Recording(tmp_path / f"episode.{ending}", fps=10):
        pass
    assert list(tmp_path.iterdir()) == []


def test_recording_refuses_other_kinds_of_file(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.gif or \.mp4"):
        Recording(tmp_path / "episode.avi", fps=10)
    with pytest.raises(ConfigError, match="there is no folder"):
        Recording(tmp_path / "missing" / "episode.gif", fps=10)


@pytest.mark.parametrize("frame", [None, "text", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_recording_refuses_what_is_no_image(frame, tmp_path):
    pytest.importorskip("imageio")
    with (
        pytest.raises(ConfigError, match=r"uint8 images of shape \(height, width, 3\)"),
        Recording(tmp_path / "episode.gif", fps=10) as recording,
    ):
        recording.add(frame)


def test_policy_is_found_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "agent_of_this_test.py").write_text("def act(observation):\n    return 3\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_policy("agent_of_this_test:act")(None) == 3
    with pytest.raises(ConfigError, match="name a callable"):
        load_policy("agent_of_this_test:number")
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_policy("agent_of_this_test:missing")


def test_policy_that_raises_is_named_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "broken_agent_of_this_test.py").write_text("def act(observation):\n    return observation.missing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    policy = load_policy("broken_agent_of_this_test:act")
    with pytest.raises(ConfigError, match=r"agent_of_this_test:act' raised AttributeError: .*agent.*\.py, line 2"):
        policy(None)
    (tmp_path / "faulty_agent_of_this_test.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"cannot be imported: ZeroDivisionError: .*agent.*\.py, line 1"):
        load_policy("faulty_agent_of_this_test:act")


@pytest.mark.parametrize("name", ["agent", "agent:", ":act"])
def test_policy_without_its_two_parts_is_refused(name):
    with pytest.raises(ConfigError, match="MODULE:CALLABLE"):
        load_policy(name)
