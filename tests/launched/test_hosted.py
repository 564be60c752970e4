"""Servers at another host, by a program that is called ``ssh`` and runs them here."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from remote_gym import ServerOptions
from remote_gym.launched import hosted
from remote_gym.launched.connection import Connection
from remote_gym.launched.hosted import HostedProcess
from remote_gym.launched.order import DIALECT, write_order
from remote_gym.launched.process import END_TIMEOUT
from ssh_stub import StubSsh, stub_ssh
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in Python")

FAR_END = f"""
def serve():
    "Serve nothing, until that is asked to end."
    greet()
    say({{"version": "", "dialect": {DIALECT!r}}})
    sys.stdin.readline()
    say({{"folder": "/nowhere", "socket": "/nowhere/socket", "pid": 1}})
    say({{"held": True}})
    sys.stdin.readline()

"""


@pytest.fixture
def ssh(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubSsh]:
    with stub_ssh(monkeypatch) as stub:
        yield stub
        assert not any(map(psutil.pid_exists, stub.pids())), "ssh was not reaped"


def start(lease: float = 1000.0) -> HostedProcess:
    order: Mapping[str, Any] = write_order({"entrypoint_kwargs": {"id": "CartPole-v1"}}, ServerOptions(check=False))
    return HostedProcess("box", sys.executable, order, lease=lease, start_timeout=scaled(60.0))


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"


def is_connected(process: HostedProcess) -> bool:
    return process._keeper.is_held.is_set()


def cut(ssh: StubSsh) -> None:
    """Kill the newest connection."""
    os.kill(ssh.pids()[-1], signal.SIGKILL)


@pytest.mark.parametrize("line", ["no JSON", "[]"])
def test_a_connection_on_which_nonsense_comes_is_made_again(ssh, line):
    process = start()
    try:
        ssh.does(
            "if not forwards and not (FOLDER / 'done').exists():\n"
            f"    (FOLDER / 'done').touch(); greet(); os.write(1, b'{line}' + bytes([10]))\n"
            "    sys.stdin.read(); sys.exit()"
        )
        cut(ssh)
        wait_until(lambda: len(ssh.pids()) == 3)
        wait_until(lambda: is_connected(process))
        assert "no connection" not in process.log(5)
        assert process.is_running
    finally:
        process.stop()
    wait_until(lambda: not is_running(process.pid))


def test_a_connection_that_cannot_be_made_for_a_while_is_made_again(ssh):
    """As where this program has no descriptor left, or no memory to fork."""
    process = start()
    try:
        ssh.program.rename(ssh.folder / "away")
        cut(ssh)
        wait_until(lambda: not is_connected(process))
        assert process.is_running
        (ssh.folder / "away").rename(ssh.program)
        wait_until(lambda: is_connected(process))
    finally:
        process.stop()
    wait_until(lambda: not is_running(process.pid))


def test_a_server_that_cannot_be_kept_ends_at_once(ssh, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no more of it")

    monkeypatch.setattr(hosted._Keeper, "_follow", fail)
    with caplog.at_level(logging.ERROR):
        process = start()
        wait_until(lambda: not process.is_running)
    assert "no more of it" in caplog.text
    assert not any(map(psutil.pid_exists, ssh.pids()))
    wait_until(lambda: not is_running(process.pid))
    wait_until(lambda: not process.folder.exists())
    process.stop()


@pytest.mark.parametrize("act", ["said", "let_go", "forget", "_ask_to_stop"])
def test_a_connection_may_go_while_another_thread_uses_it(ssh, monkeypatch, act):
    ssh.does("sys.stdin.read(); sys.exit()")
    with tempfile.TemporaryDirectory() as folder:
        connection = Connection("box", ["program"], Path(folder))
        there = itertools.cycle([connection, None])
        keeper = hosted._Keeper("box", ["program"], Path(folder), 1.0)
        monkeypatch.setattr(hosted._Keeper, "_connection", property(lambda _: next(there)), raising=False)
        getattr(keeper, act)()
        connection.end()


def test_a_programs_end_asks_all_its_hosts_before_it_waits_for_any(ssh):
    ssh.does(
        f"{FAR_END}"
        "if not forwards:\n"
        "    serve()\n"
        "    (FOLDER / f'asked-{os.getpid()}').touch()\n"
        "    while len([*FOLDER.glob('asked-*')]) < 3: time.sleep(0.01)\n"
        "    (FOLDER / f'ended-{os.getpid()}').touch()\n"
        "    say({'stopped': True}); sys.exit()"
    )
    processes = [start() for _ in range(3)]
    hosted._stop_all()
    assert len([*ssh.folder.glob("ended-*")]) == 3  # none was killed since it waited for the others
    assert not any(each.is_running for each in processes)


def test_a_host_that_does_not_answer_has_its_time_from_when_it_was_asked(ssh):
    ssh.does(f"{FAR_END}if not forwards: serve(); time.sleep(1000)")
    processes = [start() for _ in range(2)]
    begun = time.monotonic()
    for each in processes:
        each._keeper.stop(begun - 1000.0)
    assert time.monotonic() - begun < END_TIMEOUT
    assert not any(each._keeper._thread.join(scaled(10.0)) for each in processes)
    for each in processes:
        each.stop()
