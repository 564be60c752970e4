"""A worker as the server sees it: a socket to ask over, another to hand connections to, and an end that is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from remote_gym.errors import EncodingError, LossReason
from remote_gym.ipc.close_reasons import CLOSED, CloseReason, lost
from remote_gym.ipc.control import WorkerCommand, WorkerEvent
from remote_gym.ipc.counters import Counters
from remote_gym.logs import get_logger
from remote_gym.server.launch.connections import DirectConnections
from remote_gym.server.launch.disconnects import Disconnects
from remote_gym.transport.framing import HEADER_BYTES, read_length, write_length

logger = get_logger(__name__)

_BUFFER_BYTES = 2**12
"""Bytes of a worker's answers that are read at once: most are whole, and a server may have a thousand workers."""

SETTLE = 0.5
"""Seconds between the end of a worker's socket and word of how it ended, or the other way round, at most."""


KILL_TIMEOUT = 5.0
"""Seconds to wait for word that a killed worker has ended."""


_FAULTS = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"}
"""Signals by which a process ends that did wrong. Others come from somebody else, or from the system."""


async def _no_stacks() -> str:
    return ""


async def _do_nothing(_: bool) -> None:
    pass


THREAD_ENDED = "its thread ended"
"""How a worker has ended that was a thread."""


