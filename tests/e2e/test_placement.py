"""Devices, processors, variables and numbers of sessions that a server gives to each of its environments."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from remote_gym import (
    ConfigError,
    FullReason,
    RemoteEnvironment,
    RemoteGymError,
    ServerFull,
    create_remote_environment_server,
)
from remote_gym.config import SERVERS_ALONE

ENTRYPOINT = """
import os, subprocess, sys
SEEN = os.environ.get("CUDA_VISIBLE_DEVICES")  # as what is imported first sees it
import numpy as np
import gymnasium as gym

EXPOSED = ("seen", "variables", "cpus", "at_start", "childs")

class Simulator(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self):
        self.seen = SEEN
        self.variables = dict(os.environ)
        self.cpus = sorted(os.sched_getaffinity(0))
        # What the process was started with, which its libraries have read.
        pid = os.getppid() if "remote_gym.worker.loop" in sys.modules else os.getpid()
        self.at_start = open(f"/proc/{pid}/environ").read().split(chr(0))
        code = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), sorted(os.sched_getaffinity(0)))"
        self.childs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, False, {}

def create_environment(fail=False):
    if fail:
        raise RuntimeError("as asked")
    return Simulator()
"""
PLACES = pytest.mark.parametrize("place", [{}, {"command": [sys.executable]}], ids=["worker", "guest"])
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def entrypoint(tmp_path: Path) -> str:
    file = tmp_path / "simulator.py"
    file.write_text(textwrap.dedent(ENTRYPOINT))
    return str(file)


def get(environment: RemoteEnvironment, name: str) -> Any:
    return environment.get_wrapper_attr(name)


@PLACES
def test_each_session_sees_the_device_that_the_fewest_use(entrypoint, place):
    offer = {"entrypoint": entrypoint, "gpus": [0, 1, 2], **place}
    with create_remote_environment_server(offer, port=0) as server:
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(RemoteEnvironment(port=server.port)) for _ in range(4)]
            assert [get(session, "seen") for session in sessions] == ["0", "1", "2", "0"]
            assert get(sessions[1], "variables")["MUJOCO_EGL_DEVICE_ID"] == "1"
            assert get(sessions[1], "childs").startswith("1 ")
            sessions[2].close()
            assert get(stack.enter_context(RemoteEnvironment(port=server.port)), "seen") == "2"
        for _ in range(2):  # of what did not open, none is held
            with pytest.raises(RemoteGymError, match="as asked"):
                RemoteEnvironment(port=server.port, remote_args={"entrypoint_kwargs": {"fail": True}})
        with RemoteEnvironment(port=server.port) as environment:
            assert get(environment, "seen") == "0"


@PLACES
def test_variables_are_there_when_the_process_starts(entrypoint, place):
    variables = {"OMP_NUM_THREADS": "3", "WORD": "it's $HOME"}
    plain = {"entrypoint": entrypoint, **place}
    with create_remote_environment_server(
        {**plain, "variables": variables}, port=0, environments={"plain": plain}
    ) as server:
        with RemoteEnvironment(port=server.port) as environment:
            assert variables.items() <= get(environment, "variables").items()
            assert {"OMP_NUM_THREADS=3", "WORD=it's $HOME"} <= set(get(environment, "at_start"))
        with RemoteEnvironment(port=server.port, remote_args={"environment": "plain"}) as environment:
            assert "WORD" not in get(environment, "variables")


@PLACES
@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors to choose between")
def test_an_environment_and_what_it_starts_run_on_its_processors(entrypoint, place):
    offer = {"entrypoint": entrypoint, "cpus": [CPUS[1]], **place}
    with (
        create_remote_environment_server(offer, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        assert get(environment, "cpus") == [CPUS[1]]
        assert get(environment, "childs") == f"None [{CPUS[1]}]"
    assert sorted(os.sched_getaffinity(0)) == CPUS


def test_where_the_servers_python_finds_its_modules_is_no_guests_business(entrypoint, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/servers/own")
    with (
        create_remote_environment_server({"entrypoint": entrypoint, "command": [sys.executable]}, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        assert "PYTHONPATH" not in get(environment, "variables")


def test_an_environment_has_as_many_sessions_as_it_may_and_others_theirs():
    with create_remote_environment_server(
        {"entrypoint_kwargs": {"id": "CartPole-v1"}, "max_sessions": 2},
        port=0,
        environments={"other": {"entrypoint_kwargs": {"id": "Acrobot-v1"}, "max_sessions": 1}},
        queue_timeout=60,
    ) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(RemoteEnvironment(port=server.port))
            with pytest.raises(
                ServerFull, match=r"the default environment has 2 sessions.*its max_sessions of 2"
            ) as full:
                RemoteEnvironment(port=server.port)
            assert full.value.reason is FullReason.SAME_ENVIRONMENT
            stack.enter_context(RemoteEnvironment(port=server.port, remote_args={"environment": "other"}))
            with pytest.raises(ServerFull, match="the environment 'other' has 1 session, "):
                RemoteEnvironment(port=server.port, remote_args={"environment": "other"})
        with RemoteEnvironment(port=server.port) as environment:
            environment.reset()


def test_none_of_it_is_a_clients_to_say():
    with create_remote_environment_server("CartPole-v1", port=0) as server:
        for name in SERVERS_ALONE:
            with pytest.raises(ConfigError, match=f"remote_args has {name!r}"):
                RemoteEnvironment(port=server.port, remote_args={name: [0]})


def test_flags_and_a_file_say_the_same(entrypoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_A_SERVICE", "secret")
    flags = [
        "--gpus",
        "0-1,3",
        "--cpus",
        "0",
        "--variable",
        "A=b=c",
        "--variable",
        "TOKEN_OF_A_SERVICE",
        "--ssh",
        "box",
    ]
    command = [sys.executable, "-m", "remote_gym", "serve", entrypoint, *flags, "--max-sessions", "7", "--print-config"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    for line in (
        "gpus = [0, 1, 3]",
        "cpus = [0]",
        'variables = {A = "b=c", TOKEN_OF_A_SERVICE = "secret"}',
        'ssh = "box"',
        "max_sessions = 7",
    ):
        assert line in printed.splitlines(), printed
    environment, rest = printed.split("[sessions]")
    assert "max_sessions" not in environment
    (tmp_path / "server.toml").write_text(f"{environment.strip()}\nmax_sessions = 2\n\n[sessions]{rest}")
    command = [*command[:4], "--config", str(tmp_path / "server.toml"), "--print-config"]
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    assert "max_sessions = 2" in again.split("[sessions]")[0]
    assert "max_sessions = 7" in again.split("[sessions]")[1]
