"""What processes use, as Linux tells in /proc: processor time, memory, and on which cores they may run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from case import NotHere

PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)


def descendants(pid: int | None = None) -> set[int]:
    """Processes that `pid` (this one, if None) started, and what they started; none where there is no /proc."""
    if not (PROC / "self" / "stat").exists():
        return set()
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(*_GONE):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found: set[int] = set()
    generation = {os.getpid() if pid is None else pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation} - found
        found |= generation
    return found


def cpu_times(pids: Iterable[int]) -> dict[int, int]:
    """Processor time that each living thread of these processes has had, in nanoseconds, by its id."""
    times = {}
    for pid in pids:
        for task in _tasks(pid):
            with contextlib.suppress(*_GONE):
                times[int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return times


def cpu_seconds_between(before: dict[int, int], after: dict[int, int]) -> float:
    """What passed between two looks; threads that ended meanwhile are left out."""
    return sum(time - before.get(thread, 0) for thread, time in after.items()) / 1e9


def private_bytes(pids: Iterable[int]) -> int:
    """Memory that these processes share with nobody."""
    total = 0
    for pid in pids:
        with contextlib.suppress(*_GONE):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) * 1024
    return total


@contextlib.contextmanager
def placed(placement: str, servers: Iterable[int]) -> Iterator[None]:
    """Pin this process and the server's to a core each, or all to one, until the block ends.

    From outside, and after they have started, since a program that may use one core only behaves differently.

    Raises:
        NotHere: If that cannot be done on this machine.
    """
    if placement == "free":
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise NotHere("this system cannot pin processes to cores")
    cores = sorted(os.sched_getaffinity(0))
    if placement == "across" and len(cores) < 2:
        raise NotHere("there is one core only")
    try:
        _pin(os.getpid(), {cores[0]})
        for pid in servers:
            _pin(pid, {cores[1 if placement == "across" else 0]})
        yield
    finally:
        for pid in (os.getpid(), *servers):
            _pin(pid, set(cores))


def _pin(pid: int, cores: set[int]) -> None:
    for task in _tasks(pid):
        with contextlib.suppress(*_GONE):
            os.sched_setaffinity(int(task.name), cores)


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except _GONE:
        return []
