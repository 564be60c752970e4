"""Looking at processes: which there are, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def running() -> Iterator[tuple[int, list[str]]]:
    """Each process that is no zombie, with what ``/proc`` says of it from its state on: state, parent, group, ..."""
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                yield int(entry.name), fields


def descendants(pid: int) -> set[int]:
    """Processes that it started, and what they started."""
    parents = {each: int(fields[1]) for each, fields in running()}
    found: set[int] = set()
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation} - found
        found |= generation
    return found


def is_relay(pid: int) -> bool:
    """Whether it relays gRPC's connections to a server, whose child it is."""
    try:
        return b"frontends/relay" in (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(pid: int) -> set[int]:
    """A server's forkserver, and what that has started."""
    return {child for child in descendants(pid) if not is_relay(child)}


def open_descriptors() -> dict[str, str]:
    """This process's descriptors and what they are."""
    found = {}
    for entry in (PROC / "self" / "fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:  # the one that lists the folder
            continue
    return found


def thread_count() -> int:
    """Threads of this process, gRPC's own included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208
