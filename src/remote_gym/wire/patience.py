"""How long to look for a message before one sleeps until it comes."""

from __future__ import annotations

LONGEST = 20
"""How many times longer than it has to an end may look, where waits have been short enough for that."""


class Patience:
    """Looking costs a processor's time; to sleep and be woken costs the other end's step some tens of microseconds.

    So one looks for a short while in any case. Where the last wait took longer than that, but no more than `LONGEST`
    times as long, the next is expected to take about as long, and is looked through: a vector of environments, or a
    trainer between two steps of it. Where it took longer still, waking is a small part of it, and one sleeps.

    Attributes:
        seconds: To look for the next message.

    Args:
        base: Seconds to look in any case; 0 never to look at all.
    """

    __slots__ = ("base", "seconds")

    def __init__(self, base: float) -> None:
        self.base = self.seconds = base

    def learn(self, waited: float) -> None:
        """Take into account how many seconds the last message took to come."""
        longest = LONGEST * self.base
        self.seconds = max(self.base, min(2 * waited, longest)) if waited <= longest else self.base
