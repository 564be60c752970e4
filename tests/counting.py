"""An environment that notes in a file when it is made and closed, and whose constructor waits while it is told to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

ENTRYPOINT = """
import os, pathlib, time
import gymnasium as gym
import numpy as np

FOLDER = pathlib.Path({folder!r})
EXPOSED = ("level", "double", "np_random", "gpu")

def note(line):
    with (FOLDER / "notes").open("a") as file:
        file.write(line + "\\n")

class Counting(gym.Env):
    metadata = {{"render_modes": ["rgb_array"]}}
    observation_space = gym.spaces.Box(0, 1, (2,), np.float64)
    action_space = gym.spaces.Discrete(9)

    def __init__(self, task, env_id, render_mode):
        self.task, self.env_id, self.render_mode, self.level = task, env_id, render_mode, 1
        self.gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        note("begun 0 %d %d" % (task, os.getpid()))
        while (FOLDER / "blocked").exists():
            time.sleep(0.01)
        if (FOLDER / "broken").exists():
            raise RuntimeError("no simulator for you")
        note("made %d %d %d" % (env_id, task, os.getpid()))

    def double(self):
        return 2 * self.level

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        note("reset %d %d %d" % (self.env_id, self.task, os.getpid()))
        return self.np_random.random(2), {{"pid": os.getpid(), "task": self.task, "env_id": self.env_id}}

    def step(self, action):
        if action == 1:
            raise ValueError("as asked")
        if action == 2:
            print("the secret of this session", flush=True)
        if action == 3:
            os._exit(7)
        return self.np_random.random(2), 1.0, action == 4, False, {{}}

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        note("closed %d %d %d" % (self.env_id, self.task, os.getpid()))

def create_environment(task=0, env_id=0, render_mode=None):
    return Counting(task, env_id, render_mode)
"""
FAILS, PRINTS, DIES, ENDS = 1, 2, 3, 4
"""Actions."""


class Note(NamedTuple):
    """One line that an environment has written."""

    what: str
    env_id: int
    task: int
    pid: int


class Counted:
    """The environments of one test.

    Args:
        folder: Its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "counting_entrypoint.py"
        self._file.write_text(ENTRYPOINT.format(folder=str(folder)))

    def offer(self, **keys: Any) -> dict[str, Any]:
        """One of them, as a server offers it."""
        return {"entrypoint": os.fspath(self._file), **keys}

    def notes(self, what: str) -> list[Note]:
        """What they have noted of that kind, in order."""
        file = self._folder / "notes"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [Note(kind, *map(int, rest)) for kind, *rest in lines if kind == what]

    def count(self, what: str) -> int:
        """How often they have noted that."""
        return len(self.notes(what))

    def block(self, name: str = "blocked") -> None:
        """Let constructors wait from now on, or fail where that is the name."""
        (self._folder / name).touch()

    def unblock(self, name: str = "blocked") -> None:
        """Let them go on."""
        (self._folder / name).unlink()
