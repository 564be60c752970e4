"""Environments on another host, by OpenSSH's own client and server."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from remote_gym import (
    ConfigError,
    RemoteEnvironment,
    RemoteVectorEnv,
    SessionLost,
    create_remote_environment_server,
)
from served import served
from sshd import HOST, Sshd, spoil, sshd
from waiting import wait_until

SIMULATOR = """
import os, subprocess, sys, time
import numpy as np
import gymnasium as gym

EXPOSED = ("pid", "connection", "variables", "cpus")

class Simulator(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self):
        self.pid = os.getpid()
        self.variables = dict(os.environ)
        self.cpus = sorted(os.sched_getaffinity(0))
        self.connection = os.environ.get("SSH_CONNECTION", "")
        self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(3, np.float32), {}

    def step(self, action):
        if action == 1:
            time.sleep(1000)
        return np.full(3, action, np.float32), 1.0, False, False, {}

def create_environment():
    return Simulator()
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    with sshd(folder) as running:
        monkeypatch.setenv("PATH", f"{running.folder}{os.pathsep}{os.environ['PATH']}")
        yield running


@pytest.fixture
def offer(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "simulator.py"
    file.write_text(textwrap.dedent(SIMULATOR))
    return {"entrypoint": str(file), "python": sys.executable, "ssh": HOST}


def in_group(pid: int) -> list[psutil.Process]:
    """All processes of the group that a process is in."""
    group, found = os.getpgid(pid), []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                found.append(process)
    return found


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(map(psutil.Process.is_running, processes))


def clients_of(host: Sshd) -> list[psutil.Process]:
    """Processes of ssh that use the host's configuration."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(host.configuration) in (process.info["cmdline"] or []):
            found.append(process)
    return found


def test_an_environment_runs_on_the_host_and_nothing_is_left_there(host, offer):
    with create_remote_environment_server(offer, port=0) as server:
        with RemoteEnvironment(port=server.port) as environment:
            environment.reset(seed=1)
            observation, reward, *_ = environment.step(2)
            assert np.array_equal(observation, np.full(3, 2, np.float32))
            assert reward == 1.0
            assert environment.get_wrapper_attr("connection").startswith("127.0.0.1 ")
            group = in_group(environment.get_wrapper_attr("pid"))
            assert len(group) >= 2
        wait_until(lambda: are_gone(group))
    wait_until(lambda: not clients_of(host))


def test_sessions_share_one_connection(host, offer):
    with create_remote_environment_server(offer, port=0, check=False) as server:
        with contextlib.closing(RemoteVectorEnv(port=server.port, num_envs=3, workers=3)) as environment:
            environment.reset()
            assert len(set(environment.get_attr("pid"))) == 3
            assert len(set(environment.get_attr("connection"))) == 1
        assert host.log.read_text().count("Accepted publickey") == 1


def test_more_sessions_than_the_host_allows_on_one_connection_make_their_own(tmp_path, offer, monkeypatch):
    folder = tmp_path / "sshd"
    folder.mkdir()
    with sshd(folder, MaxSessions=3) as host:
        monkeypatch.setenv("PATH", f"{host.folder}{os.pathsep}{os.environ['PATH']}")
        with create_remote_environment_server(offer, port=0, check=False) as server:
            with contextlib.closing(RemoteVectorEnv(port=server.port, num_envs=4, workers=4)) as environment:
                environment.reset()
                connections = environment.get_attr("connection")
                assert len(set(connections)) == 3  # two share one with what holds it open
        wait_until(lambda: not clients_of(host))


def test_a_connection_that_is_lost_is_made_again_for_the_next_session(host, offer):
    with (
        create_remote_environment_server(offer, port=0, check=False) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        group = in_group(environment.get_wrapper_attr("pid"))
        for client in clients_of(host):
            client.kill()
        with pytest.raises(SessionLost):
            environment.step(0)
        environment.reset()
        environment.step(0)
        wait_until(lambda: are_gone(group))


def test_one_that_hangs_there_is_ended_there(host, offer):
    with (
        create_remote_environment_server(offer, port=0, check=False, step_timeout=0.5) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        group = in_group(environment.get_wrapper_attr("pid"))
        with pytest.raises(SessionLost, match="took over"):
            environment.step(1)
        wait_until(lambda: are_gone(group))


def test_a_killed_server_leaves_nothing_there(host, offer, tmp_path):
    arguments = ("--entrypoint", offer["entrypoint"], "--python", sys.executable, "--ssh", HOST, "--port", 0)
    with served(*arguments, log=tmp_path / "log") as running:
        environment = RemoteEnvironment(port=running.port)
        environment.reset()
        group = in_group(environment.get_wrapper_attr("pid"))
        clients = clients_of(host)
        assert len(clients) >= 2
        running.process.send_signal(signal.SIGKILL)
        wait_until(lambda: are_gone([*group, *clients]))
        with contextlib.suppress(Exception):
            environment.close()


def test_it_has_its_variables_device_and_processors_there(host, offer):
    cpu = max(os.sched_getaffinity(0))
    offer |= {"variables": {"WORD": "it's $HOME"}, "gpus": [6, 7], "cpus": [cpu]}
    with (
        create_remote_environment_server(offer, port=0, check=False) as server,
        RemoteEnvironment(port=server.port) as one,
        RemoteEnvironment(port=server.port) as other,
    ):
        assert one.get_wrapper_attr("variables")["WORD"] == "it's $HOME"
        assert one.get_wrapper_attr("cpus") == [cpu]
        seen = [each.get_wrapper_attr("variables")["CUDA_VISIBLE_DEVICES"] for each in (one, other)]
        assert seen == ["6", "7"]
        commands = [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or []]
        assert not any("it's $HOME" in word for word in commands)


def test_variables_of_a_shell_there_and_what_it_prints_do_not_matter(host, offer):
    command = ["sh", "-c", f'echo "Welcome to $0!"; exec {shlex.quote(sys.executable)} "$@"', "the box's shell"]
    del offer["python"]
    with (
        create_remote_environment_server({**offer, "command": command}, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        assert environment.step(0)[1] == 1.0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("key", r"Permission denied \(publickey\)"),
        ("unknown host", "Host key verification failed"),
        ("changed host", r"(?s)IDENTIFICATION HAS CHANGED.*Host key verification failed"),
        ("no server", "Connection refused"),
    ],
)
def test_what_ssh_says_is_a_config_error(host, offer, fault, message):
    spoil(host, fault)
    with pytest.raises(ConfigError, match=message) as caught:
        create_remote_environment_server(offer, port=0)
    assert f"ssh -o BatchMode=yes {HOST} true" in str(caught.value)
    wait_until(lambda: not clients_of(host))


def test_a_python_that_is_not_there_is_named_with_what_the_shell_said(host, offer):
    with pytest.raises(ConfigError, match=r"(?s)ended with status 127.*/no/such/python"):
        create_remote_environment_server({**offer, "python": "/no/such/python"}, port=0)
