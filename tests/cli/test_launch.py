"""``remote-gym launch`` and ``remote-gym servers``, as programs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import psutil
import pytest
from click.testing import CliRunner

from leftovers import left_in
from remote_gym import ConfigError, RemoteEnvironment, RemoteVectorEnv
from remote_gym.cli import main
from remote_gym.client import servers
from remote_gym.config import SERVER_VARIABLE
from remote_gym.ipc.running import RunningServer, running_servers
from served import served
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="servers are known again by /proc, and launch needs Unix sockets"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder, where records lie: without those of other servers, which are none of a test's to stop."""
    assert tmp_path  # made before the temporary folder is another
    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.delenv(SERVER_VARIABLE, raising=False)
        yield Path(folder)
        wait_until(lambda: not running_servers() and not left_in(Path(folder)))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "remote_gym", *arguments]


def launched(*program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    arguments = command("launch", "CartPole-v1", "--no-check", "--", *program)
    return subprocess.run(arguments, capture_output=True, text=True, timeout=scaled(120.0), check=False, **options)


def remote_gym(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output


@contextlib.contextmanager
def foreground() -> Iterator[tuple[subprocess.Popen[str], RunningServer]]:
    """``remote-gym launch`` without a command, and its server."""
    arguments = command("launch", "CartPole-v1", "--no-check")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        wait_until(running_servers)
        yield process, running_servers()[0]


def test_a_command_finds_its_server_and_its_exit_status_is_that_of_the_whole():
    code = """
    import os, sys, remote_gym
    environment = remote_gym.RemoteEnvironment()
    environment.reset(seed=1)
    vector = remote_gym.RemoteVectorEnv(num_envs=2)
    print(environment.url == os.environ["REMOTE_GYM_SERVER"], vector.reset(seed=1)[0].shape)
    print(sorted(name for name in os.environ if name.startswith("GRPC_")))
    sys.exit(7)
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = launched(sys.executable, "-c", textwrap.dedent(code), env=variables)
    assert (done.returncode, done.stdout) == (7, "True (2, 4)\n[]\n"), done.stderr
    assert running_servers() == []


def test_a_command_that_a_signal_ends_has_the_status_that_shells_give():
    assert launched("sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_a_command_that_cannot_be_run_is_named_before_anything_starts(tmp_path):
    done = launched("no-such-command")
    assert (done.returncode, done.stderr) == (127, "Error: no-such-command is not there\n")
    file = tmp_path / "file"
    file.write_text("")
    done = launched(str(file))
    assert (done.returncode, done.stderr) == (126, f"Error: {file} cannot be executed\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 9), (signal.SIGINT, 9)])
def test_signals_are_the_commands(number, status):
    """Those of a terminal, which sends Ctrl-C to the whole group, and of what ends the one process that it knows."""
    code = f"""
    import signal, sys, time
    signal.signal({int(number)}, lambda *_: sys.exit(9))
    print("ready", flush=True)
    time.sleep(1000)
    """
    arguments = command("launch", "CartPole-v1", "--no-check", "--", sys.executable, "-c", textwrap.dedent(code))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(scaled(60.0)) == status
    wait_until(lambda: not running_servers())


def test_without_a_command_it_serves_until_it_is_told_to_end():
    with foreground() as (process, server):
        assert server.command == "launch"
        assert server.environments == ("CartPole-v1",)
        assert process.stdout is not None
        shown = ""
        while "Its log" not in shown:
            shown += process.stdout.readline()
        assert f'RemoteEnvironment("{server.address}")' in shown
        assert f"{SERVER_VARIABLE}={server.address}" in shown
        with contextlib.closing(RemoteEnvironment(server.address)) as environment:
            environment.reset()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "Stopped.\n"
        assert process.wait(scaled(60.0)) == 0


def test_a_server_that_is_stopped_by_its_id_ends_the_launch_and_says_what_it_logged():
    with foreground() as (process, server):
        code, shown = remote_gym("servers")
        assert code == 0
        assert shown.startswith(f"{server.owner.pid}  launch  {server.address}  since ")
        assert remote_gym("servers", "stop", str(server.owner.pid)) == (0, f"Stopped {server.owner.pid}.\n")
        assert not psutil.pid_exists(server.owner.pid) or psutil.Process(server.owner.pid).status() == "zombie"
        assert process.wait(scaled(60.0)) == 1
    assert remote_gym("servers") == (0, "None of yours runs on this machine.\n")


def test_servers_are_listed_read_and_stopped(tmp_path):
    log = tmp_path / "log"
    with (
        served("CartPole-v1", "--port", 0, log=log) as one,
        served("CartPole-v1", "--environment", "easy=Acrobot-v1", "--port", 0) as other,
    ):
        listed = json.loads(remote_gym("servers", "--json")[1])
        assert [(each["pid"], each["address"]) for each in listed] == [
            (each.process.pid, f"localhost:{each.port}") for each in (one, other)
        ]
        assert listed[1]["environments"] == ["CartPole-v1", "easy"]
        assert [each["log"] for each in listed] == [str(log), None]
        with contextlib.closing(RemoteEnvironment(port=one.port)) as environment:
            environment.reset()
        wait_until(lambda: "session" in log.read_text())
        code, lines = remote_gym("servers", "logs", str(one.process.pid), "-n", "1")
        assert code == 0
        assert lines.strip() == log.read_text().splitlines()[-1]
        assert "logs to no file" in remote_gym("servers", "logs", str(other.process.pid))[1]
        pids = f"{one.process.pid}, {other.process.pid}"
        assert remote_gym("servers", "stop") == (1, f"Error: 2 servers run here; say which: {pids}\n")
        code, shown = remote_gym("servers", "stop", "1")
        assert (code, shown) == (1, f"Error: no server of yours has the process id '1'; there is {pids}\n")
        code, shown = remote_gym("servers", "stop", "all")
        assert code == 0
        assert sorted(shown.splitlines()) == sorted(f"Stopped {each.process.pid}." for each in (one, other))
    assert remote_gym("servers", "stop")[1] == "Error: none of your servers runs on this machine\n"


def test_one_that_takes_its_time_is_told_and_hurries_when_stopped_again():
    arguments = ("CartPole-v1", "--port", 0, "--drain-timeout", 1000)
    with served(*arguments) as running, contextlib.closing(RemoteEnvironment(port=running.port)) as environment:
        environment.reset()
        environment.step(0)
        pid = str(running.process.pid)
        code, shown = remote_gym("servers", "stop", pid, "--timeout", "0.5")
        assert code == 1
        assert f"{pid} has not ended within 0.5 s" in shown
        assert remote_gym("servers", "stop", pid)[0] == 0


MAKES_OURS = int(gym.__version__.split(".")[0]) >= 1
"""Whether `gymnasium.make_vec` makes a RemoteVectorEnv."""


def test_a_client_that_names_the_usual_place_means_that_rather_than_what_a_variable_names(monkeypatch):
    monkeypatch.setenv(SERVER_VARIABLE, "nowhere")
    with served("CartPole-v1", "--port", 0) as running:
        monkeypatch.setattr(servers, "DEFAULT_PLACE", ("localhost", running.port))
        for place in ({"url": "localhost", "port": running.port}, {"url": "localhost"}, {"port": running.port}):
            for client in (
                RemoteEnvironment(**place),
                RemoteVectorEnv(**place, num_envs=1),
                gym.make("remote_gym/Remote-v0", **place),
                # Before Gymnasium 1.0 it forks workers of its own, beside gRPC.
                *([gym.make_vec("remote_gym/Remote-v0", num_envs=1, **place)] if MAKES_OURS else []),
            ):
                with contextlib.closing(client):
                    client.reset()
        with contextlib.closing(RemoteEnvironment("localhost", running.port)) as environment:
            environment.reset()
        with pytest.raises(ConfigError, match=f"^{SERVER_VARIABLE} is 'nowhere'"):
            gym.make("remote_gym/Remote-v0")


def test_a_client_that_names_a_server_uses_that_and_a_variable_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv(SERVER_VARIABLE, "nowhere")
    for client in (RemoteEnvironment, lambda: RemoteVectorEnv(num_envs=1)):
        with pytest.raises(ConfigError, match=f"^{SERVER_VARIABLE} is 'nowhere'; use HOST:PORT"):
            client()
    with served("CartPole-v1", "--port", 0) as running:
        with contextlib.closing(RemoteEnvironment(port=running.port)) as environment:
            environment.reset()
        monkeypatch.setenv(SERVER_VARIABLE, f"localhost:{running.port}")
        with contextlib.closing(RemoteEnvironment()) as environment:
            environment.reset()
            assert environment.port == running.port


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CartPole-v1", "--"), "Say which command to run after '--'"),
        ((), "Say what to serve"),
        (("--environment", "a=CartPole-v1"), "Say which environment"),
        (("CartPole-v1", "--port", "1"), "No such option"),
        (("CartPole-v99", "--", "true"), "`v99`"),
    ],
)
def test_what_cannot_be_launched_is_said(arguments, message):
    code, shown = remote_gym("launch", *arguments)
    assert code != 0
    assert message in shown
