"""Servers that a program has at another host, by OpenSSH's own client and server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from interpreters import OLD, python_of
from leftovers import left_in
from remote_gym import ConfigError, ConnectError, SessionLost, TransportError, launch
from remote_gym.client.launching import LaunchedServer
from remote_gym.errors import ConnectReason
from remote_gym.launched.connection import KEEPALIVE
from sshd import HOST, Sshd, spoil, sshd
from waiting import scaled, wait_until

AT = f"ssh:{HOST}"

SIMULATOR = """
import os, sys
import gymnasium as gym

EXPOSED = ("steps", "pid", "source")

class Simulator(gym.Env):
    observation_space = gym.spaces.Discrete(1000)
    action_space = gym.spaces.Discrete(3)

    def __init__(self):
        self.steps, self.pid, self.source = 0, os.getpid(), __file__
        print("made there", flush=True)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        self.steps += 1
        return self.steps, 0.0, False, False, {}

def create_environment(fails=False):
    if fails:
        raise ValueError("no such task")
    return Simulator()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder here, whose path is short enough for sockets."""
    assert tmp_path  # made before the temporary folder is another
    with tempfile.TemporaryDirectory(prefix="ssh-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        wait_until(lambda: not left_in(Path(folder)))


@contextlib.contextmanager
def host_at(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Iterator[Sshd]:
    folder = folder / "sshd"
    folder.mkdir()
    with sshd(folder, **settings) as running:
        monkeypatch.setenv("PATH", f"{running.folder}{os.pathsep}{os.environ['PATH']}")
        yield running


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    with host_at(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def simulator(tmp_path: Path) -> Path:
    path = tmp_path / "simulator.py"
    path.write_text(SIMULATOR)
    return path


def at_host(server: LaunchedServer) -> list[psutil.Process]:
    """The server's process there, and all below it."""
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def clients_of(host: Sshd) -> list[psutil.Process]:
    """Processes of ssh that use the host's configuration."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(host.configuration) in (process.info["cmdline"] or []):
            found.append(process)
    return found


def sessions_of(host: Sshd) -> list[psutil.Process]:
    """Processes of sshd that have a connection."""
    return [each for each in psutil.Process(host.process.pid).children(recursive=True) if "sshd" in each.name()]


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != "zombie" for each in processes)


def test_a_server_at_a_host_plays_and_leaves_nothing_here_or_there(tmp_path, monkeypatch, simulator):
    """Although the shell there greets."""
    welcome = 'echo "Welcome to the box!"; eval "$SSH_ORIGINAL_COMMAND"'
    with host_at(tmp_path, monkeypatch, ForceCommand=welcome) as host:
        with launch(simulator, at=AT, at_python=sys.executable) as server:
            environment = server.environment()
            environment.reset()
            assert [environment.step(0)[0] for _ in range(3)] == [1, 2, 3]
            assert environment.connection_info.connected_over == "direct"
            vector = server.vector_environment(num_envs=2, workers=2)
            assert np.array_equal(vector.reset()[0], [0, 0])
            processes = at_host(server)
            assert environment.get_wrapper_attr("pid") in [each.pid for each in processes]
            wait_until(lambda: "made there" in server.log())
            assert len(server.log(1).splitlines()) == 1
            folder = Path(server.url.removeprefix("unix:")).parent
            assert folder.stat().st_mode & 0o777 == 0o700
            assert repr(server).endswith(f"process {server.pid} at {AT}>")
            [client] = clients_of(host)
            assert "made there" not in " ".join(client.cmdline())
        assert not server.is_running
        wait_until(lambda: are_gone(processes))
        wait_until(lambda: not clients_of(host))
        server.stop()  # once more does nothing


@pytest.mark.long
def test_an_entrypoint_that_is_here_is_sent_and_another_is_the_hosts(host, simulator, monkeypatch):
    monkeypatch.chdir(simulator.parent)
    named = {"one": {"entrypoint": "simulator.py"}, "two": Path("simulator.py")}
    with launch("simulator.py", at=AT, at_python=sys.executable, environments=named, check=False) as server:
        sources = {server.environment(name).source for name in (None, "one", "two")}
        assert len(sources) == 3
        assert all(Path(each).name == "simulator.py" for each in sources)
        assert not any(Path(each).is_relative_to(simulator.parent) for each in sources)
        processes = at_host(server)
        assert not any("EXPOSED" in word for each in processes for word in each.cmdline())
    assert not any(Path(each).exists() for each in sources)
    simulator.rename(simulator.parent / "moved.py")
    with pytest.raises(ConfigError, match=r"^entrypoint 'simulator\.py' does not exist.*\(at 'box'\)"):
        launch("simulator.py", at=AT, at_python=sys.executable)


@pytest.mark.long
def test_a_command_has_its_server_at_the_host(host, simulator):
    code = (
        "import remote_gym; environment = remote_gym.RemoteEnvironment(); environment.reset(); print(environment.pid)"
    )
    command = [sys.executable, "-m", "remote_gym", "launch", str(simulator), "--at", AT, "--at-python", sys.executable]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=scaled(120.0), check=True
    )
    assert not psutil.pid_exists(int(done.stdout))


@pytest.mark.parametrize("cut", ["here", pytest.param("there", marks=pytest.mark.long)])
def test_a_session_survives_a_connection_that_is_cut(host, simulator, cut):
    with launch(simulator, at=AT, at_python=sys.executable) as server:
        environment = server.environment()
        environment.reset()
        for steps in (1, 2, 3):
            for process in clients_of(host) if cut == "here" else sessions_of(host):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            assert environment.step(0)[0] == steps
        assert environment.steps == 3
        processes = at_host(server)
        assert "made there" in server.log()
    wait_until(lambda: are_gone(processes))


@pytest.mark.long
def test_a_session_survives_a_connection_that_falls_silent(host, simulator):
    """As where a network is gone without a word: ssh finds that out after three questions without an answer."""
    with launch(simulator, at=AT, at_python=sys.executable) as server:
        environment = server.environment()
        environment.reset()
        stopped = sessions_of(host)
        for process in stopped:
            process.suspend()
        try:
            begun = time.monotonic()
            assert environment.step(0)[0] == 1
            assert time.monotonic() - begun > 3 * KEEPALIVE
        finally:
            for process in stopped:
                process.kill()
        assert environment.step(0)[0] == 2


@pytest.mark.long
def test_a_host_that_stays_away_loses_the_session_and_ends_the_server_after_its_lease(host, simulator):
    server = launch(simulator, at=AT, at_python=sys.executable, lease=1.0)
    environment = server.environment()
    environment.reset()
    processes, sessions = at_host(server), sessions_of(host)
    host.process.kill()
    for process in sessions:
        process.kill()
    with pytest.raises((SessionLost, TransportError)):
        environment.step(0)
    wait_until(lambda: are_gone(processes))
    assert "no connection to 'box'" in server.log()
    server.stop()
    assert not server.is_running


@pytest.mark.long
def test_a_server_that_is_killed_there_is_known_to_have_ended(host, simulator):
    with launch(simulator, at=AT, at_python=sys.executable) as server:
        environment = server.environment()
        environment.reset()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.is_running)
        assert "made there" in server.log()


@pytest.mark.parametrize("killed", ["the program", pytest.param("its ssh, too", marks=pytest.mark.long)])
def test_a_killed_program_leaves_nothing_there(host, simulator, killed):
    lease = 1000.0 if killed == "the program" else 1.0
    code = f"""
    import remote_gym, time
    server = remote_gym.launch({str(simulator)!r}, at={AT!r}, at_python={sys.executable!r}, lease={lease})
    environment = server.environment()
    environment.reset()
    print(server.pid, flush=True)
    time.sleep(1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        clients = clients_of(host) if killed == "its ssh, too" else []
        program.kill()
        for client in clients:
            client.kill()
    wait_until(lambda: are_gone(processes))
    wait_until(lambda: not clients_of(host))
    for folder in left_in(Path(tempfile.gettempdir())):  # here, of what was killed here
        assert not (folder / "order.json").exists()
        subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("key", r"Permission denied \(publickey\)"),
        ("unknown host", "Host key verification failed"),
        ("changed host", r"(?s)IDENTIFICATION HAS CHANGED.*Host key verification failed"),
        ("no server", "Connection refused"),
        ("no host", "Could not resolve hostname"),
    ],
)
def test_what_ssh_says_is_in_the_error(host, fault, message):
    at = AT
    if fault == "no host":
        at = "ssh:no-such-host.invalid"
    else:
        spoil(host, fault)
    with pytest.raises(ConnectError, match=message) as caught:
        launch("CartPole-v1", at=at)
    assert caught.value.reason is ConnectReason.UNREACHABLE
    assert f"ssh -o BatchMode=yes {at.removeprefix('ssh:')} true" in str(caught.value)
    wait_until(lambda: not clients_of(host))


