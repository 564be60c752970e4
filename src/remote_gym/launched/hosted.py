"""A server at another host that belongs to this program: started, held and reached by OpenSSH's client.

One connection does it all. The command that it runs there is `remote_gym.launched.holder`, which starts the server, or
holds the one that runs; and it forwards a Unix socket in a private folder here to the server's, in a private folder
there. So there is no port at either end, nobody but this user at both can reach the server, and TLS would add nothing
to what SSH does. A connection that breaks is made again for as long as the server waits for that, its lease.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import queue
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError, ConnectError, ConnectReason
from remote_gym.launched.connection import READY_TIMEOUT, Broken, Connection
from remote_gym.launched.holder import version
from remote_gym.launched.order import DIALECT, SOCKET
from remote_gym.launched.process import END_TIMEOUT, private_folder, raise_refusal
from remote_gym.logs import get_logger

logger = get_logger(__name__)

ANSWER_TIMEOUT = 10.0
"""Seconds for an answer over a connection that is there."""

STOP_TIMEOUT = ANSWER_TIMEOUT + END_TIMEOUT + ANSWER_TIMEOUT
"""Seconds for a server to end: until it is held, where a connection has broken, to close its environments, and to say
that it has."""

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts to connect anew; the last for all further ones."""

SSH_FAILED = 255
"""Exit status of ssh itself."""

LONGEST_FOLDER = 84
"""Bytes of its path, in which ssh can bind a control socket: it appends 17 of its own while it does."""

BOOT = (
    "import sys; sys.path = [*filter(None, sys.path)]; from remote_gym.launched.holder import main; main(sys.argv[1:])"
)
"""Code for a Python of that host, without its working directory in its path."""


