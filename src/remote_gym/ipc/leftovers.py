"""Processes that workers leave running: found by a mark that nothing loses by leaving a group or session, and ended.

A worker's mark is its soft limit on file locks, which Linux has not enforced since 2.4.25: whatever the worker starts
inherits it, through forks, other programs and daemons alike, and ``/proc`` shows it. The forkserver is a *subreaper*:
processes whose parent ends become its children, and so it sees all that its workers leave.

Other systems have no such thing, nor has a container whose ``/proc`` is another's. There a worker's process group is
all that is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")

TERMINATE_AFTER = 0.5
"""Seconds until what a worker left is asked to end by SIGTERM. Till then it may by itself, as at the end of a pipe."""
KILL_AFTER = 2.0
"""Seconds until it is killed."""
GIVE_UP_AFTER = 10.0
"""Seconds until what cannot be killed, such as what has become another user's, is let be."""
INTERVAL = 0.05
"""Seconds between two looks."""

_RLIMIT_LOCKS = 10
_LIMIT_LINE = b"Max file locks"
_NUMBER_BITS = 32
_PREFIX_BITS = 30
_PR_SET_CHILD_SUBREAPER = 36


def new_prefix() -> int:
    """Beginning of the marks of one forkserver's workers; another one's differ, in whatever container it is."""
    return 1 << _PREFIX_BITS | secrets.randbits(_PREFIX_BITS)


def set_mark(prefix: int, number: int) -> bool:
    """Mark this process, and all that it will start.

    Returns:
        Whether the system lets it be found by that.
    """
    if sys.platform != "linux":
        return False
    import resource

    try:
        hard = resource.getrlimit(_RLIMIT_LOCKS)[1]
        resource.setrlimit(_RLIMIT_LOCKS, (prefix << _NUMBER_BITS | number, hard))
    except (OSError, ValueError):
        return False
    return _mark_of(os.getpid()) == (prefix, number)


def _mark_of(pid: int) -> tuple[int, int] | None:
    try:
        with open(f"/proc/{pid}/limits", "rb", buffering=0) as file:  # noqa: PTH123
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    for line in lines:
        if line.startswith(_LIMIT_LINE):
            soft = line[len(_LIMIT_LINE) :].split()[0]
            value = int(soft) if soft.isdigit() else 0
            return value >> _NUMBER_BITS, value & ((1 << _NUMBER_BITS) - 1)
    return None


class Leftovers:
    """Processes that a forkserver's workers have left. It belongs to the forkserver, which it makes a subreaper.

    Args:
        prefix: Of this forkserver's marks.

    Attributes:
        are_found: Whether the system lets them be found. If not, nothing here does anything.
    """

    def __init__(self, prefix: int) -> None:
        self._prefix = prefix
        self._since: dict[int, float] = {}  # when a worker ended that has left something, by its number
        self._asked: set[int] = set()  # process ids of what was sent SIGTERM
        # Also where nothing is found: no zombies are left to the server then, which may be process 1 of a container.
        is_subreaper = sys.platform == "linux" and _become_subreaper()
        can_look = _is_proc_ours() and (PROC / f"self/task/{os.getpid()}/children").exists()
        self.are_found = is_subreaper and can_look and set_mark(prefix, 0)

    def worker_ended(self, number: int) -> None:
        """A worker was reaped: look for what it has left from now on."""
        if self.are_found:
            self._since[number] = time.monotonic()

    def look(self, workers: Iterable[int]) -> float | None:
        """See what is there, and end what has had its time.

        Args:
            workers: Process ids of those that live.

        Returns:
            Seconds until the next look; None if nothing is left.
        """
        if not self._since:
            return None
        found: dict[int, list[int]] = {}
        for pid in _children(os.getpid()).difference(workers):
            mark = _mark_of(pid)
            if mark is not None and mark[0] == self._prefix and mark[1] in self._since:
                found.setdefault(mark[1], []).extend(_with_descendants(pid))
        now = time.monotonic()
        for number, since in list(self._since.items()):
            if number not in found or now - since > GIVE_UP_AFTER:
                del self._since[number]
                continue
            self._press(found[number], now - since)
        if not self._since:
            self._asked.clear()
            return None
        return INTERVAL

    def _press(self, pids: list[int], waited: float) -> None:
        for pid in pids:
            if waited >= KILL_AFTER:
                _signal(pid, signal.SIGKILL)
            elif waited >= TERMINATE_AFTER and pid not in self._asked:
                self._asked.add(pid)
                _signal(pid, signal.SIGTERM)

    def kill_all(self) -> None:
        """Kill all that there is below the forkserver, whosever it is, and reap it. The last that a forkserver does."""
        if not self.are_found:
            return
        deadline = time.monotonic() + GIVE_UP_AFTER
        while (children := _children(os.getpid())) and time.monotonic() < deadline:
            for child in children:
                for pid in _with_descendants(child):
                    _signal(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(INTERVAL / 10)


def kill_marked(prefix: int) -> bool:
    """Kill all that a forkserver which is gone has left, workers included.

    Returns:
        Whether there was something; if so, it may have started something else meanwhile.
    """
    if not _is_proc_ours():
        return False
    found = False
    for name in os.listdir(PROC):  # noqa: PTH208
        if name.isdecimal() and (mark := _mark_of(int(name))) is not None and mark[0] == prefix:
            # It may have become a child of this process, as where that is process 1 of a container.
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(int(name), os.WNOHANG)[0]:
                    continue
            found = (_signal(int(name), signal.SIGKILL) and not _is_zombie(int(name))) or found
    return found


def _become_subreaper() -> bool:
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _is_proc_ours() -> bool:
    """Whether ``/proc`` has this process's own ids, which in a namespace of processes takes one mounted there."""
    try:
        return os.readlink(PROC / "self") == str(os.getpid())  # noqa: PTH115
    except OSError:
        return False


def _with_descendants(pid: int) -> list[int]:
    found = [pid]
    for member in found:
        found.extend(_children(member).difference(found))
    return found


def _children(pid: int) -> set[int]:
    """Process ids of what a process, in any of its threads, has started and not reaped, or has inherited."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:  # noqa: PTH123
                found.update(map(int, file.readall().split()))
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _signal(pid: int, number: int) -> bool:
    """Send a signal; False if the process has ended, or is another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False