@pytest.mark.long
def test_a_host_without_remote_gym_is_told_from_one_with_it(tmp_path, monkeypatch, host):
    for python, found in (
        ("/no/such/python", "status 127.*/no/such/python"),
        (python_of(OLD[0]), "No module named 'remote_gym'"),
        (None, "'remote-gym' at 'box'.*status 127"),
    ):
        with pytest.raises(ConfigError, match=f"(?s)^at_python .*{found}.*name a Python there that has remote_gym"):
            launch("CartPole-v1", at=AT, at_python=python)


@pytest.mark.long
def test_the_command_of_the_hosts_path_does_without_a_python_and_another_release_is_named(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "remote-gym"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m remote_gym "$@"\n')
    program.chmod(0o755)
    with host_at(tmp_path, monkeypatch, SetEnv=f"PATH={programs}:/usr/bin:/bin"):
        with launch("CartPole-v1", at=AT, check=False) as server:
            server.environment().reset()
        hello = json.dumps({"version": "0.0.7", "dialect": "0"})
        program.write_text(f"#!/bin/sh\necho $2\necho '{hello}'\nread line\n")
        with pytest.raises(ConfigError, match=r"is of remote_gym 0\.0\.7, which takes no order of remote_gym \d"):
            launch("CartPole-v1", at=AT)


@pytest.mark.long
def test_what_cannot_be_served_there_is_said_as_it_was_asked_for(host, simulator):
    for arguments, message in (
        ({"environment": "CartPole-v99"}, r"`v99`.* \(at 'box'\)"),
        ({"environment": "nowhere.py"}, r"^entrypoint 'nowhere.py' does not exist"),
        ({"environment": simulator, "entrypoint_kwargs": {"fails": True}}, "no such task"),
    ):
        with pytest.raises(ConfigError, match=message):
            launch(**arguments, at=AT, at_python=sys.executable)
    code = "import time; time.sleep(1000)"
    (simulator.parent / "slow.py").write_text(f"def create_environment():\n    {code}\n")
    begin = time.monotonic()
    with pytest.raises(ConnectError, match=r"(?s)at 'box': .*does not listen after 3 s.*creating the environment"):
        launch(simulator.parent / "slow.py", at=AT, at_python=sys.executable, start_timeout=3.0)
    assert time.monotonic() - begin < scaled(30.0)
    wait_until(lambda: not clients_of(host))


def test_a_host_that_forwards_nothing_says_so(tmp_path, monkeypatch):
    with (
        host_at(tmp_path, monkeypatch, AllowStreamLocalForwarding="no") as host,
        pytest.raises(ConnectError, match=r"AllowStreamLocalForwarding.*open failed"),
    ):
        launch("CartPole-v1", at=AT, at_python=sys.executable, check=False)
    wait_until(lambda: not clients_of(host))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": "gpu-box"}, "^at is 'gpu-box'; use 'ssh:HOST'"),
        ({"at": "ssh:"}, "^at is 'ssh:'; use"),
        ({"at": "ssh:-oProxyCommand=touch x"}, "^at is "),
        ({"at": "ssh:$(id)"}, "^at is "),
        ({"at": "ssh:a@-oProxyCommand=id"}, "^at is "),
        ({"at": 3}, "^at is 3; use"),
        ({"at_python": "python3"}, "^at_python is for a server at a host"),
        ({"at": AT, "at_python": 3}, "^at_python is 3; use the path of a Python"),
        ({"at": AT, "at_python": ""}, "^at_python is ''; use the path of a Python"),
        ({"at": AT, "start_timeout": "60"}, "^start_timeout is '60'; use a number of seconds"),
    ],
)
def test_what_is_no_host_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        launch("CartPole-v1", **arguments)
