"""The process that forks workers.

A server cannot fork them itself: gRPC's threads do not survive a fork. Nor can `multiprocessing`: its other ways
to start a process import the user's ``__main__`` again, which runs a server script without a guard twice. So the
server starts one forkserver, a process without threads of its own and without gRPC, and asks it over a Unix socket.

The forkserver reaps its children, tells the server how each ended, ends what they have left running, and kills them
all, hung ones too, when its socket to the server closes, which it does however the server ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import io
import os
import selectors
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from typing import TextIO

import numpy as np

from remote_gym.ipc.counters import map_page
from remote_gym.ipc.forkserver_records import RECORD, Command, Event
from remote_gym.ipc.leftovers import KILL_AFTER, Leftovers, set_mark
from remote_gym.ipc.records import receive_record
from remote_gym.worker import main as worker
from remote_gym.worker.environment.forked_children import ForkedChild
from remote_gym.worker.environment.stacks import STACKS_SIGNAL, stacks

GRACE = 2.0
"""Seconds that workers have, once the server is gone, to close their environments by themselves."""
LINGER = KILL_AFTER + 0.5
"""Seconds that remain for what those have left that had to be killed."""


class Forkserver:
    """The loop of a forkserver process.

    Args:
        control: Connected to the server.
        prefix: Of the marks by which is found what workers leave.
    """

    def __init__(self, control: socket.socket, prefix: int) -> None:
        self._control = control
        self._prefix = prefix
        self._leftovers = Leftovers(prefix)
        self._pids: dict[int, int] = {}  # worker number -> process id
        self._wakeup, self._wakeup_writer = socket.socketpair()
        for end in (self._wakeup, self._wakeup_writer):
            end.setblocking(False)

    def run(self) -> Callable[[], None] | None:
        """Serve until the server is gone.

        Returns:
            None in the forkserver, at its end; in a forked child what it is to do. The child returns through here,
            rather than doing it in place, so that it unwinds to the interpreter and ends like any other program.
        """
        signal.set_wakeup_fd(self._wakeup_writer.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._leftovers.look(self._pids.values())):
                    if key.fileobj is self._wakeup:
                        self._wakeup.recv(4096)
                        self._reap()
                        continue
                    received = self._receive()
                    if received is None:
                        self._stop_all()
                        return None
                    job = self._obey(*received)
                    if job is not None:
                        return job

    def _receive(self) -> tuple[Command, int, list[int]] | None:
        try:
            found = receive_record(self._control, RECORD, 4)
        except ConnectionError:
            return None
        if found is None:
            return None
        (command, number, _), descriptors = found
        return Command(command), number, descriptors

    def _obey(self, command: Command, number: int, descriptors: list[int]) -> Callable[[], None] | None:
        if command is Command.KILL:
            if number in self._pids:
                self._kill(self._pids[number])
            return None
        if command is Command.STACKS:
            if number in self._pids:
                with contextlib.suppress(PermissionError):  # one that runs as another user by now
                    os.kill(self._pids[number], STACKS_SIGNAL)
            return None
        *connections, page, output = descriptors
        try:
            pid = _fork()
        except OSError as error:
            os.write(output, f"cannot fork a worker: {error}\n".encode())
            self._report(Event.EXITED, number, error.errno or 1)
            pid = -1
        if pid == 0:
            self._become_worker(number, page, output)
            requests, control = (socket.socket(fileno=descriptor) for descriptor in connections)
            return lambda: worker.run(requests, control, own_process=True, page=map_page(page))
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            with contextlib.suppress(OSError):  # the child does the same; whoever is first
                os.setpgid(pid, pid)
            self._pids[number] = pid
            self._report(Event.STARTED, number, pid)
        return None

    def _become_worker(self, number: int, page: int, output: int) -> None:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        if self._leftovers.are_found:
            set_mark(self._prefix, number)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stacks.write_to(page)
        _die_with_parent()
        for end in (self._control, self._wakeup, self._wakeup_writer):
            end.close()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(output)
        for name in ("stdout", "stderr"):
            stream = _as_python_makes(getattr(sys, name))
            for attribute in (name, f"__{name}__"):
                setattr(sys, attribute, stream)
        # A crash's stack goes after what it has printed, whatever becomes of `sys.stderr`.
        faulthandler.enable(file=2, all_threads=True)
        # NumPy's global generator was seeded when the forkserver imported it; all workers would draw the same numbers.
        np.random.seed()

    def _reap(self) -> None:
        numbers = {pid: number for number, pid in self._pids.items()}
        with contextlib.suppress(ChildProcessError):  # none is left
            # First look, then kill what the worker left running in its group, where it is not found otherwise, and only
            # then reap it: a process that was not reaped keeps its id, so no other process can be hit.
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                number = numbers.get(ended.si_pid)  # none of one that a worker has left, or made a child of ours
                if number is not None and not self._leftovers.are_found:
                    kill_group(ended.si_pid)
                _, status = os.waitpid(ended.si_pid, 0)
                if number is not None:
                    del self._pids[number]
                    self._leftovers.worker_ended(number)
                    self._report(Event.EXITED, number, os.waitstatus_to_exitcode(status))

    def _kill(self, pid: int) -> None:
        """Kill a worker. What it has started has its time to end, where it is found."""
        if self._leftovers.are_found:
            os.kill(pid, signal.SIGKILL)
        else:
            kill_group(pid)

    def _report(self, event: Event, number: int, value: int) -> None:
        with contextlib.suppress(ConnectionError):  # the server is gone, which the loop notices next
            self._control.sendall(RECORD.pack(event, number, value))

    def _stop_all(self) -> None:
        self._wait(GRACE)
        for pid in self._pids.values():
            self._kill(pid)
        self._wait(LINGER)
        self._leftovers.kill_all()

    def _wait(self, seconds: float) -> None:
        """Until no worker is there, nor what one has left, but no longer than that."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            pause = self._leftovers.look(self._pids.values())
            if not self._pids and pause is None:
                return
            self._wakeup.settimeout(min(remaining, pause or remaining))
            with contextlib.suppress(TimeoutError):
                self._wakeup.recv(4096)
            self._reap()


