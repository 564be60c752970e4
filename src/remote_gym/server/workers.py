"""Starting workers: as processes, or as threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from remote_gym.errors import ConfigError, SessionLost
from remote_gym.server.launcher import RECORD, Command, Event
from remote_gym.server.link import Output, Worker, describe_exit

logger = logging.getLogger(__name__)

_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:] or sys.path; from remote_gym.server.launcher import main; main()"


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
        worker = Worker(session, lambda: self._send(Command.KILL, number), self._message_bytes)
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        log_reader, log_writer = os.pipe()
        try:
            pipe = os.fdopen(log_reader, "rb", buffering=0)
            await asyncio.get_running_loop().connect_read_pipe(lambda: Output(session), pipe)
            self._workers[number] = worker
            self._send(Command.LAUNCH, number, [*(sock.fileno() for sock in theirs), log_writer])
        finally:
            for sock in theirs:
                sock.close()
            os.close(log_writer)
        await worker.connect(*ours)
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
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        worker = Worker(
            session, lambda: logger.error("session %s: a thread cannot be killed", session), self._message_bytes
        )

        def run() -> None:
            try:
                worker_module.run(*theirs, own_process=False)
            finally:
                # The server may have stopped without waiting, and its loop with it.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(worker.set_exited, "its thread ended")

        # A daemon: an environment that hangs must not keep the server's process from ending.
        threading.Thread(target=run, name=f"remote_gym-{session}", daemon=True).start()
        await worker.connect(*ours)
        return worker

    async def stop(self) -> None:
        """Nothing is shared between threads."""
