"""The folder of gRPC's private socket, in a temporary folder where other users put what they like."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_gym.server.frontends.relay import private_socket
from remote_gym.server.frontends.relay.private_socket import PREFIX, SOCKET, PrivateSocket
from waiting import scaled

if sys.platform != "linux":
    pytest.skip("elsewhere there is no private socket", allow_module_level=True)


@pytest.fixture
def temporary(monkeypatch) -> Iterator[Path]:
    """The system's temporary folder, with a path short enough for a socket in it; what is in it is old."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(private_socket, "YOUNG", -1.0)
        yield Path(folder)


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """A socket whose queue takes nobody any more."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        yield


def made() -> str:
    """The folder that the next server gets, which it must not wait for."""
    folders: list[str] = []

    def make() -> None:
        private = PrivateSocket()
        folders.append(private.folder)
        private.close()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(scaled(10.0))
    assert folders, "it waits for somebody else's socket"
    return folders[0]


def test_a_server_that_is_busy_is_alive(temporary):
    busy = temporary / f"{PREFIX}busy"
    busy.mkdir()
    with full(busy / SOCKET):
        assert Path(made()).parent == temporary
    assert busy.exists()


def test_a_link_to_what_is_ours_is_left_alone(temporary):
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder:
        target = Path(folder) / "theirs"
        target.mkdir()
        link = temporary / f"{PREFIX}evil"
        link.symlink_to(target)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(target / SOCKET))
        assert made()
        assert link.is_symlink()
        assert (target / SOCKET).exists()
        (target / SOCKET).unlink()
        with full(target / SOCKET):
            assert made()
