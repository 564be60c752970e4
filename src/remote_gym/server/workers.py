"""Workers as the server sees them: a connection to ask over, and an end that is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from remote_gym.errors import ConfigError, SessionLost
from remote_gym.server.launcher import RECORD, Command, Event

logger = logging.getLogger(__name__)

SETTLE = 0.5
"""Seconds between the end of a worker's socket and word of how it ended, or the other way round, at most."""

_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:] or sys.path; from remote_gym.server.launcher import main; main()"


class Worker(asyncio.BufferedProtocol):
    """The server's end of a worker's socket.

    Args:
        session: For messages.
        kill: Ends the worker if it does not end by itself.
        message_bytes: Longest message accepted from the worker.

    Attributes:
        exited: Done when the worker's process or thread has ended; the result says how.
        gone: Done when it can no longer be asked; the result is the reason.
    """

    def __init__(self, session: str, kill: Callable[[], None], message_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[str] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self._session = session
        self._kill = kill
        self._message_bytes = message_bytes
        self._pending: deque[asyncio.Future[bytes]] = deque()
        self._transport: asyncio.Transport | None = None
        self._failure: str | None = None
        self._header = bytearray(4)
        self._message: bytearray | None = None  # None while the header is being read
        self._filled = 0

    async def ask(self, data: bytes) -> bytes:
        """Send one message and wait for the one that answers it.

        Raises:
            SessionLost: If the worker is gone, or ends before it answers.
        """
        if self._transport is None or self.gone.done():
            raise SessionLost(f"session {self._session}: {self.gone.result() if self.gone.done() else 'not connected'}")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # Answers come in the order of the questions. A question whose asker was cancelled keeps its place here,
        # so that its answer is not taken for the next one's.
        self._pending.append(answer)
        self._transport.writelines((len(data).to_bytes(4, "big"), data))
        return await answer

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
                await asyncio.wait_for(asyncio.shield(self.exited), timeout)

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
            if not self._pending:
                self._fail("its worker spoke without being asked")
                return
            answer = self._pending.popleft()
            if not answer.done():
                answer.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        self._settling = asyncio.ensure_future(self._settle())

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
        while self._pending:
            answer = self._pending.popleft()
            if not answer.done():
                answer.set_exception(SessionLost(f"session {self._session}: {self.gone.result()}"))


Launch = Callable[[str], Awaitable[Worker]]
"""Starts a worker for the session of that id."""


class ProcessWorkers:
    """Starts workers as processes, by way of a launcher process that it keeps.

    Args:
        interpreter: Python executable of the launcher and so of the workers; None for this one.
        message_bytes: Longest message accepted from a worker.
    """

    def __init__(self, interpreter: str | None, message_bytes: int) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError(f"{sys.platform} has no fork, which worker processes need; use use_thread=True")
        self._interpreter = interpreter
        self._message_bytes = message_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: list[subprocess.Popen[bytes]] = []  # to be reaped
        self._control: socket.socket | None = None
        self._received = b""
        self._workers: dict[int, Worker] = {}
        self._last_number = 0

    async def launch(self, session: str) -> Worker:
        """Start one.

        Raises:
            SessionLost: If the launcher does not start.
        """
        if self._control is None:
            self._start()
        self._last_number += 1
        number = self._last_number
        ours, theirs = socket.socketpair()
        log_reader, log_writer = os.pipe()
        try:
            await _tag_output(session, log_reader)
            worker = Worker(session, lambda: self._send(Command.KILL, number), self._message_bytes)
            self._workers[number] = worker
            self._send(Command.LAUNCH, number, [theirs.fileno(), log_writer])
        finally:
            theirs.close()
            os.close(log_writer)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=ours)
        return worker

    async def stop(self) -> None:
        """End the launcher, which ends the workers that are left."""
        if self._process is not None:
            self._ended.append(self._process)
        self._disconnect()
        # Not in a thread of an executor: a server may be stopped while the interpreter ends, which starts none.
        while any(process.poll() is None for process in self._ended):
            await asyncio.sleep(0.01)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # With an interpreter of its own a worker finds modules in that one's own places, else where we do.
        path = [] if self._interpreter else [entry or str(Path.cwd()) for entry in sys.path]
        try:
            self._process = subprocess.Popen(
                [self._interpreter or sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), *path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at a terminal is for the server, which then stops its workers
            )
        except OSError as error:
            ours.close()
            raise SessionLost(f"cannot start a launcher for workers: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._listen)

    def _send(self, command: Command, number: int, descriptors: list[int] | None = None) -> None:
        if self._control is None:
            return
        try:
            socket.send_fds(self._control, [RECORD.pack(command, number, 0)], descriptors or [])
        except OSError as error:
            logger.error("the launcher does not listen: %s", error)
            self._disconnect()

    def _listen(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(RECORD.size * 64)
        except ConnectionError:
            data = b""
        if not data:
            logger.error("the launcher ended unasked; its workers end with it")
            if self._process is not None:
                self._process.kill()
                self._ended.append(self._process)
            self._disconnect()
            return
        self._received += data
        while len(self._received) >= RECORD.size:
            event, number, value = RECORD.unpack_from(self._received)
            self._received = self._received[RECORD.size :]
            if event == Event.EXITED and (worker := self._workers.pop(number, None)) is not None:
                worker.set_exited(describe_exit(value))

    def _disconnect(self) -> None:
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = self._process = None
        self._received = b""
        for worker in self._workers.values():
            worker.set_exited("its worker was killed with the launcher")
        self._workers.clear()


class ThreadWorkers:
    """Starts workers as threads of this process.

    Args:
        message_bytes: Longest message accepted from a worker.
    """

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes

    async def launch(self, session: str) -> Worker:
        """Start one."""
        from remote_gym.server import worker as worker_module

        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        worker = Worker(
            session, lambda: logger.error("session %s: a thread cannot be killed", session), self._message_bytes
        )

        def run() -> None:
            try:
                worker_module.run(theirs, own_process=False)
            finally:
                # The server may have stopped without waiting, and its loop with it.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(worker.set_exited, "its thread ended")

        # A daemon: an environment that hangs must not keep the server's process from ending.
        threading.Thread(target=run, name=f"remote_gym-{session}", daemon=True).start()
        ours.setblocking(False)
        await loop.create_connection(lambda: worker, sock=ours)
        return worker

    async def stop(self) -> None:
        """Nothing is shared between threads."""


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


class _Output(asyncio.Protocol):
    """Writes what a worker prints to the server's log, line by line."""

    LONGEST = 64 * 1024

    def __init__(self, session: str) -> None:
        self._session = session
        self._line = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > self.LONGEST:
            lines.append(self._line)
            self._line = b""
        for line in lines:
            logger.info("[%s] %s", self._session, line.decode(errors="replace").rstrip("\r"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._line:
            self.data_received(b"\n")


async def _tag_output(session: str, descriptor: int) -> None:
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: _Output(session), pipe)