class _Keeper:
    """Keeps a server at a host: the connection that it has, or is to have again.

    Args:
        host: As ssh takes it.
        words: The program at its far end.
        folder: Private one here.
        lease: Seconds for which the server goes on without a connection.
    """

    def __init__(self, host: str, words: Sequence[str], folder: Path, lease: float) -> None:
        self.host = host
        self.words = words
        self.folder = folder
        self.last_log = ""
        self.has_ended = threading.Event()
        self.is_held = threading.Event()
        self._lease = lease
        self._there: Mapping[str, Any] = {}
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="remote_gym-host", daemon=True)

    def start(self, order: Mapping[str, Any], timeout: float) -> int:
        """Start the server, and wait until it serves and can be reached from here.

        Returns:
            Its process's id there.

        Raises:
            ConfigError: As `LaunchedProcess.wait_until_ready`; if the program is not there, or of another release.
            ConnectError: Likewise; if the host cannot be reached.
        """
        connection = self._connection = Connection(self.host, self.words, self.folder)
        try:
            connection.wait_for_marker()
            hello = connection.receive(ANSWER_TIMEOUT)
            if hello.get("dialect") != DIALECT:
                raise ConfigError(
                    f"{self.words[0]!r} at {self.host!r} is of remote_gym {hello.get('version')}, which takes no order "
                    f"of remote_gym {version()}; install this release there, or name a Python that has it by at_python"
                )
            connection.send({"order": order, "lease": self._lease, "start_timeout": timeout})
            self._there = connection.receive(timeout + ANSWER_TIMEOUT)
            raise_refusal(self._there, f"at {self.host!r}")
            self._expect_held(connection)
        except Broken as broken:
            raise self._explained(connection) from broken
        self._thread.start()
        return int(self._there["pid"])

    def log(self, lines: int) -> str:
        """The last lines of the server's log; without a connection, what ssh says about that."""
        if self.has_ended.is_set():
            return self.last_log
        with self._asking:
            connection = self._connection
            try:
                if connection is None or not self.is_held.is_set():
                    raise Broken
                while not self._answers.empty():  # one that came too late for who asked
                    self._answers.get()
                connection.send({"log": lines})
                return "\n".join(self._answers.get(timeout=ANSWER_TIMEOUT).splitlines())
            except (Broken, queue.Empty):
                return f"(there is no connection to {self.host!r} at present) {self.said()}".rstrip()

    def said(self) -> str:
        """The last lines of ssh."""
        connection = self._connection  # which the thread may replace
        return "" if connection is None else connection.said()

    def stop(self, asked: float | None = None) -> None:
        """Have the server end, and wait for that; one that cannot be told ends by itself after its lease.

        Args:
            asked: When `ask_to_stop` was called, on `time.monotonic`, from which on it has its time; None for now.
        """
        begun = time.monotonic() if asked is None else asked

        def left(seconds: float) -> float:
            return max(0.0, begun + seconds - time.monotonic())

        self._stopping.set()
        if self._thread.is_alive():
            if self.is_held.wait(left(ANSWER_TIMEOUT)) and not self.has_ended.is_set():
                self._ask_to_stop()
                self.has_ended.wait(left(STOP_TIMEOUT))
            if not self.has_ended.is_set():
                logger.warning("the server at %s cannot be told to end; it does by itself", self.host)
        connection = self._connection
        if self._thread.is_alive():
            if connection is not None:
                connection.process.kill()
            self._thread.join(left(STOP_TIMEOUT + ANSWER_TIMEOUT))
        elif connection is not None:  # it has not come to serve
            connection.leave(left(ANSWER_TIMEOUT))

    def ask_to_stop(self) -> None:
        """Have the server end, without a wait for that; `stop` waits."""
        self._stopping.set()
        if not self._thread.is_alive():
            self.let_go()
        elif self.is_held.is_set():  # else the thread asks, once it is
            self._ask_to_stop()

    def let_go(self) -> None:
        """Have the server end, without a wait for that."""
        self._stopping.set()
        if (connection := self._connection) is not None:
            connection.let_go()

    def forget(self) -> None:
        """Leave it to the process that this one was forked from."""
        self._stopping.set()
        if (connection := self._connection) is not None:
            connection.forget()

    def _keep(self) -> None:
        try:
            while (connection := self._connection) is not None:
                self._follow(connection)
                self.is_held.clear()
                said = connection.said()
                connection.end()
                if self.has_ended.is_set() or self._stopping.is_set():
                    return
                logger.warning("the SSH connection to %s has ended; making another", self.host, details=said)
                self._connect_again()
        except Exception:
            # In a thread, where nobody else would hear of it, and those who wait for the server would wait for ever.
            logger.exception("the server at %s cannot be kept any more, and ends", self.host)
        finally:
            if (connection := self._connection) is not None:
                connection.leave(ANSWER_TIMEOUT)  # which takes no time where it has ended
            self.has_ended.set()
            self.is_held.set()  # for who waits
            shutil.rmtree(self.folder, ignore_errors=True)

    def _follow(self, connection: Connection) -> None:
        """Take what the program there says, until it says no more."""
        with contextlib.suppress(Broken):
            while True:
                said = connection.receive(None)
                if "log" in said:
                    self._answers.put(said["log"])
                elif "stopped" in said or "gone" in said:
                    self.last_log = said.get("gone", "")
                    self.has_ended.set()

    def _connect_again(self) -> None:
        """Hold the server by another connection; it counts as ended once it has been without one for too long."""
        deadline = time.monotonic() + self._lease + READY_TIMEOUT
        for attempt in itertools.count():
            if self._stopping.is_set() and attempt:
                self._connection = None
                return
            try:
                self._hold_again()
            except Broken as broken:
                if self.has_ended.is_set() or time.monotonic() > deadline:
                    self.last_log = self.last_log or str(broken)
                    self._connection = None
                    return
                logger.debug("cannot connect to %s: %s", self.host, broken)
                self._stopping.wait(PAUSES[min(attempt, len(PAUSES) - 1)])
            else:
                logger.info("connected to %s again", self.host)
                if self._stopping.is_set():
                    self._ask_to_stop()
                return

    def _hold_again(self) -> None:
        """Hold the server by another connection.

        Raises:
            Broken: If it cannot be made, with what ssh says.
        """
        try:
            connection = Connection(self.host, self.words, self.folder, [str(self._there["folder"])])
        except ConfigError as error:  # as where this program has no descriptor left, which passes
            raise Broken(str(error)) from error
        self._connection = connection
        try:
            connection.wait_for_marker()
            self._expect_held(connection)
        except Broken as broken:
            said = connection.said()
            connection.end()
            raise Broken(said) from broken

    def _expect_held(self, connection: Connection) -> None:
        answer = connection.receive(READY_TIMEOUT)
        if "held" not in answer:
            self.last_log = str(answer.get("gone", ""))
            self.has_ended.set()
            raise Broken
        connection.forward(self.folder / SOCKET, str(self._there["socket"]))
        self.is_held.set()

    def _ask_to_stop(self) -> None:
        if (connection := self._connection) is not None:
            with contextlib.suppress(Broken):
                connection.send({"stop": True})

    def _explained(self, connection: Connection) -> ConfigError | ConnectError:
        """The reason why the program at the far end did not do what was expected of it."""
        try:
            status: int | None = connection.process.wait(1.0)
        except subprocess.TimeoutExpired:
            status = None
        said = connection.said() or self.last_log
        if status == SSH_FAILED:
            text = (
                f"cannot connect to {self.host!r} by ssh, which has to work without questions (try: ssh -o "
                f"BatchMode=yes {self.host} true): {said}"
            )
            return ConnectError(text, reason=ConnectReason.UNREACHABLE)
        if status is not None:
            return ConfigError(
                f"{self.words[0]!r} at {self.host!r} cannot serve, and ended with status {status}: {said}; name a "
                f"Python there that has remote_gym {version()}",
                field="at_python",
                where="at_python",
            )
        return ConnectError(f"{self.words[0]!r} at {self.host!r} does not answer: {said}")


