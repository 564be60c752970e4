"""Streams whose requests and answers are awaited, and what all kinds of them share."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from remote_gym.errors import ConnectionLost, DeadlineExceeded, RemoteGymError
from remote_gym.protocol.stream import within

MOST_UNASKED = 2
"""Answers that are kept though nobody waits for one: a server that sends more is not read until they have been."""


class AsyncStream(ABC):
    """As `remote_gym.protocol.stream.Stream`, except that sending and receiving is awaited, by one task at a time.

    Messages are handed over as they come, by whatever reads the connection, and wait here for `receive`. All of it
    belongs to one event loop.

    Args:
        where: The other end, for errors.

    Attributes:
        is_direct: Whether it leads to the worker itself, the faster way.
    """

    is_direct = False

    def __init__(self, where: str) -> None:
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._messages: deque[bytes | memoryview] = deque()
        self._waiter: asyncio.Future[None] | None = None
        # Makes the error, rather than being it: what was raised refers to all functions that it has passed.
        self._end: Callable[[], RemoteGymError] | None = None
        self._sent = time.monotonic()
        self.closed = False

    @abstractmethod
    async def send(self, data: bytes, deadline: float) -> None:
        """Send one message.

        Args:
            data: The message.
            deadline: On `time.monotonic`, for the message to be taken.

        Raises:
            DeadlineExceeded: If the other end does not read it in time.
            ConnectionLost: If the connection ended.
        """

    async def receive(self, deadline: float) -> bytes | memoryview:
        """Wait for the message that answers the one sent.

        Args:
            deadline: On `time.monotonic`.

        Raises:
            DeadlineExceeded: If it did not come in time.
            ConnectionLost: If the connection ended, or was closed.
            EncodingError: If it is over the limit.
        """
        while not self._messages:
            await self._change(deadline)
        message = self._messages.popleft()
        self._has_room()
        return message

    @abstractmethod
    def shut_down(self) -> None:
        """End the connection as a network would: whoever uses it gets `ConnectionLost`. It still has to be closed."""

    def close(self) -> None:
        """Detach; the session lives on for its lease. Waits for nothing. Who is receiving gets `ConnectionLost`."""
        self.closed = True
        where = self._where
        self._ends(lambda: ConnectionLost(f"the connection to {where} is closed"))

    @abstractmethod
    async def ended(self) -> None:
        """Wait until nothing is left of a stream that was closed."""

    def fileno(self) -> int | None:
        """None: nobody waits for it but the event loop."""
        return None

    @abstractmethod
    def _has_room(self) -> None:
        """Go on reading, if that had stopped because of `_is_full`."""

    @property
    def _is_full(self) -> bool:
        return len(self._messages) >= MOST_UNASKED

    def _came(self, message: bytes | memoryview) -> None:
        """Hand a message over."""
        if not self.closed:
            self._messages.append(message)
            self._wake()

    def _ends(self, why: Callable[[], RemoteGymError]) -> None:
        """Say that nothing more can be sent or received. The first reason counts."""
        if self._end is None:
            self._end = why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _change(self, deadline: float) -> None:
        """Wait until something has changed.

        Raises:
            DeadlineExceeded: If nothing has in time.
            RemoteGymError: If the stream has ended.
        """
        if self._end is not None:
            raise self._end()
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceeded(f"no answer from {self._where}{within(deadline - self._sent)}")
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(remaining, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
