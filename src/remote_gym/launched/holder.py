"""The far end of a server at another host: a program that starts it there, or holds it, for who connected by SSH.

It writes a marker, so that what a shell has printed before does not matter, and then lines of JSON, as it reads them.
The server is no part of the SSH connection and outlives it: it serves while one of these programs is connected to its
socket `HOLD`, and for a lease after. So a connection that broke is made again, and whatever was lost with it is this
program, which the server takes for somebody that may come back.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import select
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError, ConnectError
from remote_gym.launched.answer import refusal
from remote_gym.launched.order import DIALECT, HOLD, LOG, SOCKET
from remote_gym.launched.process import END_TIMEOUT, LINES, LaunchedProcess
from remote_gym.logs.tail import last_lines
from remote_gym.transport.readable import readable

HEARTBEAT = 10.0
"""Seconds between two empty lines. Without them a host would not notice for hours that the network is gone; so its
system does once it has sent them in vain for a quarter of an hour."""

BREAK_TIMEOUT = 2.0
"""Seconds after the end of standard input by which standard output has broken, too, if a connection has broken. Else
the program at its other end has ended, and its SSH client waits for this one."""

LONGEST_LINE = 512 * 2**20
"""Bytes of a line that is read, an order."""


def main(arguments: list[str]) -> None:
    """Start a server and hold it, or hold one that runs.

    Args:
        arguments: A marker; and the folder of one that runs.
    """
    marker, *folder = arguments
    os.write(1, f"{marker}\n".encode())
    if folder:
        hold(Path(folder[0]), _Lines())
        return
    say({"version": version(), "dialect": DIALECT})
    lines = _Lines()
    asked = lines.next(None)
    if asked is not None:
        process = start(asked, lines)
        if process is not None:
            hold(process.folder, lines, process)


def version() -> str:
    """The version of this package, for errors."""
    try:
        return importlib.metadata.version("remote-gym")
    except importlib.metadata.PackageNotFoundError:  # such as a checkout on PYTHONPATH
        return "unknown"


def start(asked: Mapping[str, Any], lines: _Lines) -> LaunchedProcess | None:
    """Start a server, and say what became of it.

    Returns:
        Its process; None if it does not serve.
    """
    process = LaunchedProcess(asked["order"], asked["lease"])
    is_done = threading.Event()
    # Who asked may be gone before it serves: then it ends, and the wait below with it.
    watch = threading.Thread(target=_end_with_input, args=(process, lines, is_done), daemon=True)
    watch.start()
    try:
        process.wait_until_ready(asked["start_timeout"])
    except ConfigError as error:
        process.stop()
        say(refusal(error))
        return None
    except ConnectError as error:
        process.stop()
        say({"failed": str(error)})
        return None
    finally:
        is_done.set()
        watch.join()
    say({"folder": str(process.folder), "socket": str(process.folder / SOCKET), "pid": process.pid})
    return process


def _end_with_input(process: LaunchedProcess, lines: _Lines, is_done: threading.Event) -> None:
    while not is_done.is_set():
        if lines.has_ended(0.1):
            process.have_end()
            return


def hold(folder: Path, lines: _Lines, process: LaunchedProcess | None = None) -> None:
    """Hold a server, and do what is asked, until the connection breaks, the program ends or asks for it, or it ends.

    Args:
        folder: The server's.
        lines: What is asked.
        process: The server's, where this process has started it and lets go of it now.
    """
    log = folder / LOG
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(str(folder / HOLD))
        except OSError:
            _say_gone(folder)
            return
        if process is not None:
            process.release()
        say({"held": True})
        beaten = time.monotonic()
        while True:
            if not lines.is_ready:
                readable([0, server.fileno()], HEARTBEAT)
            if readable([server], 0.0):
                _say_gone(folder)
                return
            asked = lines.next(0.0)
            if asked is None:
                if not _breaks():
                    _stop(server)
                return
            if "stop" in asked:
                _stop(server)
                say({"stopped": True})
                return
            if "log" in asked:
                say({"log": last_lines(log, asked["log"])})
            if time.monotonic() - beaten >= HEARTBEAT:
                beaten = time.monotonic()
                os.write(1, b"\n")


def _stop(server: socket.socket) -> None:
    """Have the server end, and wait for it. One that does not is left to itself: it has been asked."""
    server.settimeout(END_TIMEOUT)
    with contextlib.suppress(OSError):
        server.sendall(b"stop")
        server.recv(1)


def _breaks() -> bool:
    """Whether the connection has broken, rather than the program ended, now that standard input has."""
    poll = select.poll()
    poll.register(1, 0)  # of errors and of the other end's end alone
    return bool(poll.poll(BREAK_TIMEOUT * 1000))


def _say_gone(folder: Path) -> None:
    """Say that the server has ended by itself, and what it logged at last; nobody else needs that any more."""
    say({"gone": last_lines(folder / LOG, LINES)})
    shutil.rmtree(folder, ignore_errors=True)


def say(content: Mapping[str, Any]) -> None:
    """Write a line."""
    data = json.dumps(content).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


class _Lines:
    """Lines of standard input, read by nobody else, so that what is read ahead is not lost."""

    def __init__(self) -> None:
        self._data = b""
        self._is_over = False

    @property
    def is_ready(self) -> bool:
        """Whether a line has been read already, or the end."""
        return b"\n" in self._data or self._is_over

    def has_ended(self, timeout: float) -> bool:
        """Whether the input ends within so many seconds; what comes before that is kept."""
        if not self._is_over and readable([0], timeout):
            self._read()
        return self._is_over

    def next(self, timeout: float | None) -> dict[str, Any] | None:
        """The next line.

        Args:
            timeout: Seconds for the first of its bytes; None for any time.

        Returns:
            Empty if none came in time; None at the end.
        """
        while b"\n" not in self._data:
            if self._is_over or len(self._data) > LONGEST_LINE:
                return None
            if not self._data and not readable([0], timeout):
                return {}
            self._read()
        line, _, self._data = self._data.partition(b"\n")
        return dict(json.loads(line))

    def _read(self) -> None:
        data = os.read(0, 2**20)
        self._data += data
        self._is_over = not data


if __name__ == "__main__":
    main(sys.argv[1:])
