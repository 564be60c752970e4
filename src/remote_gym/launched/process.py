"""A server's process that belongs to this program: how it starts, what it has logged, and how it ends."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError, ConnectError, ConnectReason
from remote_gym.launched.order import LOG, ORDER
from remote_gym.logs.tail import last_lines
from remote_gym.transport.readable import readable
from remote_gym.user_folder import make_folder

BOOT = "import sys; sys.path = [*filter(None, sys.path)]; from {module} import main; main()"
"""Code that the server's Python runs. Without the working directory in its path: what lies there, as in a folder that
others write to, is none of the program's."""

END_TIMEOUT = 30.0
"""Seconds for a server to close its environments in; then it is killed, and they with it."""

ABANDON_TIMEOUT = 5.0
"""The same for one that does not serve yet, and has nothing to close."""

LONGEST_FOLDER = 95
"""Bytes of its path: a Unix socket's may have 103 on some systems, and 107 on others."""

LINES = 20
"""Lines of the log that an error shows."""


class LaunchedProcess:
    """A process such as that of `remote_gym.server.launched`, which ends when its standard input does.

    That is a pipe whose other end this program alone holds, so the process ends with the program, however that ends.

    Args:
        order: What to serve, as JSON can say it.
        lease: Seconds for which it goes on once it serves and nobody holds it, if others than this process are to hold
            it (`remote_gym.launched.order.HOLD`); None for a server of this process's alone.
        module: What it runs the ``main`` of.
        end_timeout: Seconds that it has to end in while it does not serve.

    Attributes:
        folder: A private one, with order, socket and log, which is gone when the process is.
    """

    def __init__(
        self,
        order: Mapping[str, Any],
        lease: float | None = None,
        *,
        module: str = "remote_gym.server.launched",
        end_timeout: float = ABANDON_TIMEOUT,
    ) -> None:
        self.folder = private_folder()
        self._log = self.folder / LOG
        self._end_timeout = end_timeout
        self._owner = os.getpid()
        _RUNNING.add(self)
        their_input, our_end = os.pipe()
        self._answers, their_answers = os.pipe()
        self._pipes = [our_end, self._answers]
        weakref.finalize(self, _close, self._pipes).atexit = False  # which `_stop_all` sees to
        arguments = [str(self.folder), str(their_answers), *([] if lease is None else [str(lease)])]
        try:
            (self.folder / ORDER).write_text(json.dumps(order))
            with self._log.open("ab") as log:
                # Not in this program's group: Ctrl-C is for the program, which then stops its server.
                self._process = subprocess.Popen(
                    [sys.executable, "-c", BOOT.format(module=module), *arguments],
                    stdin=their_input,
                    stdout=log,
                    stderr=log,
                    pass_fds=(their_answers,),
                    start_new_session=True,
                )
        except BaseException:
            self.let_go()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            _close([their_input, their_answers])

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._owner == os.getpid():
            return self._process.poll() is None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

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
            status = self._exit_status()
            how = f"does not listen after {timeout:g} s" if status is None else f"ended with status {status}"
            text = f"the server that was launched {how}{self.last_lines()}"
            raise ConnectError(text, reason=ConnectReason.UNREACHABLE)
        answer: dict[str, Any] = json.loads(line)
        raise_refusal(answer)
        self._end_timeout = max(self._end_timeout, END_TIMEOUT)
        return answer

    def _first_line(self, deadline: float) -> bytes:
        """The line that it writes once it listens, or cannot; empty if there is none in time."""
        answers, line = self._answers, b""
        while not line.endswith(b"\n"):
            if not readable([answers], deadline - time.monotonic()):
                return b""
            part = os.read(answers, 65536)
            if not part:
                return b""
            line += part
        return line

    def _exit_status(self) -> int | None:
        """Its exit status; None if it goes on. Its answers may end a moment before it does."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1.0)
        return None

    def last_lines(self) -> str:
        """The end of an error's text, with the last that it logged."""
        lines = self.log(LINES)
        return f"; the last that it logged:\n{lines}" if lines else ", and has logged nothing"

    def log(self, lines: int) -> str:
        """The last lines that it has logged, and what environments printed among them."""
        return last_lines(self._log, lines)

    def stop(self, asked: float | None = None) -> None:
        """Stop it, and wait for its end: its environments are closed, or killed if they take too long.

        May be called again, also after an exception struck it, as of Ctrl-C: then it is killed by then.

        Args:
            asked: When `let_go` was called, on `time.monotonic`, from which on it has its time; None for now.
        """
        begun = time.monotonic() if asked is None else asked
        self.let_go()
        if self._owner != os.getpid():
            return
        try:
            self._process.wait(max(0.0, begun + self._end_timeout - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def let_go(self) -> None:
        """Close this process's ends of the pipes: where it is the program itself, the server ends."""
        _close(self._pipes)

    def have_end(self) -> None:
        """Have it end, also while another thread waits until it is ready, which is then told of its end."""
        if len(self._pipes) > 1:
            os.close(self._pipes.pop(0))

    def release(self) -> None:
        """Leave it, with its folder, to those that hold it: it does not end with this process."""
        _RUNNING.discard(self)
        self.let_go()


def private_folder(longest: int = LONGEST_FOLDER) -> Path:
    """Make a folder for sockets that other users cannot reach, nor replace when it is gone.

    Args:
        longest: Bytes of its path.

    Raises:
        ConfigError: If that of the temporary folder is too long, or as `make_folder` does.
    """
    folder = make_folder()
    if len(os.fsencode(folder)) > longest:
        folder.rmdir()
        own = len(os.fsencode(folder)) - len(os.fsencode(folder.parents[1]))
        raise ConfigError(
            f"the temporary folder, {folder.parents[1]}, has too long a path for a Unix socket in it; let TMPDIR name "
            f"one of at most {longest - own} bytes"
        )
    return folder


def raise_refusal(answer: Mapping[str, Any], where_it_is: str = "") -> None:
    """Raise what a server's process has answered in place of where it listens, if it has.

    Args:
        answer: Of the process.
        where_it_is: Added to a text, such as ``"at 'gpu-box'"``.

    Raises:
        ConfigError: If its order cannot be served.
        ConnectError: If it has ended, or is not ready in time.
    """
    if "error" in answer:
        problem, field, where = (answer["error"][name] for name in ("problem", "field", "where"))
        if field == "default_args":  # as the server has it
            field, where = "environment", where and "environment"
        raise ConfigError(f"{problem} ({where_it_is})" if where_it_is else problem, field=field, where=where)
    if "failed" in answer:
        raise ConnectError(f"{where_it_is}: {answer['failed']}", reason=ConnectReason.UNREACHABLE)


_RUNNING: weakref.WeakSet[LaunchedProcess] = weakref.WeakSet()


def _close(descriptors: list[int]) -> None:
    """Close them, once: they may be others' by the second time."""
    while descriptors:
        os.close(descriptors.pop())


def _let_all_go() -> None:
    for process in tuple(_RUNNING):
        process.let_go()


def _stop_all() -> None:
    running, asked = [process for process in tuple(_RUNNING) if process.is_running], time.monotonic()
    for process in running:  # all at once, and then wait for each
        process.let_go()
    for process in running:
        process.stop(asked)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_all_go)
atexit.register(_stop_all)
