"""A command that ends in a Python, which is given `remote_gym.guest.program` to run: messages to it and back.

The Python is started with a short program that reads one line of its standard input and runs it. That line reads the
program itself. It begins its first message with a random marker, which is sought in what a shell may have printed
before it. From then on both ends send messages, each after its length. What is printed there is standard error, which
goes to this process's, and so to the log.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shlex
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import IO

import numpy as np

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, LossReason, SessionLost
from remote_gym.guest import program
from remote_gym.ipc.variables import for_other_pythons
from remote_gym.logs.escaping import printable
from remote_gym.worker.environment.user_code import FromGuest

BOOT = "import io;exec(io.open(0,'rb',0,closefd=False).readline())"
"""First code of the Python: one line, since some launchers take no more. It reads no further than its line."""

MOST_BEFORE = 64 * 2**10
"""Bytes that a shell may print before the marker."""

KEPT_LINES = 4 * 2**10
"""Bytes of what was printed last that an error repeats."""

KEPT_STACKS = 64 * 2**10
STACKS_TIMEOUT = 1.5
"""Seconds in which a guest says where it is: less than the server waits for it."""
STACKS_PAUSE = 0.1
"""Seconds after which what has not grown is taken to be all."""

LOOK_MS = 500
"""Milliseconds after which a guest that is awaited is looked at: what it has started may hold its pipe open."""

END_TIMEOUT = 3.0
"""Seconds that a guest has to end by itself."""
SETTLE = 1.0
"""Seconds in which what a dead guest has printed arrives."""

_STAGE = """
import os, sys
if sys.version_info < (3, 6):
    sys.exit("a guest needs Python 3.6 or newer, and this is " + sys.version.split()[0] + " at " + str(sys.executable))
def read(size):
    pieces = []
    while size:
        piece = os.read(0, min(size, 65536))
        if not piece:
            sys.exit("standard input ended before the program had arrived")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
