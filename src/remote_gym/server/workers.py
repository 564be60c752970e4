"""Starting workers: as processes, or as threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from remote_gym.errors import ConfigError, ServerFull
from remote_gym.server.counters import Counters, Page, new_words
from remote_gym.server.hangups import Hangups
from remote_gym.server.launcher import RECORD, STACKS_SIGNAL, Command, Event
from remote_gym.server.link import Worker, describe_exit
from remote_gym.server.output import Output
from remote_gym.server.processes import STOPPED, why_no_signal
from remote_gym.wire.direct import DirectSocket

logger = logging.getLogger(__name__)

_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:] or sys.path; from remote_gym.server.launcher import main; main()"


LAUNCHES_AT_ONCE = 8
COMPLAINTS_BYTES = 64 * 1024
"""What is read of a failed launcher's stderr, at most."""

STACKS_TIMEOUT = 2.0
"""Seconds that a worker has to write its stacks."""
STACKS_PAUSE = 0.1
"""Seconds after which what is still the same is taken to be all."""

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
        self._complaints: IO[bytes] | None = None  # what the launcher writes to stderr
        self._ended: list[subprocess.Popen[bytes]] = []  # to be reaped
        self._control: socket.socket | None = None
        self._received = b""
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()  # records and their descriptors, which are ours
        self._workers: dict[int, Worker] = {}
        self._starting: dict[int, asyncio.Future[None]] = {}
        # Weakly: the event loop keeps each for as long as there is something to read.
        self._outputs: weakref.WeakSet[asyncio.ReadTransport] = weakref.WeakSet()
        self._launching = asyncio.Semaphore(LAUNCHES_AT_ONCE)
        self._hangups = Hangups()
        self._last_number = 0

    async def launch(self, session: str) -> Worker:
        """Start one.

        Raises:
            ConfigError: If the interpreter cannot be started.
            ServerFull: If the system gives no more descriptors or processes.
        """
        # A few at a time: each holds descriptors until the launcher, which forks one by one, has taken them.
        async with self._launching:
            try:
                if self._control is None:
                    self._start()
                return await self._launch(session)
            except (FileNotFoundError, PermissionError) as error:
                raise ConfigError(
                    f"ServerOptions.interpreter {self._interpreter or sys.executable!r} does not start: {error}"
                ) from error
            except OSError as error:
                raise ServerFull(f"no more workers can be started: {error}; see 'ulimit -n'") from error

    async def _launch(self, session: str) -> Worker:
        self._last_number += 1
        number = self._last_number
        with contextlib.ExitStack() as stack:
            ours, theirs = _socket_pairs(stack)
            log_reader, log_writer = (stack.enter_context(os.fdopen(end, mode, 0)) for end, mode in _pipe())
            page = Page()
            worker = Worker(
                session,
                lambda: self._send(Command.KILL, number),
                self._message_bytes,
                counters=page.read,
                stacks=lambda: self._stacks(number, worker, page),
            )
            worker.exited.add_done_callback(lambda _: page.close())
            started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._workers[number] = worker
            self._starting[number] = started
            try:
                descriptors = [*(sock.fileno() for sock in theirs), page.fileno(), log_writer.fileno()]
                self._send(Command.LAUNCH, number, descriptors)
                futures: list[asyncio.Future[Any]] = [started, worker.exited]
                await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                page.close()
                raise
            finally:
                del self._starting[number]
            output = os.fdopen(os.dup(log_reader.fileno()), "rb", buffering=0)
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: Output(session), output)
            self._outputs.add(transport)
            await worker.connect(*(sock.dup() for sock in ours), hangups=self._hangups)
        return worker

    async def _stacks(self, number: int, worker: Worker, page: Page) -> str:
        self._send(Command.STACKS, number)
        loop = asyncio.get_running_loop()
        deadline, found = loop.time() + STACKS_TIMEOUT, ""
        why = why_no_signal(worker.pid, STACKS_SIGNAL)
        while why != STOPPED and loop.time() < deadline and not worker.exited.done():
            await asyncio.sleep(STACKS_PAUSE)
            before, found = found, page.read_stacks()
            if found and found == before:
                break
            why = why_no_signal(worker.pid, STACKS_SIGNAL)
        return found or f"(its Python stacks cannot be had: {why})"

    async def stop(self) -> None:
        """End the launcher, which ends the workers that are left."""
        if self._process is not None:
            self._ended.append(self._process)
        self._disconnect("the server is stopping")
        self._hangups.close()
        # Not in a thread of an executor: a server may be stopped while the interpreter ends, which starts none.
        while any(process.poll() is None for process in self._ended):
            await asyncio.sleep(0.01)
        # One may be paused, and so not have noticed its end.
        for output in list(self._outputs):
            output.close()
        await asyncio.sleep(0)

    def _start(self) -> None:
        import fcntl  # here, since the systems without it can have workers in threads

        # With an interpreter of its own a worker finds modules in that one's own places, else where we do.
        path = [] if self._interpreter else [entry or str(Path.cwd()) for entry in sys.path]
        with contextlib.ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            # Beyond 0 to 2, which a server without standard streams, such as a daemon, has to give away.
            passed = stack.enter_context(socket.socket(fileno=fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)))
            # Not a pipe: nobody reads it, unless the launcher fails.
            complaints = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [self._interpreter or sys.executable, "-c", _BOOTSTRAP, str(passed.fileno()), *path],
                pass_fds=[passed.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,  # Ctrl-C at a terminal is for the server, which then stops its workers
            )
            self._control, self._complaints = ours.dup(), os.fdopen(os.dup(complaints.fileno()), "rb")
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._listen)

    def _send(self, command: Command, number: int, descriptors: Sequence[int] = ()) -> None:
        """Queue a record. It is sent at once, unless the launcher is so busy forking that its socket is full."""
        if self._control is None:
            return
        ours: list[int] = []
        try:
            for descriptor in descriptors:
                ours.append(os.dup(descriptor))
        except OSError:
            for descriptor in ours:
                os.close(descriptor)
            raise
        self._outgoing.append((RECORD.pack(command, number, 0), ours))
        self._flush()

    def _flush(self) -> None:
        assert self._control is not None
        loop = asyncio.get_running_loop()
        while self._outgoing:
            record, descriptors = self._outgoing[0]
            try:
                socket.send_fds(self._control, [record], descriptors)
            except BlockingIOError:
                loop.add_writer(self._control, self._flush)
                return
            except OSError as error:
                self._give_up(f"the launcher does not listen: {error}")
                return
            self._drop_first()
        loop.remove_writer(self._control)

    def _drop_first(self) -> None:
        for descriptor in self._outgoing.popleft()[1]:
            os.close(descriptor)

    def _listen(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(RECORD.size * 64)
        except ConnectionError:
            data = b""
        if not data:
            self._give_up("the launcher ended unasked")
            return
        self._received += data
        while len(self._received) >= RECORD.size:
            event, number, value = RECORD.unpack_from(self._received)
            self._received = self._received[RECORD.size :]
            if event == Event.STARTED and number in self._starting and not self._starting[number].done():
                self._workers[number].pid = value
                self._starting[number].set_result(None)
            if event == Event.EXITED and (worker := self._workers.pop(number, None)) is not None:
                worker.set_exited(describe_exit(value))

    def _give_up(self, reason: str) -> None:
        """The launcher cannot be used any more; the next launch starts another."""
        assert self._process is not None
        assert self._complaints is not None
        self._process.kill()
        self._ended.append(self._process)
        self._complaints.seek(0)
        said = self._complaints.read(COMPLAINTS_BYTES).decode(errors="replace").rstrip()
        logger.error("%s; its workers end with it\n%s", reason, said)
        launcher = f"the launcher ({self._interpreter or sys.executable})"
        why = f"{launcher} failed: {said.splitlines()[-1]}" if said else f"{launcher} was killed"
        self._disconnect(f"its worker ended with the launcher: {why}")

    def _disconnect(self, reason: str) -> None:
        if self._control is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        loop.remove_writer(self._control)
        while self._outgoing:
            self._drop_first()
        self._control.close()
        if self._complaints is not None:
            self._complaints.close()
        self._control = self._process = self._complaints = None
        self._received = b""
        for worker in self._workers.values():
            worker.set_exited(reason)
        self._workers.clear()


class ThreadWorkers:
    """Starts workers as threads of this process.

    Args:
        message_bytes: Longest message accepted from a worker.
    """

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._hangups = Hangups()

    async def launch(self, session: str) -> Worker:
        """Start one.

        Raises:
            ServerFull: If the system gives no more descriptors.
        """
        from remote_gym.server import worker as worker_module

        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            try:
                ours, theirs = _socket_pairs(stack)
            except OSError as error:
                raise ServerFull(f"no more workers can be started: {error}; see 'ulimit -n'") from error
            stack.pop_all()
        words = new_words()
        direct: list[DirectSocket] = []  # the newest, if there was one

        def on_direct(connection: DirectSocket) -> None:
            direct[:] = [connection]

        def kill() -> None:
            logger.error("session %s: a thread cannot be killed", session)
            for connection in direct:  # its client need not wait, at least
                connection.shut_down()

        async def stacks() -> str:
            frame = sys._current_frames().get(thread.ident or 0)
            return "".join(traceback.format_stack(frame)) if frame else "(its thread has ended)"

        worker = Worker(
            session,
            kill,
            self._message_bytes,
            counters=lambda: Counters.decode(words.tobytes()),
            stacks=stacks,
        )

        def run() -> None:
            try:
                worker_module.run(*theirs, own_process=False, words=words, on_direct=on_direct)
            finally:
                # The server may have stopped without waiting, and its loop with it.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(worker.set_exited, "its thread ended")

        # A daemon: an environment that hangs must not keep the server's process from ending.
        thread = threading.Thread(target=run, name=f"remote_gym-{session}", daemon=True)
        thread.start()
        await worker.connect(*ours, hangups=self._hangups)
        return worker

    async def stop(self) -> None:
        """Forget their clients; else nothing is shared between threads."""
        self._hangups.close()


def _socket_pairs(stack: contextlib.ExitStack) -> tuple[list[socket.socket], list[socket.socket]]:
    """The server's ends of a worker's two sockets, and the worker's."""
    pairs = []
    for _ in range(2):
        pair = socket.socketpair()
        for end in pair:
            stack.enter_context(end)
        pairs.append(pair)
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def _pipe() -> tuple[tuple[int, Literal["rb"]], tuple[int, Literal["wb"]]]:
    reader, writer = os.pipe()
    return (reader, "rb"), (writer, "wb")
