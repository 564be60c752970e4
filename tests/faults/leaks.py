"""What a server and its clients hold: the same after all is closed as before it was opened."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from faults.serving import Server
from processes import PROC, descendants, thread_count
from waiting import wait_until

PATIENCE = 60.0
"""Seconds: silent connections take up to ten to be noticed, and sessions live on for a lease after that."""
POOLED_THREADS = 16
"""Threads that gRPC starts as it needs them, and keeps; what exceeds that many would be ours."""


@dataclass(frozen=True)
class Possessions:
    """Counts of one moment."""

    descriptors: int
    threads: int
    our_threads: int
    """Of this package's own, which have to be gone; known of this process only."""
    processes: int
    targets: Counter[str] = field(default_factory=Counter, compare=False)
    """What the descriptors are of, so that one that is left can be named."""

    @classmethod
    def of_server(cls, server: Server) -> Possessions:
        targets = _targets(server.pid)
        return cls(targets.total(), server.thread_count(), 0, len(descendants(server.pid)), targets)

    @classmethod
    def of_clients(cls) -> Possessions:
        """Those that are threads of this process."""
        ours = [thread for thread in threading.enumerate() if thread.name.startswith("remote_gym")]
        targets = _targets(os.getpid())
        return cls(targets.total(), thread_count(), len(ours), 0, targets)

    @staticmethod
    def least(look: Callable[[], Possessions]) -> Possessions:
        """The smallest counts of a second, in which what was just closed ends."""
        seen = []
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            seen.append(look())
            time.sleep(0.02)
        fewest = min(seen, key=lambda one: one.descriptors)
        counts = zip(*(one._counts().values() for one in seen), strict=True)
        return Possessions(*map(min, counts), fewest.targets)

    def excess(self, look: Callable[[], Possessions]) -> list[str]:
        """Wait until no more is held than at that moment.

        Args:
            look: Counts again.

        Returns:
            What is held too much, a sentence each.
        """
        found: list[str] = []

        def is_gone() -> bool:
            # Not once more after that: what a watchdog just reads, say, is held for a moment only.
            found[:] = self._compare(look())
            return not found

        with contextlib.suppress(AssertionError):
            wait_until(is_gone, PATIENCE)
        return found

    def _counts(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if name != "targets"}

    def _compare(self, now: Possessions) -> list[str]:
        found = []
        for (name, before), count in zip(self._counts().items(), now._counts().values(), strict=True):
            if count > before + (POOLED_THREADS if name == "threads" else 0):
                of = f": {dict(now.targets - self.targets)}" if name == "descriptors" else ""
                found.append(f"{name}: {count}, and {before} before{of}")
        return found


def _targets(pid: int) -> Counter[str]:
    """What a process's descriptors are of: files by their paths, sockets by their ends, others by their kind."""
    ends: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]:
            _, near, far, state, *rest = line.split()
            ends[rest[5]] = f"{table} {near} {far} state {state}"
    found: Counter[str] = Counter()
    for entry in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            kind, _, number = str(entry.readlink()).partition(":[")
            found[f"{kind}:[{number}" if kind == "anon_inode" else ends.get(number[:-1], kind)] += 1
    return found
