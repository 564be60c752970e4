"""How many bytes of requests a server holds at once: bounded for each client and in all.

gRPC tells neither how large a message is nor how much of it has come before all of it has. So a call claims room for
the largest message before it reads one, and keeps only what the message takes once it is there. Who finds no room
waits; where one client has most of it and another waits, the first one's oldest call makes way.
"""

from __future__ import annotations

import asyncio
from collections import Counter

PATIENCE = 1.0
"""Seconds that a call waits for room before another client's has to make way: what is on its way in is mostly there
within milliseconds."""

WAIT = 30.0
"""Seconds that a call waits for room at most."""

MAX_WAITING = 1024
"""Calls that may wait for room; their clients can have sent a little of each, up to HTTP/2's flow control."""

MOST_WAITING = 256
"""Waiting claims of one client. Beyond `MAX_WAITING`, one more takes the place of the newest of who has most."""


class NoRoomError(Exception):
    """There is no room for a request; asking again may find some."""


class Reservation:
    """Room that one call has. Made by `Intake.claim`."""

    def __init__(self, intake: Intake, holder: str, size: int) -> None:
        self.holder = holder
        self.size = size
        self.evicted = False
        """Whether the call was cancelled, since its bytes did not come in time or others need the room."""
        self._intake = intake
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.waits_since: float | None = None
        """Since when the call has waited for bytes, on the loop's clock; None where it waits for none."""

    def limit(self, seconds: float) -> None:
        """Evict the call unless `arrived` is called, or this again, within so long."""
        self._stop_timer()
        loop = asyncio.get_running_loop()
        self._timer, self.waits_since = loop.call_later(seconds, self.evict), loop.time()

    def arrived(self, size: int) -> None:
        """All is there; give back what was claimed beyond it."""
        self._stop_timer()
        self._intake.shrink(self, size)

    def evict(self) -> None:
        """Cancel the call that holds the room."""
        self.evicted, self.waits_since = True, None
        assert self._task is not None
        self._task.cancel()

    def release(self) -> None:
        """Give all of it back."""
        self._stop_timer()
        self._intake.release(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self.waits_since = None


class Intake:
    """Room for requests. Runs on the server's event loop.

    Args:
        total: Bytes in all.
        share: Bytes that one client may hold.
    """

    def __init__(self, total: int, share: int) -> None:
        self._total = total
        self.share = share
        self._held: dict[str, dict[Reservation, None]] = {}  # by holder, the oldest first
        self._sums: Counter[str] = Counter()
        self.held = 0
        """Bytes that are claimed."""
        self._waiting: dict[Reservation, asyncio.Future[None]] = {}  # in order

    async def claim(self, holder: str, size: int) -> Reservation:
        """Get room for a request.

        Args:
            holder: Names the client.
            size: Of the request, or of the largest that there may be; at most `share`.

        Raises:
            NoRoomError: If there was none for `WAIT` seconds, or too many wait.
        """
        claim = Reservation(self, holder, size)
        if not self._waiting and self._fits(claim):
            self._grant(claim)
            return claim
        self._join_queue(holder)
        granted = asyncio.get_running_loop().create_future()
        self._waiting[claim] = granted
        self._grant_waiting()
        try:
            await self._wait(claim, granted)
        except BaseException:
            self.release(claim)  # it may have been granted at the same moment
            if granted.done():
                granted.exception()  # or refused, of which asyncio would log that nobody looked
            raise
        finally:
            if self._waiting.pop(claim, None) is not None:
                self._grant_waiting()  # those behind it may have what it waited for
        return claim

    def shrink(self, claim: Reservation, size: int) -> None:
        """Let a claim be for less."""
        if size < claim.size:
            self._sums[claim.holder] -= claim.size - size
            self.held -= claim.size - size
            claim.size = size
            self._grant_waiting()

    def release(self, claim: Reservation) -> None:
        """Forget a claim. Once is enough, and more do no harm."""
        held = self._held.get(claim.holder, {})
        if claim not in held:
            return
        del held[claim]
        self._sums[claim.holder] -= claim.size
        self.held -= claim.size
        if not held:
            del self._held[claim.holder], self._sums[claim.holder]
        self._grant_waiting()

    def _join_queue(self, holder: str) -> None:
        """Find a place in the queue.

        Raises:
            NoRoomError: If there is none for this holder.
        """
        waiting = Counter(claim.holder for claim in self._waiting)
        if waiting[holder] >= MOST_WAITING:
            raise NoRoomError(f"{waiting[holder]} requests of this client wait to be read; try again")
        if len(self._waiting) < MAX_WAITING:
            return
        most, count = waiting.most_common(1)[0]
        if count <= waiting[holder]:
            raise NoRoomError(f"{len(self._waiting)} requests wait to be read; try again")
        newest = next(claim for claim in reversed(self._waiting) if claim.holder == most)
        what = f"{len(self._waiting)} requests, {count} of them this client's, wait to be read; try again"
        self._waiting.pop(newest).set_exception(NoRoomError(what))

    async def _wait(self, claim: Reservation, granted: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT
        while True:
            await asyncio.wait({granted}, timeout=PATIENCE)
            if granted.done():
                granted.result()
                return
            if loop.time() >= end:
                raise NoRoomError(
                    f"the server holds {self.held:,} bytes of requests, {self._sums[claim.holder]:,} of them this "
                    f"client's, and there was no room for {claim.size:,} more within {WAIT:g} s; try again"
                )
            self._make_way_for(claim)

    def _make_way_for(self, claim: Reservation) -> None:
        if self._sums[claim.holder] + claim.size > self.share:
            return
        fullest, held = max(self._sums.items(), key=lambda item: item[1])
        would_hold = self._sums[claim.holder] + claim.size
        if held > would_hold:
            next(iter(self._held[fullest])).evict()
        elif held == would_hold and (silent := self._longest_silent(held)) is not None:
            silent.evict()

    def _longest_silent(self, held: int) -> Reservation | None:
        """Find, of those who hold that much, the oldest claim whose bytes have not come in the time that others wait.

        So as many silent clients as there is room for keep nobody out.
        """
        before = asyncio.get_running_loop().time() - PATIENCE
        candidates = (claim for holder, claims in self._held.items() if self._sums[holder] == held for claim in claims)
        silent = [claim for claim in candidates if claim.waits_since is not None and claim.waits_since <= before]
        return min(silent, key=lambda claim: claim.waits_since or 0.0, default=None)

    def _grant_waiting(self) -> None:
        for claim, granted in list(self._waiting.items()):
            if self._fits(claim):
                del self._waiting[claim]
                self._grant(claim)
                granted.set_result(None)
            elif self._sums[claim.holder] + claim.size <= self.share:
                return  # those behind it may not take what it waits for, or what is large would wait in vain

    def _fits(self, claim: Reservation) -> bool:
        return self._sums[claim.holder] + claim.size <= self.share and self.held + claim.size <= self._total

    def _grant(self, claim: Reservation) -> None:
        self._held.setdefault(claim.holder, {})[claim] = None
        self._sums[claim.holder] += claim.size
        self.held += claim.size
