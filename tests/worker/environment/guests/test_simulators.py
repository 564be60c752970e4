"""Real simulators of earlier years in Pythons of their own, beside runs inside of these."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from interpreters import SIMULATORS, python_of
from remote_gym import launch
from waiting import scaled

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

STEPS = 500
SEEDS = {"retro": 7, "vizdoom": 7, "procgen": None}  # whose `seed` takes none

ENTRYPOINTS = {
    # With the game that it brings along. One emulator a process is all that it can.
    "retro": """
        import retro

        def create_environment(render_mode=None):
            return retro.make("Airstriker-Genesis")
    """,
    "procgen": """
        import gym

        def create_environment(render_mode=None):
            levels = {"rand_seed": 7, "start_level": 0, "num_levels": 3}
            return gym.make("procgen:procgen-coinrun-v0", render_mode=render_mode, **levels)
    """,
    "vizdoom": """
        import gymnasium
        import vizdoom.gymnasium_wrapper

        def create_environment(render_mode=None):
            return gymnasium.make("VizdoomDeadlyCorridor-v1", render_mode=render_mode)
    """,
}
"""Entrypoints by the modules of their simulators."""

PLAY = """
import hashlib
import random

def digest(value):
    if isinstance(value, dict):
        return {str(key): digest(each) for key, each in sorted(value.items())}
    return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]

def play(environment, reset, step, seed, steps):
    space, chooser = environment.action_space, random.Random(3)
    def choose():
        if hasattr(space, "nvec"):
            return [chooser.randrange(int(n)) for n in space.nvec]
        n = int(space.n)
        return chooser.randrange(n) if type(space).__name__ == "Discrete" else [chooser.randrange(2) for _ in range(n)]
    import numpy
    lines = [digest(reset(seed))]
    for _ in range(steps):
        action = choose()
        observation, reward, ended = step(numpy.array(action, space.dtype) if isinstance(action, list) else action)
        lines.append([digest(observation), float(reward), bool(ended)])
        if ended:
            lines.append(digest(reset(None)))
    return lines
"""

INSIDE = """
import json, sys
from entrypoint import create_environment
from play import play

environment = create_environment(render_mode="rgb_array")
old = not hasattr(environment, "np_random") or type(environment).__module__.split(".")[0] in ("gym", "retro")

def reset(seed):
    if not old:
        return environment.reset(seed=seed)[0]
    if seed is not None:
        environment.seed(seed)
    return environment.reset()

def step(action):
    returned = environment.step(action)
    return returned[0], returned[1], returned[2] if len(returned) == 4 else returned[2] or returned[3]

json.dump(play(environment, reset, step, *json.loads(sys.argv[2])), open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_simulator_of_its_own_python_plays_there_as_it_does_by_itself(simulator, tmp_path: Path):
    python = python_of(SIMULATORS[simulator])
    (tmp_path / "entrypoint.py").write_text(textwrap.dedent(ENTRYPOINTS[simulator]))
    (tmp_path / "play.py").write_text(PLAY)
    (tmp_path / "inside.py").write_text(INSIDE)
    file = tmp_path / "inside.json"
    command = [python, "-W", "ignore", "inside.py", str(file), json.dumps([SEEDS[simulator], STEPS])]
    subprocess.run(command, check=True, timeout=scaled(300), cwd=tmp_path)
    namespace: dict[str, object] = {}
    exec(PLAY, namespace)
    with launch(tmp_path / "entrypoint.py", python=python) as server:
        environment = server.environment(render_mode="rgb_array")

        def step(action):
            observation, reward, terminated, truncated, _info = environment.step(action)
            return observation, reward, terminated or truncated

        lines = namespace["play"](
            environment, lambda seed: environment.reset(seed=seed)[0], step, SEEDS[simulator], STEPS
        )
        frame = environment.render()
        assert frame.ndim == 3
        assert frame.any()
    assert json.loads(json.dumps(lines)) == json.loads(file.read_text())
