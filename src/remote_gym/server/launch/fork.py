"""Workers as processes, forked by a process of its own kind for each interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import Literal

from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, FullReason, ServerFull
from remote_gym.ipc.close_reasons import STOPPING
from remote_gym.ipc.counters import Page
from remote_gym.ipc.forkserver_records import Command
from remote_gym.logs import get_logger
from remote_gym.server.launch.disconnects import Disconnects
from remote_gym.server.launch.forkserver_client import ForkserverClient
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import LaunchSpec, socket_pairs
from remote_gym.server.launch.output import Outputs
from remote_gym.server.launch.processes import STOPPED, why_no_signal
from remote_gym.worker.environment.stacks import STACKS_SIGNAL
from remote_gym.worker.forkserver import GRACE, LINGER

logger = get_logger(__name__)

LAUNCHES_AT_ONCE = 8

STOP_TIMEOUT = GRACE + LINGER + 1.0
"""Seconds that forkservers have to end their workers and themselves, until they are killed."""

STACKS_TIMEOUT = 2.0
"""Seconds that a worker has to write its stacks."""
STACKS_PAUSE = 0.1
"""Seconds after which what is still the same is taken to be all."""


class ForkLauncher:
    """Starts workers as processes, by way of a forkserver that it keeps for each interpreter.

    Args:
        message_bytes: Longest message accepted from a worker.
        output_rate: Bytes a second that the log takes of what a worker prints, and of all four times as many.
    """

    def __init__(self, message_bytes: int, output_rate: float = ServerOptions.output_rate) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError(
                f"{sys.platform} has no fork, which worker processes need; use use_thread=True", field="use_thread"
            )
        self._message_bytes = message_bytes
        # Of each interpreter, and of each set of variables: some count only for what a process imports first.
        self._newest: dict[tuple[str | None, tuple[tuple[str, str], ...]], ForkserverClient] = {}
        self._forkservers: list[ForkserverClient] = []  # these, and those before them, until they have ended
        self._outputs = Outputs(output_rate)
        self._launching = asyncio.Semaphore(LAUNCHES_AT_ONCE)
        self._disconnects = Disconnects()
        self._last_number = 0

    async def launch(self, spec: LaunchSpec) -> WorkerHandle:
        """Start one, as `Launcher.launch` does."""
        # A few at a time: each holds descriptors until the forkserver, which forks one by one, has taken them.
        async with self._launching:
            try:
                return await self._launch(spec.session, self._good_forkserver(spec))
            except (FileNotFoundError, PermissionError) as error:
                raise ConfigError(
                    f"ServerOptions.interpreter {spec.interpreter or sys.executable!r} does not start: {error}",
                    field="interpreter",
                ) from error
            except OSError as error:
                raise ServerFull(
                    f"no more workers can be started: {error}; see 'ulimit -n'", reason=FullReason.MACHINE
                ) from error

    def _good_forkserver(self, spec: LaunchSpec) -> ForkserverClient:
        """The forkserver of such workers; another one where there is none yet, or it is good no more."""
        key = spec.interpreter, tuple(sorted(spec.variables.items()))
        found = self._newest.get(key)
        if found is None or not found.is_good:
            self._forkservers = [forkserver for forkserver in self._forkservers if forkserver.process.poll() is None]
            found = self._newest[key] = ForkserverClient(spec.interpreter, spec.variables)
            self._forkservers.append(found)
        return found

    async def _launch(self, session: str, forkserver: ForkserverClient) -> WorkerHandle:
        self._last_number += 1
        number = self._last_number
        with contextlib.ExitStack() as stack:
            ours, theirs = socket_pairs(stack)
            log_reader, log_writer = (stack.enter_context(os.fdopen(end, mode, 0)) for end, mode in _pipe())
            page = Page()
            worker = WorkerHandle(
                session,
                lambda: forkserver.kill(number),
                self._message_bytes,
                counters=page.read,
                stacks=lambda: _stacks(forkserver, number, worker, page),
            )
            worker.exited.add_done_callback(lambda _: page.close())
            try:
                descriptors = [*(sock.fileno() for sock in theirs), page.fileno(), log_writer.fileno()]
                await forkserver.launch(number, worker, descriptors)
            except BaseException:
                page.close()
                raise
            output = self._outputs.follow(session, os.dup(log_reader.fileno()))
            worker.last_lines, worker.label_output = output.last_lines, output.label
            # What the environment has started may hold the pipe open for as long as it likes.
            worker.exited.add_done_callback(lambda _: output.close())
            await worker.connect(*(sock.dup() for sock in ours), disconnects=self._disconnects)
        return worker

    async def stop(self) -> None:
        """End the forkservers, which end the workers that are left."""
        for forkserver in self._forkservers:
            forkserver.disconnect(STOPPING)
        self._disconnects.close()
        # Not in a thread of an executor: a server may be stopped while the interpreter ends, which starts none.
        end = time.monotonic() + STOP_TIMEOUT
        while any(forkserver.process.poll() is None for forkserver in self._forkservers):
            if time.monotonic() >= end:  # it is stopped, say; its workers die with it
                for forkserver in self._forkservers:
                    forkserver.process.kill()
            await asyncio.sleep(0.01)
        for forkserver in self._forkservers:
            if forkserver.process.poll() != 0:  # it did not see to that itself
                await forkserver.kill_leftovers()
        await asyncio.sleep(0)  # in which they are told of their workers' ends
        self._outputs.close()


async def _stacks(forkserver: ForkserverClient, number: int, worker: WorkerHandle, page: Page) -> str:
    """Where a worker's Python threads are; or why that cannot be told."""
    forkserver.send(Command.STACKS, number)
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


def _pipe() -> tuple[tuple[int, Literal["rb"]], tuple[int, Literal["wb"]]]:
    reader, writer = os.pipe()
    return (reader, "rb"), (writer, "wb")