sys.path[:] = [folder for folder in sys.path if folder]  # where no module of the program's is to be found
names = {{"__name__": {name!r}, "__file__": "<remote_gym guest>"}}
exec(compile(read({size}), names["__file__"], "exec"), names)
names["main"]({marker!r}.encode())
"""
_SHOWN = 120  # characters of a long command's begin, and of its end
_HEAD = struct.Struct("<I")
_F_SETPIPE_SZ = 1031  # Linux's
_LARGE = 2**16
_LARGE_PIPE = 2**20


class GuestLost(FromGuest, SessionLost):
    """A guest that has ended, or sent what it may not: its environments are gone."""


class GuestProcess:
    """One guest, which hosts one environment or several.

    Args:
        command: Words of a command that ends in a Python.
        folder: Its working directory.
        limits: Bounds on what it sends.
        timeout: Seconds until its first message has to be there.
        variables: Environment variables of the command, beside those that any other Python gets.
        first_line: What it reads before our program; empty for nothing.
        ends_in_shell: Whether its last word is a line of a shell, as `ssh` has one.

    Attributes:
        answers: Descriptor of what it sends.
        printed: What it prints.

    Raises:
        ConfigError: If no Python runs, with the last that it printed.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: str,
        limits: Limits,
        timeout: float,
        *,
        variables: Mapping[str, str] | None = None,
        first_line: str = "",
        ends_in_shell: bool = False,
    ) -> None:
        self._command = list(command)
        self._most = limits.message_bytes
        self._lost: GuestLost | None = None
        self._has_large_pipe = False
        self._is_awaited = False  # while a request has been sent and not been answered
        try:
            process = subprocess.Popen(
                _with_boot(command, ends_in_shell),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env={**for_other_pythons(), **(variables or {})},
            )
        except OSError as error:
            raise ConfigError(f"the command {self.command!r} does not start: {error.strerror}") from error
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._requests, self.answers = process.stdin.fileno(), process.stdout.fileno()
        self.printed = _Printed(process.stderr)
        self._poll = select.poll()
        self._poll.register(self.answers, select.POLLIN)
        self._poll_both = select.poll()
        self._poll_both.register(self.answers, select.POLLIN)
        self._poll_both.register(self._requests, select.POLLOUT)
        os.set_blocking(self._requests, False)  # it may never read; its own end of the pipe stays as it is
        try:
            self.first = self._start(f"{first_line}\n".encode() if first_line else b"", time.monotonic() + timeout)
        except GuestLost as error:
            self.close(0.0)
            # The reason of the engine's, or of ssh, before what follows from it.
            text = f"; it printed:\n{error.output}\nNo" if error.output else ", and no"
            raise ConfigError(f"{error}{text} Python of 3.6 or newer ran there") from error
        except BaseException:
            self.close(0.0)
            raise

    @property
    def command(self) -> str:
        """The command as a shell would take it; of a long one the begin and the end, which says what is to run."""
        text = printable(shlex.join(self._command))
        return text if len(text) <= 2 * _SHOWN + 3 else f"{text[:_SHOWN]} … {text[-_SHOWN:]}"

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    @property
    def is_lost(self) -> bool:
        """Whether it is known to be gone."""
        return self._lost is not None

    def ask(self, request: bytes) -> memoryview:
        """Send a message, and return the one that answers it.

        Raises:
            GuestLost: If the guest is gone, or sent what is no message. It is killed then.
        """
        if self._lost is not None:
            raise self._lost
        try:
            message = _HEAD.pack(len(request)) + request
            written = self._write_some(message)
            if written < len(message):
                self._write_rest(memoryview(message)[written:])
            self._is_awaited = True
            # A short answer, which comes in one piece, is taken here: a step passes through, and calls cost it.
            data = os.read(self.answers, _LARGE) if self._poll.poll(LOOK_MS) else b""
            if len(data) > _HEAD.size and _HEAD.unpack_from(data)[0] == len(data) - _HEAD.size <= self._most:
                return memoryview(data)[_HEAD.size :]
            return self._receive(data, None)
        except OSError:  # it reads no more
            raise self._lose(None) from None
        except GuestLost:
            raise
        except BaseException:  # a signal's handler: what is answered next would be this
            self._lose("was left before it had answered")
            raise
        finally:
            self._is_awaited = False

    def where_it_is(self) -> str:
        """Stacks of its threads while it is awaited; empty if it does not say."""
        if not self._is_awaited:
            return ""
        begin = self.printed.total
        if self._write_some(_HEAD.pack(0)) != _HEAD.size:
            return ""
        return self.printed.stacks_since(begin)

    def lose(self, why: str) -> GuestLost:
        """Give up a guest that did not keep to what was agreed, and return the error that says so."""
        return self._lose(why)

    def close(self, timeout: float = END_TIMEOUT) -> None:
        """End the guest: it ends by itself once nobody asks it any more, or is killed."""
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._kill()
        self._lost = self._lost or GuestLost("its guest was closed", reason=LossReason.CLOSED)
        self.printed.settle()

    def _start(self, before_all: bytes, deadline: float) -> memoryview:
        marker = secrets.token_hex(16)
        source = resources.files("remote_gym.guest").joinpath("program.py").read_bytes()
        stage = _STAGE.format(name=program.GUEST, size=len(source), marker=marker)
        rest, before = memoryview(before_all + f"exec({stage!r})\n".encode() + source), b""
        try:
            while rest or (at := before.find(marker.encode())) < 0:
                if len(before) > MOST_BEFORE:
                    raise self._lose(f"printed over {MOST_BEFORE:,} bytes before anything of ours ran")
                if not rest or self._may_read_first(deadline):
                    before += self._read(deadline)
                else:
                    rest = rest[self._write_some(rest) :]
        except OSError:
            raise self._lose(None) from None
        return self._receive(before[at + len(marker) :], deadline)

    def _write_some(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._requests, data)
        except BlockingIOError:
            return 0

    def _write_rest(self, rest: memoryview) -> None:
        while rest:
            if self._may_read_first(None):
                self._read(None)
                raise self._lose("sent something before it had read what it was asked")
            rest = rest[self._write_some(rest) :]

    def _may_read_first(self, deadline: float | None) -> bool:
        """Wait until something can be read, the end included, or written; return whether it is to be read."""
        ready = self._wait(deadline, self._poll_both)
        return any(descriptor == self.answers for descriptor, _ in ready)

    def _receive(self, begun: bytes, deadline: float | None) -> memoryview:
        """One message, of which some has been read.

        Returns:
            Of its own memory, which can be written to where it is large.
        """
        data = begun or self._read(deadline)
        while len(data) < _HEAD.size:
            data += self._read(deadline)
        (size,) = _HEAD.unpack_from(data)
        found = len(data) - _HEAD.size
        if size > self._most or found > size or size == 0:
            raise self._lose(f"sent a message of {size:,} bytes, or more than one")
        if found == size:
            return memoryview(data)[_HEAD.size :]
        # Memory that the system provides only as it is written to, so that a length alone costs none.
        whole = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]
        whole[:found] = data[_HEAD.size :]
        self._make_room(size)
        while found < size:
            self._wait(deadline)
            count = os.readv(self.answers, [whole[found:]])
            if count == 0:
                raise self._lose(None)
            found += count
        return whole

    def _read(self, deadline: float | None) -> bytes:
        self._wait(deadline)
        data = os.read(self.answers, _LARGE)
        if not data:
            raise self._lose(None)
        return data

    def _wait(self, deadline: float | None, poll: select.poll | None = None) -> list[tuple[int, int]]:
        """Wait until something can be read, the end included, or what else is polled for."""
        while not (ready := (poll or self._poll).poll(LOOK_MS)):
            if self._process.poll() is not None:
                raise self._lose(None)
            if deadline is not None and time.monotonic() > deadline:
                raise self._lose("did not answer in time")
        return ready

    def _make_room(self, size: int) -> None:
        """Have fewer, larger pieces where messages are large: the system lets a user have only so many such pipes."""
        if size > _LARGE and not self._has_large_pipe:
            self._has_large_pipe = True
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.fcntl(self.answers, _F_SETPIPE_SZ, _LARGE_PIPE)

    def _lose(self, why: str | None) -> GuestLost:
        """The error to raise, from now on, for what has happened: why the guest is given up, or None where it ended."""
        if self._lost is None:
            reason = LossReason.CRASHED
            if why is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(SETTLE)
                why, reason = _describe_end(self._process.returncode)
            self._kill()
            self.printed.settle()
            text = f"the command {self.command!r} {why}"
            self._lost = GuestLost(text, reason=reason, output=self.printed.last_lines())
        return self._lost

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SETTLE)


