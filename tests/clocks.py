"""Time that passes when a test says so."""

from __future__ import annotations


class Clock:
    """Stands in for `time.monotonic`.

    Attributes:
        now: What it says, in seconds.
    """

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
