"""Whose turn it is: threads that share an environment ask one after another."""

from __future__ import annotations

import threading
import time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.01
"""Seconds between two looks at whether the turn is free. Nobody is woken, so that giving it back is no call."""


class Claim:
    """One use of a session, by one thread. Whoever took a turn by it sets `over`."""

    over = False
    thread = 0


class Turn:
    """A lock that an exception out of nowhere cannot leave locked.

    A signal's handler may raise between any two instructions: after `threading.Lock.acquire`, say, and before the
    ``try`` whose ``finally`` would release it. Here the turn is free as soon as its claim is over, which the caller
    brings about by one assignment, and not by a call::

        claim = Claim()
        try:
            turn.take(claim, deadline)
            ...
        finally:
            claim.over = True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = Claim()
        self._holder.over = True

    def take(self, claim: Claim, deadline: float) -> bool:
        """Wait for the turn; False if it does not come in time.

        Args:
            claim: A new one.
            deadline: On `time.monotonic`.
        """
        pause = _FIRST_PAUSE
        while True:
            with self._lock:
                if self._holder.over:
                    claim.thread = threading.get_ident()
                    self._holder = claim
                    return True
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self.is_mine():
                return False
            time.sleep(min(remaining, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def is_mine(self) -> bool:
        """Whether this very thread has the turn: a signal's handler that interrupted a request asks for another."""
        return not self._holder.over and self._holder.thread == threading.get_ident()
