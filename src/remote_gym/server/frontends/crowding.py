"""How many calls, and bytes of answers, one client may have the server keep: it need not read what it is answered.

gRPC keeps an answer, and with it all of its call, until the client's window lets it through, however long that takes.
By measurement there is no way to end such a call: neither cancelling it nor its status overtakes the answer. So what
one client can have on the way is bounded before it is written. A call that has not been answered ends at once by its
status alone, which no window holds up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

CALL_BYTES = 2**15
"""Memory of a call beside its answer: 25 KiB, as measured."""

STALLED = 60.0
"""Seconds without any answer of a client's having left, after which its next ones are dropped."""


class CrowdedError(Exception):
    """One client has too much in progress; asking again may help."""


class Calls:
    """Counts calls in progress. Runs on the server's event loop.

    Args:
        most: Of one holder.
        total: Of all of them; a holder may have `always` even beyond it, so that nobody is kept out by others.
        always: See `total`.
    """

    def __init__(self, most: int, total: int | None = None, always: int = 16) -> None:
        self._most = most
        self._total = total
        self._always = always
        self._counts: Counter[str] = Counter()
        self.count = 0
        """Calls in progress."""

    @contextlib.contextmanager
    def one(self, holder: str) -> Iterator[None]:
        """Count one while it lasts.

        Raises:
            CrowdedError: If there are too many.
        """
        theirs = self._counts[holder]
        full = self._total is not None and self.count >= self._total and theirs >= self._always
        if full or theirs >= self._most:
            raise CrowdedError(f"{theirs} calls of this client are in progress, their answers unread; end some first")
        self._counts[holder] += 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._counts[holder] -= 1
            if not self._counts[holder]:
                del self._counts[holder]


@dataclass
class _Sending:
    """State of one holder's answers: their bytes, when one has left last, and those that wait, in order."""

    size: int = 0
    left: float = 0.0
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)


class Answers:
    """Bounds the bytes of answers that are on their way out, for each holder. Runs on the server's event loop.

    Args:
        share: Bytes of one holder. An answer that is larger goes alone.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._holders: dict[str, _Sending] = {}

    def size(self, holder: str) -> int:
        """Bytes that are on their way to a holder."""
        return self._holders[holder].size if holder in self._holders else 0

    @contextlib.asynccontextmanager
    async def sending(self, holder: str, size: int) -> AsyncIterator[None]:
        """Wait for its turn to be written, and count an answer until it has left.

        Raises:
            CrowdedError: If none of the holder's answers has left for `STALLED` seconds.
        """
        size += CALL_BYTES
        sending = self._holders.setdefault(holder, _Sending())
        try:
            if sending.waiting or not self._fits(sending, size):
                await self._turn(sending, size)
            else:
                sending.size += size
            try:
                yield
            finally:
                sending.size -= size
                sending.left = asyncio.get_running_loop().time()
                self._admit(sending)
        finally:
            if not sending.size and not sending.waiting:
                self._holders.pop(holder, None)

    async def _turn(self, sending: _Sending, size: int) -> None:
        loop = asyncio.get_running_loop()
        admitted = loop.create_future()
        entry = (size, admitted)
        sending.waiting.append(entry)
        begun = loop.time()
        try:
            while not admitted.done():
                remaining = max(begun, sending.left) + STALLED - loop.time()
                if remaining <= 0:
                    what = (
                        f"{sending.size:,} bytes of answers wait for this client to read them; read or end them first"
                    )
                    raise CrowdedError(what)
                await asyncio.wait({admitted}, timeout=remaining)
        except BaseException:
            if admitted.done():
                sending.size -= size
            else:
                sending.waiting.remove(entry)
            self._admit(sending)
            raise

    def _admit(self, sending: _Sending) -> None:
        while sending.waiting and self._fits(sending, sending.waiting[0][0]):
            size, admitted = sending.waiting.popleft()
            sending.size += size
            admitted.set_result(None)

    def _fits(self, sending: _Sending, size: int) -> bool:
        return not sending.size or sending.size + size <= self._share
