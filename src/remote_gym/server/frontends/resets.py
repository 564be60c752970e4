"""Counts calls that a client takes back as soon as it has made them, and says when they are too many.

HTTP/2 lets a client reset a stream at once and begin the next, which costs the server far more than the client ("rapid
reset", CVE-2023-44487). What is relayed is encrypted from end to end, so that what can be counted are calls.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

BURST = 100.0
"""Calls that one connection may take back at once, such as many openings that Ctrl-C ends."""
RATE = 20.0
"""And as many more each second."""
SOON = 10.0
"""Seconds from a call's beginning within which its end by the client counts. Not fewer: a server that is flooded with
such calls takes seconds to notice that one of them has been taken back."""


class Resets:
    """The calls that each connection has taken back.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[int, tuple[float, float]] = {}  # how many, and as of when

    def note(self, number: int) -> bool:
        """Count one more.

        Args:
            number: The connection's.

        Returns:
            Whether the connection is to be cut, said once.
        """
        now = self._clock()
        count, then = self._counts.pop(number, (0.0, now))
        is_cut = math.isinf(count)
        count = max(0.0, count - (now - then) * RATE) + 1.0
        is_over = count > BURST
        self._forget(now)
        # The latest last. Calls that it made before it was cut are still to come, and are no news.
        self._counts[number] = (math.inf if is_over else count, now)
        return is_over and not is_cut

    def _forget(self, now: float) -> None:
        """Drop those that have long not counted, oldest first."""
        for number, (_, then) in list(self._counts.items())[:2]:
            if now - then > BURST / RATE:
                del self._counts[number]
