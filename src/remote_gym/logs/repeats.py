"""Lines that repeat: the first are written, the others counted, so that nobody can fill a log."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds in which lines of one kind are counted together."""

LINES = 5
"""Lines of one kind and source that are written in a window; further ones are counted."""

SOURCES = 256
"""Kinds and sources that are counted apart. What comes from further ones is counted by its kind alone."""

Write = Callable[[str], None]
"""Writes the summary of what was counted."""


@dataclass
class _Kind:
    """Count of one kind of line from one source.

    Attributes:
        until: End of its window, on the clock.
        written: Lines of this window that were written.
        more: Lines of this window that were counted only.
        first: The text that stands for all of them.
        write: Writes a line at the same level of the same logger.
    """

    until: float
    written: int
    more: int
    first: str
    write: Write


class Repeats:
    """Decides which lines are written.

    Threads may share it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str, str], _Kind] = {}
        self._lock = threading.Lock()

    def admit(self, logger: str, template: str, source: str, lines: int, text: Callable[[], str], write: Write) -> int:
        """Count a line, and return which of its kind it is in a window, from 1; 0 if it is not to be written.

        Args:
            logger: Name of its logger.
            template: Its text without its values; with the logger and the source this is its kind.
            source: Whoever caused it, such as an address or an identity.
            lines: How many of the kind are written in a window.
            text: Makes its whole text, for the summary; called for the first of a kind only.
            write: Writes the summary.
        """
        self.flush()
        with self._lock:
            key = (logger, template, source)
            if key not in self._kinds and len(self._kinds) >= SOURCES:
                key = (logger, template, "")
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._kinds[key] = _Kind(self._clock() + WINDOW, 0, 0, text(), write)
            if kind.written < lines:
                kind.written += 1
                return kind.written
            kind.more += 1
            return 0

    def flush(self, *, everything: bool = False) -> None:
        """Write the summaries of windows that are over.

        Args:
            everything: Those of all windows, since nobody will look again.
        """
        now = self._clock()
        summaries: list[tuple[Write, str]] = []
        with self._lock:
            for key, kind in list(self._kinds.items()):
                if now < kind.until and not everything:
                    continue
                if not kind.more or everything:
                    del self._kinds[key]
                if kind.more:
                    seconds = WINDOW - max(0.0, kind.until - now)
                    summaries.append((kind.write, f"and {kind.more:,} more like it in {seconds:.0f} s: {kind.first}"))
                    # It goes on, most likely: nothing but its count is written until a window passes without it.
                    kind.until, kind.more = now + WINDOW, 0
        # Outside of the lock, which a handler that logs by itself would wait for.
        for write, summary in summaries:
            write(summary)

    def forget(self) -> None:
        """Begin anew, in a child that was forked: the lock may have been held, and the parent writes the summaries."""
        self._lock = threading.Lock()
        self._kinds.clear()


REPEATS = Repeats()
"""Repeats of this process."""

flush = REPEATS.flush

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=REPEATS.forget)


def host_of(peer: str) -> str:
    """The host in ``ipv4:10.0.0.1:4321``, as gRPC names peers: a stranger has one, and as many ports as it likes."""
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer
