"""What a server and its clients hold: the same after all is closed as before it was opened."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

from faults.serving import Server
from processes import descendants, open_descriptors, thread_count
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

    @classmethod
    def of_server(cls, server: Server) -> Possessions:
        return cls(server.descriptor_count(), server.thread_count(), 0, len(descendants(server.pid)))

    @classmethod
    def of_clients(cls) -> Possessions:
        """Those that are threads of this process."""
        ours = [thread for thread in threading.enumerate() if thread.name.startswith("remote_gym")]
        return cls(len(open_descriptors()), thread_count(), len(ours), 0)

    @staticmethod
    def least(look: Callable[[], Possessions]) -> Possessions:
        """The smallest counts of a second, in which what was just closed ends."""
        seen = []
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            seen.append(astuple(look()))
            time.sleep(0.02)
        return Possessions(*map(min, zip(*seen, strict=True)))

    def excess(self, look: Callable[[], Possessions]) -> list[str]:
        """Wait until no more is held than at that moment.

        Args:
            look: Counts again.

        Returns:
            What is held too much, a sentence each.
        """
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._compare(look()), PATIENCE)
        return self._compare(look())

    def _compare(self, now: Possessions) -> list[str]:
        return [
            f"{name}: {count}, and {before} before"
            for (name, before), count in zip(vars(self).items(), vars(now).values(), strict=True)
            if count > before + (POOLED_THREADS if name == "threads" else 0)
        ]
