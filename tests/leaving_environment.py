"""An entrypoint for tests: an environment that leaves processes running, of every kind that is hard to find."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from typing import Any

import gymnasium as gym
from gymnasium import spaces

EXPOSED = ("clone_sibling",)
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
STUBBORN = [
    *SLEEP[:3],
    "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; print(flush=True); time.sleep(600)",
]
CLONE_PARENT = 0x8000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}


class Leaving(gym.Env[Any, Any]):
    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        own_session = subprocess.Popen(SLEEP, start_new_session=True)
        without_variables = subprocess.Popen(SLEEP, start_new_session=True, env={})
        stubborn = subprocess.Popen(STUBBORN, start_new_session=True, stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        self.pids = [own_session.pid, without_variables.pid, stubborn.pid, _daemon(), _daemon()]
        self.shared = shared_memory.SharedMemory(create=True, size=64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return 0, {"pids": self.pids, "shared": self.shared.name, "pid": os.getpid()}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        if action == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        while action == 2:
            time.sleep(1.0)
        return 0, 0.0, False, False, {}

    def clone_sibling(self, seconds: float) -> int:
        """Make a child of the parent of this process, which ends after that long."""
        clone = ctypes.CDLL(None, use_errno=True).syscall
        pid = int(clone(SYS_CLONE[platform.machine()], CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
        if pid == 0:
            time.sleep(seconds)
            os._exit(7)
        return pid


def _daemon() -> int:
    """Start a process as daemons are: by two forks, in a session of its own, with a child. Returns its id."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        if os.fork():
            os._exit(0)
        subprocess.Popen(SLEEP)
        os.write(writer, str(os.getpid()).encode())
        os.close(writer)
        time.sleep(600)
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return int(file.read(32) or 0)


def create_environment() -> gym.Env[Any, Any]:
    return Leaving()