def _with_boot(command: Sequence[str], ends_in_shell: bool) -> list[str]:
    added = ["-c", BOOT]
    return [*command[:-1], f"{command[-1]} {shlex.join(added)}"] if ends_in_shell else [*command, *added]


def _describe_end(code: int | None) -> tuple[str, LossReason]:
    if code is None:
        return "closed its standard output", LossReason.CRASHED
    if code >= 0:
        return f"ended with status {code}", LossReason.CRASHED
    name = f"signal {-code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
    faults = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    return f"was ended by {name}", LossReason.CRASHED if name in faults else LossReason.KILLED


class _Printed:
    """Passes on what a guest prints, and keeps the last of it.

    A thread, since a guest that prints while nobody asks it must not have to wait; here it meets no environment that
    forks.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = b""
        self.total = self._forgotten = 0  # bytes that have been printed; and of them, those not to be repeated
        self._thread = threading.Thread(target=self._pass_on, name="guest's output", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        # Closed here and nowhere else: what the guest has started may hold the pipe open for as long as it likes.
        with self._stream, contextlib.suppress(OSError, ValueError):  # ours was closed
            while data := os.read(self._stream.fileno(), _LARGE):
                self._kept = (self._kept + data)[-KEPT_STACKS:]
                self.total += len(data)
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(2, rest) :]

    def settle(self) -> None:
        """Wait until all is there, or something that the guest has started still holds the pipe."""
        self._thread.join(SETTLE)

    def forget(self) -> None:
        """Let nothing that has been printed until now be repeated."""
        self._forgotten = self.total

    def last_lines(self) -> str:
        """The last that was printed, with control characters escaped."""
        count = min(KEPT_LINES, self.total - self._forgotten)
        return "\n".join(map(printable, self._kept[-count:].decode("utf-8", "replace").splitlines() if count else ()))

    def stacks_since(self, begin: int) -> str:
        """Stacks that are printed from then on, once they are all there; empty if none come."""
        end, before, found = time.monotonic() + STACKS_TIMEOUT, 0, b""
        while time.monotonic() < end and not (b"most recent call first" in found and before == self.total):
            before = self.total
            time.sleep(STACKS_PAUSE)
            found = self._kept[-(self.total - begin) :] if self.total > begin else b""
        return found.decode("utf-8", "replace") if b"most recent call first" in found else ""
