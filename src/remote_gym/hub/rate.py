"""How many bytes a second may pass for a server: its clients' addresses share that evenly.

Pure: time comes from the clock that is passed in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

BUSY = 1.0
"""Seconds after which an address that has sent and been sent nothing leaves its share to others."""


KEPT = 60.0
"""Seconds after which an address is forgotten that has had nothing: with its connections alone its debt would go."""


class Rate:
    """A bound on what passes for one server.

    Without shares a stranger, whose bytes are let through to the server as anybody's are, could have it all.

    Args:
        rate: Bytes a second; None for any number.
        clock: Monotonic seconds.

    Attributes:
        portion: Bytes that may pass at once, so that a connection which has to wait for others does not for long: an
            end whose bytes nobody takes for 8 s is given up by the system.
    """

    def __init__(self, rate: int | None, clock: Callable[[], float]) -> None:
        self.rate = rate
        self.portion = sys.maxsize if rate is None else max(1024, rate // 16)
        self.clock = clock
        self._shares: dict[str, Share] = {}
        self._pruned = clock()

    def share(self, network: str) -> Share:
        """Share of one address, for all of its connections together."""
        now = self.clock()
        if now - self._pruned > KEPT:
            self._pruned = now
            self._shares = {name: share for name, share in self._shares.items() if now - share.as_of <= KEPT}
        found = self._shares.get(network)
        if found is None:
            found = self._shares[network] = Share(self, self.each(now))
        return found

    def each(self, now: float) -> float:
        """Bytes a second that an address may have, with all that are busy."""
        busy = sum(now - share.as_of <= BUSY or share.left < 0 for share in self._shares.values())
        return (self.rate or 0) / max(1, busy)


class Share:
    """One address's part of a `Rate`.

    Args:
        rate: That.
        left: Bytes that may pass at first.

    Attributes:
        left: Bytes that may pass at once; below 0 while more has passed than may.
        as_of: When that was so, and bytes have passed last.
    """

    def __init__(self, rate: Rate, left: float) -> None:
        self._rate = rate
        self.left = left
        self.as_of = rate.clock()

    @property
    def portion(self) -> int:
        """Bytes that may pass at once; see `Rate`."""
        return self._rate.portion

    def wait(self) -> float:
        """Seconds for which nothing may pass; 0 if something may at once."""
        if self._rate.rate is None or self.left >= 0:
            return 0.0
        now = self._rate.clock()
        each = self._rate.each(now)
        return max(0.0, -self.left / each - (now - self.as_of))

    def spend(self, count: int) -> None:
        """Count bytes that pass."""
        if self._rate.rate is None:
            return
        now = self._rate.clock()
        each = self._rate.each(now)
        # One second's worth may come at once.
        self.left = min(each, self.left + (now - self.as_of) * each) - count
        self.as_of = now
