"""An entrypoint for tests: an environment that forks a child, whose way out of the environment's code is chosen."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium import spaces

EXPOSED = ("ended", "call")
SECONDS = 20.0
"""How long a child may take to end."""


class Forking(gym.Env[Any, Any]):
    """Forks in one of its methods, and waits there until the child has ended.

    Args:
        where: The method.
        how: What the child does.
        log: File to note in that exit handlers have run, and in which process.

    Attributes:
        ended: Exit statuses of the children so far; minus the signal's number where one ended it, None where it hung.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}
    observation_space = spaces.Discrete(1000)
    action_space = spaces.Discrete(2)
    render_mode = "rgb_array"

    def __init__(self, where: str, how: str, log: str) -> None:
        self._where = where
        self._how = how
        self._count = 0
        self._log = Path(log)
        self.ended: list[int | None] = []
        atexit.register(self._note, f"exit handler of {os.getpid()}")
        self._visit("__init__")

    def _note(self, line: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{line} in {os.getpid()}\n")

    def _visit(self, where: str) -> None:
        if where != self._where:
            return
        if self._how == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=self._note, args=("target",))
            process.start()
            process.join(SECONDS)
            self.ended.append(process.exitcode)
            process.kill()
            return
        child = os.fork()
        if child:
            self._note(f"child {child}")
            self.ended.append(_wait(child))
        elif self._how == "raise":
            raise RuntimeError("raised in the child")
        elif self._how == "exit":
            sys.exit(3)
        # or it returns

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._visit("reset")
        self._count = 0
        return 0, {"pid": os.getpid()}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._visit("step")
        self._count += 1
        return self._count, 0.0, False, False, {"pid": os.getpid()}

    def render(self) -> Any:
        import numpy as np

        self._visit("render")
        return np.zeros((2, 2, 3), np.uint8)

    def call(self) -> int:
        self._visit("call")
        return os.getpid()

    def close(self) -> None:
        self._note("closed")
        self._visit("close")


def _wait(child: int) -> int | None:
    """How it has ended; None, and then it is killed, if it has not."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


def create_environment(where: str, how: str, log: str) -> gym.Env[Any, Any]:
    return Forking(where, how, log)
