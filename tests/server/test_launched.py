"""The process of a launched server, without the server."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_gym.server import launched
from waiting import scaled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in Python")


def test_a_long_log_loses_its_beginning_and_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launched, "LOG_BYTES", 100)
    monkeypatch.setattr(launched, "LOG_BYTES_KEPT", 10)
    path = tmp_path / "server.log"
    with path.open("ab", buffering=0) as log:
        log.write(b"x" * 100)
        launched.shorten(path)
        assert path.stat().st_size == 100
        log.write(b"0123456789")
        launched.shorten(path)
        log.write(b"more")
    assert path.read_bytes() == b"0123456789more"


PROLOGUE = """
import os, resource, socket, sys, threading, time
from pathlib import Path
from remote_gym.launched.order import HOLD
from remote_gym.server import launched

FOLDER = Path(sys.argv[1])

def start(kind, *arguments):
    owner = kind(FOLDER, *arguments)
    owner.has_something_to_close.set()
    return owner

def hold():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(FOLDER / HOLD))
    return connection

def wait(owner):
    assert owner.is_gone.wait(float(sys.argv[2])), "it goes on"
"""


def run_process(folder: Path, code: str) -> str:
    """Run code of a launched server's process whose program stays, and return what it has logged."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + textwrap.dedent(code), str(folder), str(scaled(30.0))],
            stdin=theirs,
            stderr=subprocess.PIPE,
            timeout=scaled(90.0),
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="launched-") as made:
        yield Path(made)


def test_a_server_with_many_descriptors_is_held_and_ends(folder):
    """Those from 1,024 on are no less descriptors."""
    code = """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    owner = start(launched._Holders, 1000.0)
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    first, second = hold(), hold()
    first.close()
    second.send(b"stop")
    wait(owner)
    """
    assert run_process(folder, code) == ""


def test_a_server_without_a_descriptor_left_is_held_as_soon_as_there_is_one(folder):
    code = """
    owner = start(launched._Holders, 2.0)
    first, second = hold(), socket.socket(socket.AF_UNIX)
    while not owner._held: time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    kept = []
    try:
        while True: kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: pass
    second.connect(str(FOLDER / HOLD))
    assert not owner.is_gone.wait(0.5)
    for each in kept: os.close(each)
    while len(owner._held) < 2: time.sleep(0.01)
    second.send(b"stop")
    wait(owner)
    """
    assert "cannot be accepted yet: Too many open files" in run_process(folder, code)


def test_a_server_that_can_accept_nobody_ends_after_its_lease(folder):
    code = """
    owner = start(launched._Holders, 0.5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    kept = []
    first = socket.socket(socket.AF_UNIX)
    try:
        while True: kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: pass
    first.connect(str(FOLDER / HOLD))
    os.dup2(kept[0], 0)  # whose end is the program's
    wait(owner)
    """
    assert "its lease" in run_process(folder, code)


@pytest.mark.parametrize("kind", ["launched._Owner", "launched._Holders, 1000.0"])
def test_a_server_that_cannot_watch_its_program_ends_and_says_why(folder, kind):
    code = f"""
    started = threading.Event()
    def fail(*_):
        started.wait()
        raise RuntimeError("no more of it")
    launched.readable = fail
    owner = start({kind})
    started.set()
    wait(owner)
    """
    logged = run_process(folder, code)
    assert "cannot see any more whether its program is there" in logged


def test_a_log_that_cannot_be_cut_is_left(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launched, "LOG_BYTES", -1)
    (tmp_path / "folder").mkdir()
    launched.shorten(tmp_path / "folder")
    launched.shorten(tmp_path / "none")
    assert (tmp_path / "folder").is_dir()
