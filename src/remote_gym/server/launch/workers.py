"""Starting workers: as processes, or as threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Literal

from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, ServerFull
from remote_gym.ipc.close_reasons import STOPPING
from remote_gym.ipc.counters import Counters, Page, new_words
from remote_gym.logs import get_logger
from remote_gym.server.launch.disconnects import Hangups
from remote_gym.server.launch.forkserver_client import LauncherProcess
from remote_gym.server.launch.handle import Worker
from remote_gym.server.launch.output import Outputs
from remote_gym.server.launch.processes import STOPPED, why_no_signal
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.worker.forked_children import ForkedChild
from remote_gym.worker.forkserver import GRACE, LINGER, STACKS_SIGNAL, Command

logger = get_logger(__name__)

LAUNCHES_AT_ONCE = 8

STOP_TIMEOUT = GRACE + LINGER + 1.0
"""Seconds that launchers have to end their workers and themselves, until they are killed."""

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
        output_rate: Bytes a second that the log takes of what a worker prints, and of all four times as many.
    """

    def __init__(
        self, interpreter: str | None, message_bytes: int, output_rate: float = ServerOptions.output_rate
    ) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError(f"{sys.platform} has no fork, which worker processes need; use use_thread=True")
        self._interpreter = interpreter
        self._message_bytes = message_bytes
        self._launcher: LauncherProcess | None = None
        self._launchers: list[LauncherProcess] = []  # that one, and those before it, until they have ended
        self._outputs = Outputs(output_rate)
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
                return await self._launch(session, self._good_launcher())
            except (FileNotFoundError, PermissionError) as error:
                raise ConfigError(
                    f"ServerOptions.interpreter {self._interpreter or sys.executable!r} does not start: {error}"
                ) from error
            except OSError as error:
                raise ServerFull(f"no more workers can be started: {error}; see 'ulimit -n'") from error

    def _good_launcher(self) -> LauncherProcess:
        """The launcher; another one where there is none yet, or it is good no more."""
        if self._launcher is None or not self._launcher.is_good:
            self._launchers = [launcher for launcher in self._launchers if launcher.process.poll() is None]
            self._launcher = LauncherProcess(self._interpreter)
            self._launchers.append(self._launcher)
        return self._launcher

    async def _launch(self, session: str, launcher: LauncherProcess) -> Worker:
        self._last_number += 1
        number = self._last_number
        with contextlib.ExitStack() as stack:
            ours, theirs = _socket_pairs(stack)
            log_reader, log_writer = (stack.enter_context(os.fdopen(end, mode, 0)) for end, mode in _pipe())
            page = Page()
            worker = Worker(
                session,
                lambda: launcher.kill(number),
                self._message_bytes,
                counters=page.read,
                stacks=lambda: _stacks(launcher, number, worker, page),
            )
            worker.exited.add_done_callback(lambda _: page.close())
            try:
                descriptors = [*(sock.fileno() for sock in theirs), page.fileno(), log_writer.fileno()]
                await launcher.launch(number, worker, descriptors)
            except BaseException:
                page.close()
                raise
            output = self._outputs.follow(session, os.dup(log_reader.fileno()))
            worker.last_lines = output.last_lines
            # What the environment has started may hold the pipe open for as long as it likes.
            worker.exited.add_done_callback(lambda _: output.close())
            await worker.connect(*(sock.dup() for sock in ours), hangups=self._hangups)
        return worker

    async def stop(self) -> None:
        """End the launchers, which end the workers that are left."""
        for launcher in self._launchers:
            launcher.disconnect(STOPPING)
        self._hangups.close()
        # Not in a thread of an executor: a server may be stopped while the interpreter ends, which starts none.
        end = time.monotonic() + STOP_TIMEOUT
        while any(launcher.process.poll() is None for launcher in self._launchers):
            if time.monotonic() >= end:  # it is stopped, say; its workers die with it
                for launcher in self._launchers:
                    launcher.process.kill()
            await asyncio.sleep(0.01)
        for launcher in self._launchers:
            if launcher.process.poll() != 0:  # it did not see to that itself
                await launcher.kill_leftovers()
        await asyncio.sleep(0)  # in which they are told of their workers' ends
        self._outputs.close()


async def _stacks(launcher: LauncherProcess, number: int, worker: Worker, page: Page) -> str:
    """Where a worker's Python threads are; or why that cannot be told."""
    launcher.send(Command.STACKS, number)
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
        from remote_gym.worker import loop as worker_module

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
            except ForkedChild as child:
                child.end()
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
