"""Whole episodes in other Pythons, beside those that programs of these play by themselves."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from interpreters import NEW, OLD, RENDERING, Interpreter, python_of
from remote_gym import RemoteEnvironment, RemoteEnvironmentError, create_remote_environment_server
from remote_gym.config import Limits
from remote_gym.v1 import worker_pb2
from remote_gym.worker.environment.entrypoint import create_environment
from waiting import scaled

STEPS = 500
WATCHED = """
try:
    import gymnasium as gym
    from gymnasium.wrappers import TimeLimit
except ImportError:
    import gym
    from gym.wrappers import TimeLimit
import numpy

DRAWN = False  # whether frames are drawn here, rather than by pygame, which not every Python has

class Watched(gym.Wrapper):
    def reset(self, **arguments):
        self.count = 0
        found = self.env.reset(**arguments)
        self.last = found[0] if isinstance(found, tuple) else found
        return found

    def step(self, action):
        found = self.env.step(action)
        self.count += 1
        self.last = found[0]
        info = dict(found[-1], count=self.count, angle=found[0][2], twice=2 * found[0])
        return found[:-1] + (info,)

    def render(self, *arguments, **keywords):
        if not DRAWN:
            return self.env.render(*arguments, **keywords)
        assert (keywords.get("mode") or (arguments or ("rgb_array",))[0]) == "rgb_array"
        bytes_of_state = numpy.frombuffer(numpy.asarray(self.last, "<f8").tobytes(), "uint8")
        return numpy.resize(bytes_of_state, (20, 30, 3))

def create_environment(render_mode=None):
    knows_mode = gym.__name__ == "gymnasium" or gym.__version__.startswith("0.26")
    chosen = {"render_mode": render_mode} if render_mode is not None and knows_mode else {}
    environment = Watched(TimeLimit(gym.make("CartPole-v1", **chosen).unwrapped, max_episode_steps=20))
    environment.count = 0
    return environment
"""
"""An entrypoint whose episodes end in either way, with infos that are not empty."""
PLAY = """
import hashlib, random

def plain(value):
    if isinstance(value, dict):
        return [[key, plain(value[key])] for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return [str(value.dtype), list(value.shape), value.tobytes().hex()] if hasattr(value, "dtype") else repr(value)

def play(steps, reset, step, frame):
    def note(*values):
        text = repr(plain(frame()))
        lines.append([plain(values), hashlib.sha256(text.encode()).hexdigest(), len(text) > 1000])
    lines, chooser = [], random.Random(3)
    note(*reset(7))
    for _ in range(steps):
        found = step(chooser.randrange(2))
        note(*found)
        if found[2] or found[3]:
            note(*reset(None))
    return lines
"""
"""Play some steps, and note observations, rewards, both flags, infos and digests of frames."""
INSIDE = """
import json, sys
import watched
gym = watched.gym
old = gym.__name__ == "gym" and tuple(map(int, gym.__version__.split(".")[:2])) < (0, 26)
environment = watched.create_environment("rgb_array")

def reset(seed):
    if not old:
        return environment.reset(seed=seed)
    if seed is not None:
        environment.seed(seed)
    return environment.reset(), {}

def step(action):
    found = environment.step(action)
    if not old:
        return found
    observation, reward, done, info = found
    truncated = bool(info.get("TimeLimit.truncated"))
    return observation, reward, done and not truncated, truncated, info

lines = play(STEPS, reset, step, environment.render)
json.dump(lines, open(sys.argv[1], "w"))
"""


def played_inside(python: str, folder: Path, *, is_drawn: bool) -> list[Any]:
    """Lines of a program of another Python that plays the environment by itself."""
    (folder / "watched.py").write_text(WATCHED.replace("DRAWN = False", f"DRAWN = {is_drawn}"))
    program, file = folder / "inside.py", folder / "inside.json"
    program.write_text(f"STEPS = {STEPS}\n{PLAY}{INSIDE}")
    command = [python, "-W", "ignore", str(program), str(file)]
    subprocess.run(command, check=True, timeout=scaled(120), cwd=folder)
    lines: list[Any] = json.loads(file.read_text())
    assert all(has_frame for *_, has_frame in lines)
    assert len({frame for _, frame, _ in lines}) > STEPS / 2
    flags = {tuple(values[2:4]) for values, *_ in lines if len(values) == 5}
    knows_both = "gym-0.10" not in python
    assert flags == {("False", "False"), ("True", "False"), *([("False", "True")] if knows_both else [])}
    return lines


def played_there(environment: Any) -> list[Any]:
    """The same of one that is reached from here."""
    names: dict[str, Any] = {}
    exec(PLAY, names)
    lines = names["play"](STEPS, lambda seed: environment.reset(seed=seed), environment.step, environment.render)
    found: list[Any] = json.loads(json.dumps(lines))
    return found


@pytest.mark.parametrize("interpreter", [*OLD, *NEW], ids=str)
def test_an_episode_in_another_python_is_the_one_that_it_has_itself(interpreter: Interpreter, tmp_path):
    python = python_of(interpreter)
    lines = played_inside(python, tmp_path, is_drawn=True)
    launch = worker_pb2.Launch(root=str(tmp_path), entrypoint="watched.py", limits=asdict(Limits()), anywhere=True)
    launch.render_mode = "rgb_array"
    launch.guest.command.extend([python, "-W", "ignore"])
    environment = create_environment(launch, {}, None, own_process=False).environment
    assert played_there(environment) == lines
    if interpreter.library in ("gym 0.10", "gym 0.21"):
        with pytest.raises(RemoteEnvironmentError, match=r"takes no options, as is so before Gym 0\.22"):
            environment.reset(options={"low": 0.0})
    environment.close()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("interpreter", RENDERING, ids=str)
def test_an_episode_that_a_trainer_plays_over_a_server_is_the_one_there_with_its_frames(interpreter, tmp_path):
    python = python_of(interpreter)
    lines = played_inside(python, tmp_path, is_drawn=False)
    offer = {"entrypoint": str(tmp_path / "watched.py"), "command": [python, "-W", "ignore"]}
    with (
        create_remote_environment_server(offer, port=0) as server,
        RemoteEnvironment(port=server.port, render_mode="rgb_array") as environment,
    ):
        assert played_there(environment) == lines
