"""Reads of Linux's processes: who started whom, who is stopped, and what memory they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CAN_MEASURE = (PROC / "self" / "smaps_rollup").exists()
"""Whether `Processes` can be used here."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class _Process:
    state: str
    parent: int
    group: int
    resident: int  # bytes


class Processes:
    """All processes there are, as of one look, which costs some 15 µs for each."""

    def __init__(self) -> None:
        self._found = dict(_scan())
        self._children: dict[int, list[int]] = {}
        for pid, process in self._found.items():
            for leader in {process.parent, process.group} - {pid}:
                self._children.setdefault(leader, []).append(pid)

    def is_stopped(self, pid: int) -> bool:
        """Whether it is stopped, as by SIGSTOP. One that a debugger has stopped is not."""
        return pid in self._found and self._found[pid].state == "T"

    def memory(self, pid: int, enough: int) -> int:
        """Memory of a process, those that it started, and those in its group.

        Pages that several share, such as what a fork has not written to since, count in equal parts for each (PSS), so
        that neither what workers have from their forkserver, nor what they share with their own children, counts
        twice. To find that out the system walks all pages; so it is asked only where the resident pages, of which the
        shared ones count in full, exceed `enough`.

        Args:
            pid: The process.
            enough: Bytes up to which an upper bound will do.
        """
        family = self._family(pid)
        resident = sum(self._found[member].resident for member in family)
        return resident if resident <= enough else sum(map(self._proportional, family))

    def _family(self, pid: int) -> set[int]:
        family: set[int] = set()
        generation = {pid} & self._found.keys()
        while generation:
            family |= generation
            generation = {child for member in generation for child in self._children.get(member, ())} - family
        return family

    def _proportional(self, pid: int) -> int:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return 0  # it has ended
        except PermissionError:
            return self._found[pid].resident  # of another user, as which an environment may run something
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


STOPPED = "its process is stopped"


def why_no_signal(pid: int | None, number: int) -> str:
    """Why a process, as it seems, has not noticed a signal."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:  # it has ended, or this is no Linux
        return "it did not answer"
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if status["State"].startswith("T"):
        return STOPPED
    if int(status["SigBlk"], 16) >> (number - 1) & 1:
        return f"its environment blocks the signal {number}, which asks for them"
    return f"it did not answer; its process is in the state {status['State']}"


def _scan() -> Iterator[tuple[int, _Process]]:
    for name in os.listdir(PROC):  # noqa: PTH208 - a thousand at a time
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:  # noqa: PTH123
                line = file.read()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        # After the name, which is in parentheses and may hold anything.
        fields = line[line.rindex(b")") + 2 :].split()
        yield (
            int(name),
            _Process(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[21]) * _PAGE_BYTES),
        )
