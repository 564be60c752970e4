"""What workers print, written to the server's log."""

from __future__ import annotations

import asyncio
import sys

from remote_gym.logs import get_logger

logger = get_logger(__name__)


def printable(line: str) -> str:
    """A line of somebody's text as a log may show it."""
    # Control characters could forge lines of the log, or command the terminal that shows it.
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


class Output(asyncio.Protocol):
    """Writes what a worker prints to the server's log, line by line.

    An environment that prints without end is slowed down rather than the server: it waits until its lines are read.
    """

    LONGEST = 16 * 1024
    LINES_AT_ONCE = 200
    PAUSE = 0.05
    """Seconds before the next `LINES_AT_ONCE` lines are written."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._unread = bytearray()
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._unread += data
        self._write_some()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        for _ in range(self.LINES_AT_ONCE):
            self._write_line()
        if self._unread:
            self._log(f"({len(self._unread)} bytes more)")
            self._unread.clear()  # or a pause that ends only now would have them written after all

    def _write_some(self) -> None:
        assert self._transport is not None
        for _ in range(self.LINES_AT_ONCE):
            if b"\n" not in self._unread and len(self._unread) < self.LONGEST:
                if not self._transport.is_closing():
                    self._transport.resume_reading()
                return
            self._write_line()
        if not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self.PAUSE, self._write_some)

    def _write_line(self) -> None:
        if not self._unread:
            return
        end = self._unread.find(b"\n", 0, self.LONGEST)
        line = self._unread[: self.LONGEST if end < 0 else end]
        del self._unread[: len(line) + (end >= 0)]
        self._log(printable(line.decode(errors="replace").rstrip("\r")))

    def _log(self, line: str) -> None:
        if logger.hasHandlers():
            logger.info("[%s] %s", self._session, line)
        else:  # a script that configured no logging is still to see what its environments print
            print(f"[{self._session}] {line}", file=sys.stderr, flush=True)