class WorkerHandle(asyncio.BufferedProtocol):
    """The server's end of a worker's two sockets. Connect it before it is used.

    Args:
        session: For messages.
        kill: Ends the worker if it does not end by itself.
        message_bytes: Longest message accepted from the worker.
        counters: Tells what it has done, without asking it.
        stacks: Finds out where its Python threads are; or why that cannot be found out.

    Attributes:
        exited: Done when the worker's process or thread has ended; the result says how.
        gone: Done when it can no longer be asked; the result is the reason.
        pid: Its process; None where it is a thread.
        at_end: Called when it has been closed, with whether it has ended by itself.
        last_lines: Gives the end of what it has printed, each line printable; none where it is a thread.
        label_output: Called with the session whose output it is from now on.
    """

    def __init__(
        self,
        session: str,
        kill: Callable[[], None],
        message_bytes: int,
        *,
        counters: Callable[[], Counters] = Counters,
        stacks: Callable[[], Awaitable[str]] = _no_stacks,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[str] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self.pid: int | None = None
        self.counters = counters
        self._session = session
        self._kill = kill
        self._stacks = stacks
        self._message_bytes = message_bytes
        self.last_lines: Callable[[], str] = lambda: ""
        self.label_output: Callable[[str], None] = lambda _: None
        self.at_end: Callable[[bool], Awaitable[None]] = _do_nothing
        self._clients = DirectConnections(session)
        self._polling = 0  # microseconds, as it was last told
        self._closing = False  # whether it is to end by itself
        self._answer: asyncio.Future[bytes] | None = None  # to the request that the worker has
        self._answered: asyncio.Future[None] | None = None  # where somebody waits to ask next
        self._transport: asyncio.Transport | None = None
        self._failure: str | None = None
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._message: bytearray | None = None  # one that the buffer does not hold
        self._filled = 0  # of either

    @property
    def on_event(self) -> Callable[[int, int], None]:
        """Called with what the worker tells beside its answers, and the value that comes with it."""
        return self._clients.on_event

    @on_event.setter
    def on_event(self, on_event: Callable[[int, int], None]) -> None:
        self._clients.on_event = on_event

    @property
    def is_asked(self) -> bool:
        """Whether an answer of it is waited for."""
        return self._answer is not None or self._answered is not None

    @property
    def ending(self) -> bool:
        """Whether it is gone or as good as gone, though nobody has been told why."""
        if self.gone.done():
            return False
        return (
            self._failure is not None or self._transport is None or self._transport.is_closing() or self.exited.done()
        )

    async def connect(
        self, requests: socket.socket, control: socket.socket, *, disconnects: Disconnects | None = None
    ) -> None:
        """Take the server's ends of the worker's sockets, and what waits for the ends of its clients' connections."""
        requests.setblocking(False)
        self._clients.connect(control, Disconnects() if disconnects is None else disconnects)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=requests)

    async def ask(self, data: bytes | memoryview) -> bytes:
        """Send one message and wait for the one that answers it.

        Raises:
            SessionLost: If the worker is gone, or ends before it answers.
        """
        # One at a time, so that who asks much cannot have it pile up here. The one before may have been cancelled; its
        # answer is waited for all the same, and is not taken for this one's.
        session = self._session
        while True:
            if self._transport is None or self.gone.done():
                reason = self.gone.result() if self.gone.done() else "it is not connected"
                raise lost(session, reason)
            if session is not self._session:  # it is another's by now, to whom this would be answered
                raise lost(session, CLOSED)
            if self._answer is None:
                break
            if self._answered is None:
                self._answered = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._answered)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines((write_length(len(data)), data))
        # Not shielded, which would cost every request a turn of the event loop.
        return await self._answer

    def hand_over(self, sock: socket.socket) -> int | None:
        """Give a connection to the worker. The caller closes its own descriptor of it.

        Returns:
            Its number, with which the worker reports it attached; None if the worker is not there to take it.
        """
        return self._clients.hand_over(sock)

    def cut_direct(self, *, taken_over: bool) -> None:
        """Let the worker end its direct connection, if it has one, and have none of those it is admitting count.

        Args:
            taken_over: Whether clients are told that a newer connection has taken over: those on their way in when they
                have attached. Else all are closed out without a word, and ask here why.
        """
        self._clients.outdate()
        self._clients.command(WorkerCommand.TAKEN_OVER if taken_over else WorkerCommand.DROP)

    def set_polling(self, microseconds: int) -> None:
        """Let the worker look for requests that long before it sleeps. It is told what it does not know yet."""
        if microseconds != self._polling and self._clients.command(WorkerCommand.POLL, microseconds):
            self._polling = microseconds

    def drain(self) -> None:
        """Let the worker begin no more episodes, and say when none runs."""
        self._clients.command(WorkerCommand.DRAIN)

    def limit_idle(self, seconds: float) -> None:
        """Let the worker say when no request came for so long."""
        self._clients.command(WorkerCommand.LIMIT_IDLE, min(int(1000 * seconds), 2**32 - 1))

    async def leave(self, timeout: float) -> bool:
        """Let the worker forget its session, and wait for another one, to which `assign` gives it.

        Args:
            timeout: Seconds that it has for that.

        Returns:
            Whether it waits; else it closes its environment, or is to be closed.
        """
        left: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def on_event(event: int, value: int) -> None:
            if event == WorkerEvent.LEFT and not left.done():
                left.set_result(value == 1)

        self._session = f"{self._session}, which has ended"  # in whose name nothing is asked any more
        self._clients.on_event = on_event
        self._clients.outdate()
        if not self._clients.command(WorkerCommand.LEAVE):
            return False
        ends: list[asyncio.Future[Any]] = [left, self.gone]
        await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        self._clients.on_event = lambda event, value: None
        return left.done() and left.result() and not self.gone.done()

    def assign(self, session: str) -> None:
        """From now on it is that session's, or waits under that name: what comes of an earlier one is refused."""
        self._session = self._clients.session = session
        self._polling = 0
        self.label_output(session)

    async def close(self, timeout: float, *, quietly: bool = False) -> None:
        """Let the worker close its environment; kill it if it takes longer than `timeout` seconds.

        Args:
            timeout: Seconds.
            quietly: Whether nobody wants to know where a worker is that is killed.
        """
        self._closing = True
        self._clients.on_event = lambda event, value: None
        if self._transport is not None:
            self._transport.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), timeout)
        except asyncio.TimeoutError:
            if not quietly:
                await self._log_stacks(f"its worker did not end within {timeout:.1f} s; killing it")
            self._kill()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.exited), KILL_TIMEOUT)
            self._clients.close()
        await self.at_end(self.exited.done() and self.exited.result() in (describe_exit(0), THREAD_ENDED))

    async def end(self, reason: str) -> None:
        """Kill the worker, whatever it is doing. Who uses it is told the reason; where it was, the log is."""
        if self._failure is not None or self.gone.done():
            return
        self._failure = reason
        await self._log_stacks(f"{reason}; killing it")
        self._kill()
        if self.pid is not None:
            # Not before it is dead: it would see the connection end, and tell a direct client some other reason.
            await asyncio.wait([self.exited], timeout=KILL_TIMEOUT)
        self._fail(reason)  # rather than wait for its end: what the environment has started may hold the socket open

    def set_exited(self, how: str) -> None:
        """The process or thread has ended."""
        if not self.exited.done():
            self.exited.set_result(how)
        # Who is attached learns of it by the end of the connection, and asks the server why.
        self._clients.close()
        # Its last words may still be on their way, and the socket's end after them; but a process that the environment
        # forked may hold the socket open, so that the end never comes.
        if self._transport is not None:
            asyncio.get_running_loop().call_later(SETTLE, self._transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102
        target = self._buffer if self._message is None else memoryview(self._message)
        return target[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102
        self._filled += nbytes
        if self._message is not None:
            if self._filled == len(self._message):
                message, self._message, self._filled = bytes(self._message), None, 0
                self._take(message)
        elif self._filled >= HEADER_BYTES:
            try:
                size = read_length(self._buffer[:HEADER_BYTES], self._message_bytes)
            except EncodingError as error:
                self._break(f"its worker: {error}")
                return
            end = HEADER_BYTES + size
            if end > len(self._buffer):
                self._message = bytearray(size)
                self._message[: self._filled - HEADER_BYTES] = self._buffer[HEADER_BYTES : self._filled]
                self._filled -= HEADER_BYTES
            elif self._filled > end:
                self._break("its worker sent more than it was asked for")
            elif self._filled == end:
                self._filled = 0
                self._take(bytes(self._buffer[HEADER_BYTES:end]))

    def _take(self, message: bytes) -> None:
        """Give a message to whoever asked for it."""
        if self._answer is None:
            self._break("its worker spoke without being asked")
            return
        answer, self._answer = self._answer, None
        if not answer.done():  # else nobody waits for it any more
            answer.set_result(message)
        self._let_next_ask()

    def _let_next_ask(self) -> None:
        if self._answered is not None:
            self._answered.set_result(None)
            self._answered = None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        if not self._closing:  # else the worker tells its client why, if it can, before it ends
            self._clients.close()
        self._settling = asyncio.ensure_future(self._settle())

    def _break(self, how: str) -> None:
        """Give up a worker that does not keep to what was agreed."""
        self._fail(CloseReason(how, LossReason.CRASHED))

    def _fail(self, reason: str) -> None:
        self._failure = reason
        assert self._transport is not None
        self._transport.abort()

    async def _log_stacks(self, what: str) -> None:
        stacks = await self._stacks()
        logger.warning("session %s: %s; where it is:", self._session, what, details=stacks, session=self._session)

    async def _settle(self) -> None:
        reason = self._failure
        if reason is None:
            with contextlib.suppress(asyncio.TimeoutError):
                reason = await asyncio.wait_for(asyncio.shield(self.exited), SETTLE)
        ending = CloseReason.of(reason or CloseReason("its worker closed its connection", LossReason.CRASHED))
        self.gone.set_result(CloseReason(ending, ending.reason, self.last_lines()))
        if self._answer is not None:
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_exception(lost(self._session, self.gone.result()))
        self._let_next_ask()


def describe_exit(code: int) -> CloseReason:
    """Say in words how a process ended.

    Args:
        code: Its exit status, or minus the number of the signal that ended it.
    """
    if code >= 0:
        return CloseReason(f"its worker ended with status {code}", LossReason.CRASHED)
    name = f"signal {-code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
    why = ": it had used its processor time up (ServerOptions.rlimits, 'cpu')" if name == "SIGXCPU" else ""
    reason = LossReason.CRASHED if name in _FAULTS else LossReason.KILLED
    return CloseReason(f"its worker was ended by {name}{why}", reason)
