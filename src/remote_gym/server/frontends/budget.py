"""Counts what somebody does that is little in itself, and says when it is done too often.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable


class Budget:
    """How often each of many may do something.

    Args:
        burst: As often at once.
        rate: And as often more each second.
        clock: Monotonic seconds.
    """

    def __init__(self, burst: float, rate: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._counts: dict[Hashable, tuple[float, float]] = {}  # how many, and as of when

    def note(self, key: Hashable) -> bool:
        """Count once more.

        Args:
            key: Who has done it.

        Returns:
            Whether that is too often. What is too much is not counted, so that it is over as soon as they do it less.
        """
        now = self._clock()
        count, then = self._counts.pop(key, (0.0, now))
        count = max(0.0, count - (now - then) * self._rate)
        is_over = count + 1.0 > self._burst
        self._forget(now)
        self._counts[key] = (count if is_over else count + 1.0, now)  # the latest last
        return is_over

    def _forget(self, now: float) -> None:
        """Drop those that have long not counted, oldest first."""
        for key, (_, then) in list(itertools.islice(self._counts.items(), 2)):
            if now - then > self._burst / self._rate:
                del self._counts[key]
