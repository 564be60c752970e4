"""One connection to a host by OpenSSH's client, which runs a program there and forwards a Unix socket to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError
from remote_gym.launched.process import LINES
from remote_gym.logs.escaping import printable
from remote_gym.logs.tail import last_lines
from remote_gym.transport.readable import readable
from remote_gym.transport.ssh import CONNECT_TIMEOUT, in_shell, ssh_options

KEEPALIVE = 5
"""Seconds, as `remote_gym.transport.ssh.KEEPALIVE`: a break has to be noticed well within a lease."""

READY_TIMEOUT = CONNECT_TIMEOUT + 20.0
"""Seconds until a host has to answer: it may take its time over a key, and its shell and Python to start."""

FORWARD_TIMEOUT = 10.0
"""Seconds for what this machine's ssh is asked."""

MOST_BEFORE = 64 * 2**10
"""Bytes that a shell may print before it does what it is asked."""


class Broken(Exception):
    """A connection that is over, or does not answer."""


class Connection:
    """One run of ssh, and the program at its far end.

    Args:
        host: As ssh takes it.
        words: The program there, to which a marker and arguments are added.
        folder: Private one, for its control socket and what it says.
        arguments: Those.

    Raises:
        ConfigError: If there is no ssh.
    """

    def __init__(self, host: str, words: Sequence[str], folder: Path, arguments: Sequence[str] = ()) -> None:
        self._host = host
        self._control = folder / secrets.token_hex(2)
        self._said = folder / f"{self._control.name}.log"
        self._marker = secrets.token_hex(16)
        self._data = b""
        sharing = ("-M", "-o", "StreamLocalBindUnlink=yes", "-S", str(self._control))
        options = [*ssh_options(KEEPALIVE), *sharing]
        try:
            with self._said.open("wb") as said:
                self.process = subprocess.Popen(
                    ["ssh", "-T", *options, "--", host, in_shell([*words, self._marker, *arguments])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    bufsize=0,
                    start_new_session=True,  # Ctrl-C is for the program
                )
        except OSError as error:
            raise ConfigError(f"cannot connect to {host!r}: ssh does not start: {error.strerror}") from error

    def wait_for_marker(self) -> None:
        """Wait until the program there begins.

        Raises:
            Broken: If it does not.
        """
        before = 0
        for line in self._lines(time.monotonic() + READY_TIMEOUT):
            before += len(line)
            if line.endswith(self._marker.encode()):
                return
            if before > MOST_BEFORE:
                break
        raise Broken

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """The next line of the program.

        Raises:
            Broken: If none comes in time, no more comes, or it is none.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for line in self._lines(deadline):
            if line:  # else a heartbeat
                try:
                    content = _printable(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise Broken(f"{self._host!r} has sent what is no JSON") from error
                if not isinstance(content, dict):
                    raise Broken(f"{self._host!r} has sent what is no object")
                return content
        raise Broken

    def send(self, content: Mapping[str, Any]) -> None:
        """Send a line to the program.

        Raises:
            Broken: If it is gone.
        """
        data = memoryview(json.dumps(content).encode() + b"\n")
        assert self.process.stdin is not None
        try:
            while data:
                data = data[self.process.stdin.write(data) :]
        except (OSError, ValueError) as error:  # or closed
            raise Broken from error

    def forward(self, here: Path, there: str) -> None:
        """Let connections to a Unix socket here reach one there.

        Raises:
            Broken: If ssh does not.
        """
        # By the connection's control socket, and without a configuration, whose own forwardings it would ask for, too.
        command = ["ssh", "-F", os.devnull, "-S", str(self._control), "-O", "forward", "-L", f"{here}:{there}"]
        try:
            here.unlink(missing_ok=True)
            with self._said.open("ab") as said:
                subprocess.run(
                    [*command, "--", self._host],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    check=True,
                    timeout=FORWARD_TIMEOUT,
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise Broken from error

    def said(self) -> str:
        """The last lines of ssh, and of what the program there wrote to standard error; empty without a descriptor."""
        with contextlib.suppress(OSError):
            return last_lines(self._said, LINES)
        return ""

    def leave(self, timeout: float) -> None:
        """Have the program there end, wait for that, and end the connection. Nobody may be reading from it.

        Args:
            timeout: Seconds for the program.
        """
        self.let_go()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        self.end()

    def end(self) -> None:
        """End it, whatever it does; once more does nothing. Nobody may be reading from it."""
        self.process.kill()
        self.process.wait()
        self.forget()
        for path in (self._control, self._said):
            with contextlib.suppress(OSError):
                path.unlink()

    def let_go(self) -> None:
        """Have the program there end: its input does."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def forget(self) -> None:
        """Close this process's ends of its pipes, which are those of the process that it was forked from."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _lines(self, deadline: float | None) -> Iterator[bytes]:
        """Lines that the program writes, without their ends, until there are no more or none comes in time.

        Raises:
            Broken: If this process cannot read them.
        """
        assert self.process.stdout is not None
        while True:
            while b"\n" not in self._data:
                left = None if deadline is None else deadline - time.monotonic()
                try:
                    if not readable([self.process.stdout], left):
                        return
                    data = self.process.stdout.read(65536)
                except (OSError, ValueError) as error:  # or closed
                    raise Broken from error
                if not data:
                    return
                self._data += data
            line, _, self._data = self._data.partition(b"\n")
            yield line.rstrip(b"\r")


def _printable(content: Any) -> Any:
    """A host's words, which may end in a terminal, without control characters other than ends of lines."""
    if isinstance(content, str):
        return "\n".join(map(printable, content.split("\n")))
    if isinstance(content, dict):
        return {name: _printable(value) for name, value in content.items()}
    return [_printable(each) for each in content] if isinstance(content, list) else content
