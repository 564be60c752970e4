"""A forkserver as the server sees it: a process to ask for workers, which may die, or not answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from remote_gym.errors import FullReason, LossReason, ServerFull
from remote_gym.ipc.close_reasons import CloseReason
from remote_gym.ipc.counters import anonymous_file
from remote_gym.ipc.dialect import CHECK, dialect
from remote_gym.ipc.forkserver_records import RECORD, Command, Event
from remote_gym.ipc.leftovers import kill_marked, new_prefix
from remote_gym.ipc.variables import for_others
from remote_gym.logs import get_logger
from remote_gym.protocol.constants import package_versions
from remote_gym.server.launch.handle import WorkerHandle, describe_exit
from remote_gym.worker.forkserver import kill_group

logger = get_logger(__name__)

_BOOTSTRAP = f"{CHECK}\nfrom remote_gym.worker.forkserver import main\nmain()"

COMPLAINTS_BYTES = 64 * 1024
"""Bytes of a failed forkserver's stderr that are read, at most."""

START_TIMEOUT = 60.0
"""Seconds that a forkserver has until its first worker runs: it loads what workers need, perhaps from a slow disk."""
CLEANING_TIMEOUT = 5.0
"""Seconds in which a forkserver that was killed, and all that its workers have left, is to be gone."""
CLEANING_INTERVAL = 0.02
ANSWER_TIMEOUT = 20.0
"""Seconds for which a forkserver that has something to do may say nothing. It forks a worker in some 20 ms."""


