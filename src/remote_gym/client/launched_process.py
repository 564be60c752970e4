"""A server's process that belongs to this program: how it starts, what it has logged, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError, ConnectError, ConnectReason
from remote_gym.logs import printable

END_TIMEOUT = 30.0
"""Seconds for a server to close its environments in; then it is killed, and they with it."""

LINES = 20
"""Lines of the log that an error shows."""

_LONGEST_TAIL = 256 * 2**10
"""Bytes from the log's end that are looked at for its last lines."""


class LaunchedProcess:
    """``remote_gym.server.launched`` in a session of its own, which ends when its standard input does.

    That is a pipe whose other end this program alone holds, so it ends with the program, however that ends.

    Args:
        order: What to serve, as JSON can say it.

    Attributes:
        folder: A private one, which is gone when the process is.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="remote_gym-"))
        self._log = self.folder / "server.log"
        try:
            with self._log.open("wb") as log:
                # Not in this program's group: Ctrl-C is for the program, which then stops its server.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "remote_gym.server.launched"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._end = weakref.finalize(self, _end, self._process, self.folder)
        if hasattr(os, "register_at_fork"):
            _HELD.add(self)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen when it is waited for
            self._process.stdin.write(json.dumps({**order, "socket": str(self.folder / "socket")}).encode() + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until_ready(self, timeout: float) -> Mapping[str, Any]:
        """Wait until it listens.

        Args:
            timeout: Seconds.

        Returns:
            ``url`` and ``port``.

        Raises:
            ConfigError: If what it was to serve cannot work, as the server says.
            ConnectError: If it ends without that, or is not ready in time; with its last lines.
        """
        line = self._first_line(time.monotonic() + timeout)
        if not line:
            status = self._ended()
            how = f"does not listen after {timeout:g} s" if status is None else f"ended with status {status}"
            raise ConnectError(
                f"the server that was launched {how}{self._last_lines()}", reason=ConnectReason.UNREACHABLE
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            problem, field, where = (answer["error"][name] for name in ("problem", "field", "where"))
            if field == "default_args":  # as the server has it
                field, where = "environment", where and "environment"
            raise ConfigError(problem, field=field, where=where)
        return answer

    def _first_line(self, deadline: float) -> bytes:
        """The line that it prints once it listens, or cannot; empty if there is none in time."""
        stdout = self._process.stdout
        assert stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return b""
                part = os.read(stdout.fileno(), 65536)
                if not part:
                    return b""
                line += part
        return line

    def _ended(self) -> int | None:
        """Its exit status; None if it goes on. Its output may end a moment before it does."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1.0)
        return None

    def _last_lines(self) -> str:
        lines = self.log(LINES)
        return f"; the last that it logged:\n{lines}" if lines else ", and has logged nothing"

    def log(self, lines: int) -> str:
        """The last lines that it has logged, and what environments printed among them."""
        try:
            with self._log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _LONGEST_TAIL))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:  # it was stopped
            return ""
        return "\n".join(printable(line) for line in text.splitlines()[-lines:])

    def stop(self) -> None:
        """Stop it, and wait for its end: its environments are closed, or killed if they take too long."""
        self._end()


_HELD: weakref.WeakSet[LaunchedProcess] = weakref.WeakSet()
"""Launched by this process: a child of it must not keep their pipes open, since it may outlive it."""


def _let_go() -> None:
    for process in tuple(_HELD):
        process._end.detach()
        for pipe in (process._process.stdin, process._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
