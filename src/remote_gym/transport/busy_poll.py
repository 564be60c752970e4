"""How long to look for a message before one sleeps until it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

yield_core = getattr(os, "sched_yield", lambda: None)
"""Lets another process that waits for this core have it."""

LONGEST = 20
"""How many times longer than it has to an end may look, where waits have been short enough for that."""

REST = 100
"""Waits without looking any longer, after another process was found to need the core."""


def core_count() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def poll_us(longest: int, workers: int) -> int:
    """For how many microseconds so many workers may look: for none, unless each has a core, and a client another."""
    return longest if workers < core_count() else 0


class Wakefulness:
    """Looking costs a processor's time; to sleep and be woken costs the other end's step some tens of microseconds.

    So one looks for a short while in any case. Where the last wait took longer than that, but no more than `LONGEST`
    times as long, the next is expected to take about as long, and is looked through: a vector of environments, or a
    trainer between two steps of it. Where it took longer still, waking is a small part of it, and one sleeps. So one
    does where others wait for the core: who looks uses up his share of it, and is not there when the message comes.

    Attributes:
        seconds: To look for the next message.

    Args:
        base: Seconds to look in any case; 0 never to look at all.
    """

    __slots__ = ("_learnt", "_resting", "base", "seconds")

    def __init__(self, base: float) -> None:
        self.base = self.seconds = base
        self._learnt = base  # seconds, when it last looked at all
        self._resting = 0

    def set_base(self, base: float) -> None:
        """Look for `base` seconds in any case from now on, and go on with what has been learnt, as far as it holds."""
        if self.base:
            self._learnt = self.seconds
        self.seconds = max(base, min(self._learnt, LONGEST * base))
        self.base = base

    def learn(self, waited: float) -> None:
        """Take into account how many seconds the last message took to come, where that was more than the base."""
        longest = LONGEST * self.base
        if self._resting:
            self._resting -= 1
        elif waited > longest:
            self.seconds = self.base
        else:
            self.seconds = max(self.base, min(2 * waited, longest))

    def rest(self) -> None:
        """Look no longer than the base for a while."""
        self.seconds = self.base
        self._resting = REST


SLEEPS = Wakefulness(0.0)
"""That of an end which sleeps at once."""


def look(
    poll: Callable[[int], list[tuple[int, int]]],
    wakefulness: Wakefulness,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[int, int]]:
    """Call `poll` with 0 until it gives something, wakefulness is at its end, or others need the core.

    Args:
        poll: A poll object's.
        wakefulness: How long to look.
        clock: Seconds.
    """
    last = clock()
    end = last + wakefulness.seconds
    is_long = wakefulness.seconds > wakefulness.base
    while not (events := poll(0)):
        now = clock()
        if now >= end or (is_long and now - last > wakefulness.base):
            break
        last = now
        # The other end may have been put on the same core, and would wait for all of this one's time slice.
        yield_core()
    if is_long and clock() - last > wakefulness.base:
        wakefulness.rest()
    return events