def _as_python_makes(stream: TextIO) -> TextIO:
    """A stream like one that Python made when the forkserver started, whose descriptor leads elsewhere now.

    Python has chosen the encoding, and what becomes of characters that it lacks, by PYTHONIOENCODING and its like, and
    whether there is a buffer by PYTHONUNBUFFERED.
    """
    assert isinstance(stream, io.TextIOWrapper)
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    raw.name = stream.name
    has_buffer = not stream.write_through
    anew = io.TextIOWrapper(
        io.BufferedWriter(raw) if has_buffer else raw,  # as Python itself does
        stream.encoding,
        stream.errors,
        newline="\n",
        line_buffering=has_buffer,  # so that lines reach the server's log while they are news
        write_through=stream.write_through,
    )
    anew.mode = stream.mode  # type: ignore[misc]  # which Python sets as well
    return anew


def _fork() -> int:
    with warnings.catch_warnings():
        # NumPy's BLAS keeps threads, and takes care of them around a fork by itself.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        return os.fork()


def kill_group(pid: int) -> None:
    """Kill a worker and what it left running."""
    # Both: the worker may have left its group, and others may be left in it.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the forkserver dies; elsewhere the closing socket has to do."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Run a forkserver on the descriptor named by the first argument; workers leave through here too.

    A worker, and what its environment forks, ends as any script does: threads are waited for, exit handlers run, open
    files are flushed, what is left is finalised.
    """
    control, prefix = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    control.set_inheritable(False)  # as it had to be until now
    # Masks are inherited from whatever started the server. Without SIGCHLD no end of a worker would be noticed.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.argv = [""]  # environments that read their program's arguments find none
    gc.collect()
    gc.freeze()
    job = Forkserver(control, prefix).run()
    if job is None:
        os._exit(0)  # it owns nothing that would need more, and its exit handlers are those of its workers
    error = None
    try:
        job()
    except ForkedChild as child:
        error = child.error
    if error is not None:
        raise error
