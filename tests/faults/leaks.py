"""What a server and its clients hold: the same after all is closed as before it was opened."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import dataclass

from faults.serving import Server
from processes import open_descriptors, thread_count
from waiting import wait_until

PATIENCE = 30.0
"""Seconds: silent connections take up to ten to be noticed, and sessions live on for a lease after that."""
POOLED_THREADS = 16
"""Threads that gRPC starts as it needs them, and keeps; more than that would be ours."""


@dataclass(frozen=True)
class Possessions:
    """Counts of one moment."""

    client_descriptors: int
    client_threads: int
    server_descriptors: int
    server_threads: int
    workers: int

    @classmethod
    def now(cls, server: Server) -> Possessions:
        return cls(
            client_descriptors=len(open_descriptors()),
            client_threads=thread_count(),
            server_descriptors=server.descriptor_count(),
            server_threads=server.thread_count(),
            workers=len(server.workers()),
        )

    def wait_for(self, server: Server) -> list[str]:
        """Wait until no more is held than at that moment.

        Returns:
            What is held too much, a sentence each.
        """
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._excess(server), PATIENCE)
        return self._excess(server)

    def _excess(self, server: Server) -> list[str]:
        now, found = Possessions.now(server), []
        for name, count in vars(now).items():
            allowed = getattr(self, name) + (POOLED_THREADS if name.endswith("threads") else 0)
            if count > allowed:
                found.append(f"{name.replace('_', ' ')}: {count}, and {getattr(self, name)} before")
        ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("remote_gym")]
        if ours:
            found.append(f"client threads left: {Counter(ours)}")
        return found
