"""The far end of a server at another host, without SSH between: its streams are a socket, as sshd makes them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from remote_gym import ServerOptions
from remote_gym.launched.hosted import BOOT
from remote_gym.launched.order import DIALECT, write_order
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in Python")

MARKER = "0123456789abcdef"


class Holder:
    """A running one, and this end of its streams."""

    def __init__(self, *arguments: str) -> None:
        self.end, theirs = socket.socketpair()
        self.end.settimeout(scaled(60.0))
        command = [sys.executable, "-c", BOOT, MARKER, *arguments]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs)
        theirs.close()
        self._lines = self.end.makefile("rb")
        assert self._lines.readline().decode() == f"{MARKER}\n"

    def send(self, content: Mapping[str, Any]) -> None:
        self.end.sendall(json.dumps(content).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        while True:
            line = self._lines.readline()
            assert line, "it has ended"
            if line != b"\n":
                return dict(json.loads(line))

    def close(self) -> None:
        """Break the connection."""
        self._lines.close()
        self.end.close()

    def wait(self) -> None:
        self.process.wait(scaled(60.0))


def start(lease: float, environment: str = "CartPole-v1") -> tuple[Holder, dict[str, Any]]:
    holder = Holder()
    assert holder.receive()["dialect"] == DIALECT
    order = write_order({"entrypoint_kwargs": {"id": environment}}, ServerOptions(check=False))
    holder.send({"order": order, "lease": lease, "start_timeout": scaled(60.0)})
    return holder, holder.receive()


@contextlib.contextmanager
def held(lease: float) -> Iterator[tuple[Holder, dict[str, Any], psutil.Process]]:
    holder, there = start(lease)
    assert holder.receive() == {"held": True}
    process = psutil.Process(there["pid"])
    try:
        yield holder, there, process
    finally:
        wait_until(lambda: not process.is_running() or process.status() == "zombie")
        wait_until(lambda: not Path(there["folder"]).exists())


def test_a_server_ends_with_the_program_at_the_far_end():
    with held(1000.0) as (holder, there, process):
        assert Path(there["folder"]).stat().st_mode & 0o777 == 0o700
        assert process.is_running()
        holder.end.shutdown(socket.SHUT_WR)  # as ssh does when its input ends
        holder.wait()
        holder.close()


def test_a_broken_connection_is_no_end_and_another_one_holds_the_same_server():
    with held(1000.0) as (holder, there, process):
        for _ in range(2):
            holder.close()
            holder.wait()
            assert process.is_running()
            holder = Holder(there["folder"])
            assert holder.receive() == {"held": True}
        holder.send({"log": 5})
        assert "log" in holder.receive()
        holder.send({"stop": True})
        assert holder.receive() == {"stopped": True}
        holder.wait()
        holder.close()


def test_a_server_that_nobody_holds_ends_after_its_lease_which_begins_when_it_serves():
    with held(0.1) as (holder, there, process):
        holder.send({"log": 1})
        assert "log" in holder.receive()
        assert process.is_running()
        holder.close()
        holder.wait()
    gone = Holder(there["folder"])
    assert "gone" in gone.receive()
    gone.wait()
    gone.close()


def test_a_server_that_is_killed_is_told_with_what_it_logged_and_its_folder_removed():
    with held(1000.0) as (holder, there, process):
        (Path(there["folder"]) / "server.log").write_text("the last line\n")
        process.kill()
        assert holder.receive() == {"gone": "the last line"}
        holder.wait()
        holder.close()


def test_a_program_that_is_gone_before_its_server_serves_leaves_nothing(tmp_path):
    (tmp_path / "slow.py").write_text("def create_environment():\n    import time; time.sleep(1000)\n")
    holder = Holder()
    holder.receive()
    order = write_order({"entrypoint": str(tmp_path / "slow.py")}, ServerOptions())
    holder.send({"order": order, "lease": 1000.0, "start_timeout": 1000.0})
    wait_until(lambda: len(psutil.Process(holder.process.pid).children(recursive=True)) >= 2)
    processes = psutil.Process(holder.process.pid).children(recursive=True)
    [folder] = [Path(each.cmdline()[3]) for each in processes if "server.launched" in " ".join(each.cmdline())]
    holder.close()
    holder.wait()
    wait_until(lambda: not any(each.is_running() and each.status() != "zombie" for each in processes))
    assert not folder.exists()


def test_what_cannot_be_served_is_answered():
    holder, answer = start(1000.0, "CartPole-v99")
    assert "`v99`" in answer["error"]["problem"]
    holder.wait()
    holder.close()


def test_lines_that_are_no_orders_end_it():
    holder = Holder()
    holder.receive()
    holder.end.sendall(b"no JSON\n")
    assert holder.process.wait(scaled(60.0)) != 0
    holder.close()
