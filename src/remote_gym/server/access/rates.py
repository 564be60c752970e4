"""How often something may happen, by identity. Pure: time comes from the clock that is passed in."""

from __future__ import annotations

from collections.abc import Callable

WINDOW = 10.0
"""Seconds: as many as may happen within them may happen at once, after a pause of as long."""
REMEMBERED = 4096
"""Identities that are kept count of, at most; then those are forgotten whose turn would have come soonest."""


class Rates:
    """A bucket of tokens for each identity, of which all that is kept is when it will be full again.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, identity: str, per_second: float, *, count: bool = True) -> float:
        """Let it happen once, unless it has happened too often.

        Args:
            identity: Whose turn it is.
            per_second: How often, over long times; at least one at once is allowed.
            count: Whether it happens; else this only tells whether it may.

        Returns:
            0.0 if it may happen; else the seconds until it may, and nothing has been counted.
        """
        now = self._clock()
        interval = 1.0 / per_second
        full_at = max(now, self._full_at.get(identity, now))
        wait = full_at + interval - now - max(interval, WINDOW)
        if wait > 1e-9:  # what is left of rounding
            return wait
        if not count:
            return 0.0
        self._full_at[identity] = full_at + interval
        if len(self._full_at) > REMEMBERED:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop full buckets, which is no loss, and of the others the fullest half if there are still too many."""
        self._full_at = {identity: full_at for identity, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) > REMEMBERED:
            kept = sorted(self._full_at.items(), key=lambda item: item[1], reverse=True)[: REMEMBERED // 2]
            self._full_at = dict(kept)
