"""Whether an address that failed is worth trying again. Pure: it borrows its clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

FIRST_COOL_DOWN = 1.0
"""Seconds for which an address is left alone after a failure; twice as long after each further one."""

LONGEST_COOL_DOWN = 60.0

SHORTLY = 60.0
"""Seconds within which a second session must not be lost, and after which what an address did is forgotten."""


class Circuit:
    """State of one address: whether it failed lately, and when to try it again.

    It is closed, and the address used like any other, until that fails: cannot be reached, or loses two sessions
    shortly after one another. Then it is open for a cool-down, which grows with each failure. After that one attempt is
    made, which closes it or opens it for longer.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._last_trouble = -math.inf
        self.next_trial = -math.inf
        """When the address may be tried, on `clock`."""

    @property
    def is_open(self) -> bool:
        """Whether the address is to be left alone for now."""
        return self._clock() < self.next_trial

    def begin(self) -> None:
        """It is tried now. If it failed before, others leave it alone until the outcome is known."""
        if self.next_trial > -math.inf:
            self.next_trial = self._clock() + self._cool_down()

    def failed(self) -> None:
        """It could not be reached."""
        self._failures += 1
        self._last_trouble = self._clock()
        self.next_trial = self._last_trouble + self._cool_down()

    def lost(self) -> None:
        """A session there was lost. Once is the environment's fault as likely as the server's."""
        if self._clock() - self._last_trouble < SHORTLY:
            self.failed()
        self._last_trouble = self._clock()

    def succeeded(self) -> None:
        """A session was opened. What was before is forgotten only after a while: it may be lost again at once."""
        self.next_trial = -math.inf
        if self._clock() - self._last_trouble >= SHORTLY:
            self._failures = 0

    def _cool_down(self) -> float:
        return min(FIRST_COOL_DOWN * 2.0 ** min(self._failures - 1, 30), LONGEST_COOL_DOWN)
