"""An environment whose process ends, or hangs, while something that it started lives on and holds what it inherited."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

HOLDERS = ("program", "fork")
DEATHS = ("segfault", "kill", "hang")

_SECONDS = 120.0  # more than any test waits


def _start_program() -> int:
    return subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep({_SECONDS})"], start_new_session=True, close_fds=False
    ).pid


def _fork() -> int:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(_SECONDS)
        os._exit(0)
    return pid


def _die(death: str) -> None:
    print("last words", flush=True)
    if death == "segfault":
        ctypes.string_at(0)
    if death == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(_SECONDS)


class Dying(gymnasium.Env[np.ndarray[Any, Any], np.int64]):
    """Its reset's options say what it starts; its step ends it."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(len(DEATHS))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start a holder, and tell its process and what a program would inherit."""
        holder = (options or {}).get("holder")
        pid = {"program": _start_program, "fork": _fork, None: lambda: 0}[holder]()
        descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
        inheritable = []
        for descriptor in descriptors:
            try:
                if os.get_inheritable(descriptor) and descriptor > 2:
                    inheritable.append(descriptor)
            except OSError:  # that which listed the folder
                continue
        return self.observation_space.low, {"holder": pid, "inheritable": inheritable}

    def step(self, action: np.int64) -> Any:
        """End, in the way of that number."""
        _die(DEATHS[action])


def create_environment() -> Dying:
    """Create it."""
    return Dying()