class ForkserverClient:
    """Starts when it is made. Runs on the server's event loop.

    Args:
        interpreter: Its Python executable; None for this one.
        variables: Environment variables of it and of its workers, beside this process's.

    Attributes:
        process: The forkserver.
        is_good: Whether it can be asked for workers.

    Raises:
        OSError: If the process does not start.
    """

    def __init__(self, interpreter: str | None, variables: Mapping[str, str] | None = None) -> None:
        import fcntl  # here, since the systems without it can have workers in threads

        self._prefix = new_prefix()
        self._name = f"the forkserver ({interpreter or sys.executable})"
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, WorkerHandle] = {}
        self._starting: dict[int, asyncio.Future[None]] = {}
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()  # records and their descriptors, which are ours
        self._received = b""
        self._heard_at: float | None = None  # on the loop's clock
        self._dying: dict[int, asyncio.TimerHandle] = {}  # workers that it was told to kill
        self._cleaning: asyncio.Future[None] | None = None
        self.is_good = True
        # With an interpreter of its own a worker finds modules in that one's own places, else where we do.
        path = [] if interpreter else [entry or str(Path.cwd()) for entry in sys.path]
        with contextlib.ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            # Beyond 0 to 2, which a server without standard streams, such as a daemon, has to give away.
            passed = stack.enter_context(socket.socket(fileno=fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)))
            # Not a pipe: nobody reads it, unless the forkserver fails.
            complaints = stack.enter_context(os.fdopen(anonymous_file(), "rb"))
            arguments = [str(passed.fileno()), str(self._prefix), dialect(), package_versions()["remote-gym"], *path]
            self.process = subprocess.Popen(
                [interpreter or sys.executable, "-c", _BOOTSTRAP, *arguments],
                pass_fds=[passed.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env={**for_others(), **(variables or {})},
                start_new_session=True,  # Ctrl-C at a terminal is for the server, which then stops its workers
            )
            self._control: socket.socket | None = ours.dup()
            self._complaints: IO[bytes] = os.fdopen(os.dup(complaints.fileno()), "rb")
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._listen)

    async def launch(self, number: int, worker: WorkerHandle, descriptors: Sequence[int]) -> None:
        """Have a worker forked; done when it runs, or has ended at once.

        Args:
            number: The worker's, which no other of this forkserver's has.
            worker: Told when it ends.
            descriptors: As `Command.LAUNCH` has them; the caller closes its own.

        Raises:
            ServerFull: If the forkserver does not answer. It is not asked for any more workers then.
            OSError: If there are no more descriptors.
        """
        started: asyncio.Future[None] = self._loop.create_future()
        self._workers[number], self._starting[number] = worker, started
        asked_at = self._loop.time()
        try:
            self.send(Command.LAUNCH, number, descriptors)
            futures: list[asyncio.Future[Any]] = [started, worker.exited]
            while not (started.done() or worker.exited.done()):
                silence = self._loop.time() - max(asked_at, self._heard_at or 0.0)
                limit = START_TIMEOUT if self._heard_at is None else ANSWER_TIMEOUT
                if silence >= limit:
                    self.retire(f"has not answered for {limit:g} s")
                else:
                    await asyncio.wait(futures, timeout=limit - silence, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
        finally:
            del self._starting[number]

    def kill(self, number: int) -> None:
        """Have a worker killed; or, where the forkserver does not see to it, kill it here."""
        if number not in self._workers:
            return
        if not self.is_good:
            self._kill_ourselves(number)
        elif number not in self._dying:
            self.send(Command.KILL, number)
            self._expect_end(number)

    def send(self, command: Command, number: int, descriptors: Sequence[int] = ()) -> None:
        """Queue a record. It is sent at once, unless the forkserver is so busy forking that its socket is full.

        Raises:
            OSError: If there are no more descriptors.
        """
        if self._control is None:
            return
        ours: list[int] = []
        try:
            for descriptor in descriptors:
                ours.append(os.dup(descriptor))
        except OSError:
            _close(ours)
            raise
        self._outgoing.append((RECORD.pack(command, number, 0), ours))
        self._flush()

    def retire(self, why: str) -> None:
        """Ask it for no more workers. Those that it has go on, and it ends with the last of them."""
        if not self.is_good:
            return
        self.is_good = False
        logger.error("%s, process %d, %s; another takes its place", self._name, self.process.pid, why)
        for started in self._starting.values():
            if not started.done():
                started.set_exception(
                    ServerFull(f"no worker was started: {self._name} {why}; try again", reason=FullReason.MACHINE)
                )
        for number, worker in list(self._workers.items()):
            if worker.pid is None:  # should it run one day, it finds that its server has hung up
                self._set_exited(number, f"it was not started: {self._name} {why}")
            elif number in self._dying:
                self._kill_ourselves(number)
        for record in [record for record in self._outgoing if record[1]]:  # of workers that nobody waits for
            self._outgoing.remove(record)
            _close(record[1])
        self._end_if_done()

    def disconnect(self, reason: str) -> None:
        """Let it end, and with it the workers that are left."""
        self.is_good = False
        if self._control is None:
            return
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        while self._outgoing:
            self._drop_first()
        self._control.close()
        self._complaints.close()
        self._control = None
        for number in list(self._workers):
            self._set_exited(number, reason)

    def _flush(self) -> None:
        assert self._control is not None
        while self._outgoing:
            record, descriptors = self._outgoing[0]
            try:
                socket.send_fds(self._control, [record], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._control, self._flush)
                return
            except OSError as error:
                self._give_up(f"the forkserver does not listen: {error}")
                return
            self._drop_first()
        self._loop.remove_writer(self._control)

    def _drop_first(self) -> None:
        _close(self._outgoing.popleft()[1])

    def _listen(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(RECORD.size * 64)
        except ConnectionError:
            data = b""
        if not data:
            self._give_up("the forkserver ended unasked")
            return
        self._heard_at = self._loop.time()
        self._received += data
        while len(self._received) >= RECORD.size:
            event, number, value = RECORD.unpack_from(self._received)
            self._received = self._received[RECORD.size :]
            if event == Event.STARTED and number in self._starting and not self._starting[number].done():
                self._workers[number].pid = value
                self._starting[number].set_result(None)
            if event == Event.EXITED:
                self._set_exited(number, describe_exit(value))
        self._end_if_done()

    def _give_up(self, reason: str) -> None:
        """It cannot be used any more, and its workers are lost."""
        self._kill()
        self._complaints.seek(0)
        said = self._complaints.read(COMPLAINTS_BYTES).decode(errors="replace").rstrip()
        logger.error("%s; its workers end with it", reason, details=said)
        why = f"{self._name} failed: {said.splitlines()[-1]}" if said else f"{self._name} was killed"
        self.disconnect(CloseReason(f"its worker ended with the forkserver: {why}", LossReason.KILLED))

    def _kill(self) -> None:
        self.process.kill()
        self._cleaning = asyncio.ensure_future(self.kill_leftovers())

    async def kill_leftovers(self) -> None:
        """Kill what the forkserver's workers have left, now that it has ended and does not see to that itself."""
        end = self._loop.time() + CLEANING_TIMEOUT
        while (self.process.poll() is None or kill_marked(self._prefix)) and self._loop.time() < end:
            await asyncio.sleep(CLEANING_INTERVAL)

    def _end_if_done(self) -> None:
        """Retired, it has nothing more to do when its last worker is gone."""
        if not self.is_good and not self._workers and self._control is not None:
            self._kill()
            self.disconnect("its forkserver was replaced")

    def _expect_end(self, number: int) -> None:
        """See that a worker ends which was to be killed, unless the forkserver says nothing at all."""
        asked_at = self._loop.time()

        def look() -> None:
            if self._heard_at is not None and self._heard_at > asked_at:
                self._expect_end(number)
            else:
                self.retire(f"has not told of the end of a worker for {ANSWER_TIMEOUT:g} s")

        self._dying[number] = self._loop.call_later(ANSWER_TIMEOUT, look)

    def _kill_ourselves(self, number: int) -> None:
        """Kill a worker past the forkserver, which has not reaped it, so that its process id is no other's yet."""
        pid = self._workers[number].pid
        if pid is not None:
            kill_group(pid)
        self._set_exited(
            number, CloseReason("its worker was killed, and its forkserver does not answer", LossReason.KILLED)
        )
        self._end_if_done()

    def _set_exited(self, number: int, how: str) -> None:
        if number in self._dying:
            self._dying.pop(number).cancel()
        if (worker := self._workers.pop(number, None)) is not None:
            worker.set_exited(how)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
