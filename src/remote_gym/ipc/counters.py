"""A worker's page of counters, which the server reads without asking: a hung worker answers nothing.

The page is an anonymous file, of which the server and the worker hold a descriptor each. The worker maps it and stores
to it, which costs a step half a microsecond. The server reads it by a system call and does not map it: an environment
could cut the file short, and looking at a mapping of what is gone ends the process that looks.

Behind the page, in the same file, a worker writes where its Python threads are when the server wants to know. A file
takes that at once, where a pipe that an environment has filled with its output would not.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from dataclasses import dataclass, field
from typing import Final

import numpy as np

IDLE: Final = 0
OPERATIONS: Final = {"reset": 1, "step": 2, "step_many": 2, "render": 3, "call": 4, "close": 5}
"""Values of the word `OPERATION` while a request runs."""
NAMES: Final = {number: name for name, number in OPERATIONS.items() if name != "step_many"}

# The words of a page, each of 64 bits and of this machine's byte order. One is written by one store, so none is torn.
OPERATION: Final = 0
"""One of `OPERATIONS`, or `IDLE`. Is written after `SINCE`, so that nothing looks older than it is."""
SINCE: Final = 1
"""When the newest request began, or of several steps in one request the newest step: `time.monotonic_ns`."""
SEQUENCE: Final = 2
STEPS: Final = 3
EPISODES: Final = 4
BYTES_RECEIVED: Final = 5
BYTES_SENT: Final = 6
BUSY: Final = 7
WORDS: Final = struct.Struct("=8Q")

PAGE_BYTES: Final = mmap.PAGESIZE
STACKS_BYTES: Final = 64 * 1024
"""Bytes of a worker's stacks that are read, at most."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Counts of one worker's work so far.

    Attributes:
        operation: What it does now: "reset", "step", "render", "call" or "close"; None while it waits for a request.
        since: When the newest request began, which may have ended; of several steps in one request, the newest step.
            Nanoseconds of `time.monotonic_ns`, which all processes of a machine share; 0 before the first.
        sequence: Number of the last request that was answered; 0 before the first.
        steps: Steps taken. That of a vector environment is one.
        episodes: Episodes that ended; of a vector environment, those of each of its environments.
        bytes_received: Sizes of the requests that were run, without what carried them.
        bytes_sent: Sizes of their responses.
        busy_seconds: Time spent on requests that were answered.
    """

    operation: str | None = None
    since: int = 0
    sequence: int = 0
    steps: int = 0
    episodes: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    busy_seconds: float = 0.0

    @classmethod
    def decode(cls, page: bytes | bytearray) -> Counters:
        """Decode a page's bytes; too few of them mean that nothing has been done."""
        if len(page) < WORDS.size:
            return cls()
        operation, since, sequence, steps, episodes, received, sent, busy = WORDS.unpack_from(page)
        return cls(
            operation=NAMES.get(operation),
            since=since,
            sequence=sequence,
            steps=steps,
            episodes=episodes,
            bytes_received=received,
            bytes_sent=sent,
            busy_seconds=busy / 1e9,
        )


def new_page() -> memoryview:
    """A page that is shared with nobody outside this process, as words."""
    return memoryview(bytearray(WORDS.size)).cast("Q")


def map_page(descriptor: int) -> memoryview:
    """The worker's side of a `Page`, as words to store to.

    Raises:
        OSError: If it cannot be mapped.
    """
    return memoryview(mmap.mmap(descriptor, PAGE_BYTES))[: WORDS.size].cast("Q")


def count_ended(terminated: object, truncated: object) -> int:
    """How many episodes a step has ended, by its flags, which are an environment's and may be anything."""
    flags = [np.asarray(flag) for flag in (terminated, truncated)]
    if all(flag.dtype == bool for flag in flags) and flags[0].shape == flags[1].shape:
        return int(np.count_nonzero(flags[0] | flags[1]))
    return 0


@dataclass(eq=False)
class Page:
    """The server's side of a page that it shares with a worker process.

    Raises:
        OSError: If the system gives no more descriptors.
    """

    _descriptor: int = field(default_factory=lambda: anonymous_file(PAGE_BYTES))
    _last: Counters = Counters()

    def fileno(self) -> int:
        """For the worker. Both share one position in the file, which is where stacks are written to."""
        return self._descriptor

    def read(self) -> Counters:
        """Read the counts; after `close`, those of the last look."""
        if self._descriptor >= 0:
            self._last = Counters.decode(os.pread(self._descriptor, WORDS.size, 0))
        return self._last

    def read_stacks(self) -> str:
        """Read the stacks that were written behind the page."""
        if self._descriptor < 0:
            return ""
        return os.pread(self._descriptor, STACKS_BYTES, PAGE_BYTES).decode(errors="replace")

    def close(self) -> None:
        """Let go of it. A second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self.read()
            os.close(self._descriptor)
            self._descriptor = -1


def anonymous_file(size: int = 0) -> int:
    """A descriptor of a file without a name, whose position is at its end. Needs no place that can be written to.

    Args:
        size: Bytes that it has, all zero.

    Raises:
        OSError: If the system gives no more descriptors.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("remote_gym")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
