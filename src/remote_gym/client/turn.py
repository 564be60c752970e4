"""Turns of threads that share an environment: they ask one after another."""

from __future__ import annotations

import threading
import time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.002
"""Seconds between two looks at whose turn it is. Nobody is woken, so that giving it back is no call."""


class Claim:
    """One use of a session, by one thread. Whoever took a turn by it sets `over`."""

    over = False
    thread = 0


class Turn:
    """A lock that is had in the order in which it was asked for, and that no exception can leave locked.

    A signal's handler may raise between any two instructions: after `threading.Lock.acquire`, say, and before the
    ``try`` whose ``finally`` would release it. Here the turn is the next one's as soon as its claim is over, which the
    caller brings about by one assignment, and not by a call::

        claim = Claim()
        try:
            turn.take(claim, deadline)
            ...
        finally:
            claim.over = True

    The order matters: who looks now and then whether it is free would never find it so beside a trainer that steps
    again at once. And there is no lock within, which a signal's handler would wait for if it interrupted its holder:
    each use of the queue is one operation of `list`, which no thread and no handler sees half done.
    """

    def __init__(self) -> None:
        # The first that is not over has the turn. It is never empty: who removes one stands in it, too.
        self._queue = [Claim()]
        self._queue[0].over = True

    def take(self, claim: Claim, deadline: float) -> bool:
        """Wait for the turn.

        Args:
            claim: A new one.
            deadline: On `time.monotonic`.

        Returns:
            Whether it came: not in time, or never where it `is_mine` already. The claim is over then.
        """
        claim.thread = threading.get_ident()
        queue = self._queue
        if (len(queue) > 1 or not queue[0].over) and self.is_mine():
            claim.over = True
            return False
        queue.append(claim)
        pause = _FIRST_PAUSE
        while (first := queue[0]) is not claim:
            if first.over:
                try:  # noqa: SIM105 - the three calls of `suppress` would be made by each step
                    queue.remove(first)
                except ValueError:  # another thread was faster
                    pass
                continue
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                claim.over = True
                return False
            time.sleep(min(remaining, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def is_mine(self) -> bool:
        """Whether this very thread has the turn, or waits for it: a signal's handler that interrupted it asks."""
        thread = threading.get_ident()
        return any(claim.thread == thread and not claim.over for claim in self._queue[:])
