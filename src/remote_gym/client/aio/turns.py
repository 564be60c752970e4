"""Turns of tasks that share an environment: they ask one after another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque


class Turns:
    """A lock that is had in the order in which it was asked for, and waited for until a deadline.

    `asyncio.Lock` has no deadlines, and `asyncio.wait_for` around it can lose what it got, or a cancellation, where
    both come at once.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def take(self, deadline: float) -> bool:
        """Wait for the turn.

        Args:
            deadline: On `time.monotonic`.

        Returns:
            Whether it came in time. If so, `give_back` it.
        """
        if not self._is_taken:
            self._is_taken = True
            return True
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(mine)
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), _settle, mine, False)
        try:
            return await mine
        except asyncio.CancelledError:
            if not mine.cancelled() and mine.result():  # it came at the same moment
                self.give_back()
            raise
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):  # given, and so removed
                self._waiting.remove(mine)

    def give_back(self) -> None:
        """Let the next one have it."""
        while self._waiting:
            if _settle(self._waiting.popleft(), True):
                return
        self._is_taken = False


def _settle(future: asyncio.Future[bool], result: bool) -> bool:
    """Give a future its result; False if it has one, or was cancelled."""
    if future.done():
        return False
    future.set_result(result)
    return True
