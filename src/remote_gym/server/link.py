"""A worker as the server sees it: a socket to ask over, another to hand connections to, and an end that is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable

from remote_gym.errors import SessionLost
from remote_gym.server.handover import ToServer, ToWorker, hear, tell

logger = logging.getLogger(__name__)

SETTLE = 0.5
"""Seconds between the end of a worker's socket and word of how it ended, or the other way round, at most."""


KILL_TIMEOUT = 5.0
"""Seconds to wait for word that a killed worker has ended."""


class Worker(asyncio.BufferedProtocol):
    """The server's end of a worker's two sockets. Connect it before it is used.

    Args:
        session: For messages.
        kill: Ends the worker if it does not end by itself.
        message_bytes: Longest message accepted from the worker.

    Attributes:
        exited: Done when the worker's process or thread has ended; the result says how.
        gone: Done when it can no longer be asked; the result is the reason.
        on_direct: Called with True when a client has attached to the worker directly, with False when it has left.
    """

    def __init__(self, session: str, kill: Callable[[], None], message_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[str] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self.on_direct: Callable[[bool], None] = lambda _: None
        self._session = session
        self._kill = kill
        self._message_bytes = message_bytes
        self._handover: socket.socket | None = None
        self._handed_over = 0  # direct connections so far
        self._stale = 0  # how many of them came before the session was last taken over
        self._answer: asyncio.Future[bytes] | None = None  # to the request that the worker has
        self._transport: asyncio.Transport | None = None
        self._failure: str | None = None
        self._header = bytearray(4)
        self._message: bytearray | None = None  # None while the header is being read
        self._filled = 0

    @property
    def ending(self) -> bool:
        """Whether its connection has ended, though not yet been told why."""
        return not self.gone.done() and (self._transport is None or self._transport.is_closing() or self.exited.done())

    async def connect(self, requests: socket.socket, handover: socket.socket) -> None:
        """Take the server's ends of the worker's sockets."""
        requests.setblocking(False)
        handover.setblocking(False)
        loop = asyncio.get_running_loop()
        self._handover = handover
        loop.add_reader(handover, self._hear)
        await loop.create_connection(lambda: self, sock=requests)

    async def ask(self, data: bytes) -> bytes:
        """Send one message and wait for the one that answers it.

        Raises:
            SessionLost: If the worker is gone, or ends before it answers.
        """
        # One at a time, so that who asks much cannot have it pile up here. The one before may have been cancelled; its
        # answer is waited for all the same, and is not taken for this one's.
        while True:
            if self._transport is None or self.gone.done():
                reason = self.gone.result() if self.gone.done() else "it is not connected"
                raise SessionLost(f"session {self._session}: {reason}")
            if self._answer is None:
                break
            await asyncio.wait([self._answer])
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines((len(data).to_bytes(4, "big"), data))
        return await asyncio.shield(self._answer)

    def hand_over(self, sock: socket.socket) -> bool:
        """Give a connection to the worker. The caller closes its own descriptor of it.

        Returns:
            Whether the worker is there to take it.
        """
        self._handed_over += 1
        return self._tell(ToWorker.CONNECTION, self._handed_over, sock.fileno())

    def cut_direct(self) -> None:
        """Let the worker end its direct connection, or the one that it is admitting, if it has one."""
        self._stale = self._handed_over
        self._tell(ToWorker.CUT)

    def set_polling(self, microseconds: int) -> None:
        """Let the worker look for requests that long before it sleeps."""
        self._tell(ToWorker.POLL, microseconds)

    async def close(self, timeout: float) -> None:
        """Let the worker close its environment; kill it if it takes longer than `timeout` seconds."""
        if self._transport is not None:
            self._transport.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), timeout)
        except asyncio.TimeoutError:
            logger.warning("session %s: its worker did not end within %.1f s; killing it", self._session, timeout)
            self._kill()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.exited), KILL_TIMEOUT)

    def set_exited(self, how: str) -> None:
        """The process or thread has ended."""
        if not self.exited.done():
            self.exited.set_result(how)
        # Its last words may still be on their way, and the socket's end after them; but a process that the environment
        # forked may hold the socket open, so that the end never comes.
        if self._transport is not None:
            asyncio.get_running_loop().call_later(SETTLE, self._transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102
        target = self._header if self._message is None else self._message
        return memoryview(target)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102
        self._filled += nbytes
        if self._message is None:
            if self._filled < len(self._header):
                return
            size = int.from_bytes(self._header, "big")
            if size > self._message_bytes:
                self._fail(f"its worker sent a message of {size:,} bytes; the limit is {self._message_bytes:,}")
                return
            self._message, self._filled = bytearray(size), 0
            if size:
                return
        if self._filled == len(self._message):
            message, self._message, self._filled = bytes(self._message), None, 0
            if self._answer is None:
                self._fail("its worker spoke without being asked")
                return
            answer, self._answer = self._answer, None
            answer.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        self._forget_handover()
        self._settling = asyncio.ensure_future(self._settle())

    def _tell(self, kind: ToWorker, value: int = 0, descriptor: int | None = None) -> bool:
        if self._handover is None:
            return False
        try:
            tell(self._handover, kind, value, descriptor)
        except OSError as error:  # it is ending, or so far behind that its buffer is full
            logger.debug("session %s: its worker does not listen: %s", self._session, error)
            return False
        return True

    def _hear(self) -> None:
        assert self._handover is not None
        try:
            heard = hear(self._handover)
        except OSError:
            heard = None
        if heard is None:
            self._forget_handover()
            return
        kind, number, _ = heard
        # A client that gave up connecting goes on over gRPC; what it sent until then may arrive later, and be admitted.
        if kind != ToServer.ATTACHED or number > self._stale:
            self.on_direct(kind == ToServer.ATTACHED)

    def _forget_handover(self) -> None:
        if self._handover is not None:
            asyncio.get_running_loop().remove_reader(self._handover)
            self._handover.close()
            self._handover = None

    def _fail(self, reason: str) -> None:
        self._failure = reason
        assert self._transport is not None
        self._transport.abort()

    async def _settle(self) -> None:
        reason = self._failure
        if reason is None:
            with contextlib.suppress(asyncio.TimeoutError):
                reason = await asyncio.wait_for(asyncio.shield(self.exited), SETTLE)
        self.gone.set_result(reason or "its worker closed its connection")
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.set_exception(SessionLost(f"session {self._session}: {self.gone.result()}"))
            answer.exception()  # seen, though the one who asked may have gone


def describe_exit(code: int) -> str:
    """Say in words how a process ended.

    Args:
        code: Its exit status, or minus the number of the signal that ended it.
    """
    if code >= 0:
        return f"its worker ended with status {code}"
    with contextlib.suppress(ValueError):
        return f"its worker was ended by {signal.Signals(-code).name}"
    return f"its worker was ended by signal {-code}"


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
        text = line.decode(errors="replace").rstrip("\r")
        # Control characters could forge lines of the log, or command the terminal that shows it.
        self._log("".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text))

    def _log(self, line: str) -> None:
        if logger.hasHandlers():
            logger.info("[%s] %s", self._session, line)
        else:  # a script that configured no logging is still to see what its environments print
            print(f"[{self._session}] {line}", file=sys.stderr, flush=True)