class HostedProcess:
    """A server's process at another host, which ends with this program; as `LaunchedProcess`.

    Args:
        host: As OpenSSH's client takes it.
        python: A Python there that has this package; None for the command ``remote-gym`` of its path.
        order: What to serve.
        lease: Seconds for which the server waits for a connection that broke.
        start_timeout: Seconds until it serves.

    Attributes:
        pid: The process's id there.
        folder: A private one here, with the socket that leads there.

    Raises:
        ConfigError: If the order cannot be served, or the program is not there, or of another release.
        ConnectError: If the host cannot be reached, or the server ends or is not ready in time.
    """

    def __init__(
        self, host: str, python: str | None, order: Mapping[str, Any], *, lease: float, start_timeout: float
    ) -> None:
        self._owner = os.getpid()
        self.folder = private_folder(LONGEST_FOLDER)
        words = ("remote-gym", "held") if python is None else (python, "-c", BOOT)
        self._keeper = _Keeper(host, words, self.folder, lease)
        _RUNNING.add(self._keeper)
        try:
            self.pid = self._keeper.start(order, start_timeout)
        except BaseException:
            self.stop()
            raise
        # Without a reference of the thread's to this object: where that is gone nobody can use the server any more.
        weakref.finalize(self, self._keeper.let_go).atexit = False

    @property
    def url(self) -> str:
        """Where it can be reached here."""
        return f"unix:{self.folder / SOCKET}"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return not self._keeper.has_ended.is_set()

    def log(self, lines: int) -> str:
        """The last lines that it has logged; those of ssh without a connection."""
        return self._keeper.log(lines)

    def said(self) -> str:
        """The last lines of ssh."""
        return self._keeper.said()

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        if self._owner != os.getpid():
            self._keeper.forget()
            return
        try:
            self._keeper.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


_RUNNING: weakref.WeakSet[_Keeper] = weakref.WeakSet()


def _forget_all() -> None:
    for keeper in tuple(_RUNNING):
        keeper.forget()
    _RUNNING.clear()  # lest this process's end be theirs


def _stop_all() -> None:
    keepers, asked = tuple(_RUNNING), time.monotonic()
    for keeper in keepers:  # all at once, and then wait for each
        keeper.ask_to_stop()
    for keeper in keepers:
        keeper.stop(asked)
        shutil.rmtree(keeper.folder, ignore_errors=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
atexit.register(_stop_all)
