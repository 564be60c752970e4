"""Room for requests: bounded for each client and in all, and nobody keeps others out of it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from remote_gym.server.frontends import intake as intake_module
from remote_gym.server.frontends.intake import Intake, NoRoomError, Reservation


def run(test) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Call:
    """A call that holds room until it is released or evicted."""

    def __init__(self, intake: Intake, holder: str, size: int) -> None:
        self.claim: Reservation | None = None
        self.ended = asyncio.Event()
        self.refused = ""
        self.task = asyncio.ensure_future(self._run(intake, holder, size))

    async def _run(self, intake: Intake, holder: str, size: int) -> None:
        try:
            self.claim = await intake.claim(holder, size)
        except NoRoomError as error:
            self.refused = str(error)
            return
        try:
            await self.ended.wait()
        finally:
            self.claim.release()

    async def end(self) -> None:
        self.ended.set()
        await self.task


def test_a_client_gets_its_share_and_waits_for_more_without_keeping_others_waiting():
    async def test() -> None:
        intake = Intake(100, 60)
        first, second = Call(intake, "alice", 40), Call(intake, "alice", 40)
        other = Call(intake, "bob", 40)
        await turns()
        assert first.claim is not None
        assert second.claim is None, "more than its share"
        assert other.claim is not None, "behind one that waits for its own share"
        assert intake.held == 80
        await first.end()
        await turns()
        assert second.claim is not None
        for call in (second, other):
            await call.end()
        assert intake.held == 0

    run(test)


def test_what_is_small_does_not_overtake_what_is_large_for_ever():
    async def test() -> None:
        intake = Intake(100, 100)
        first = Call(intake, "alice", 60)
        await turns()
        large, small = Call(intake, "bob", 60), Call(intake, "carol", 10)
        await turns()
        assert (large.claim, small.claim) == (None, None)
        await first.end()
        await turns()
        assert large.claim is not None
        assert small.claim is not None

    run(test)


def test_what_has_arrived_keeps_only_what_it_takes():
    async def test() -> None:
        intake = Intake(100, 100)
        first = Call(intake, "alice", 100)
        await turns()
        waiting = Call(intake, "bob", 90)
        await turns()
        assert waiting.claim is None
        first.claim.arrived(10)
        await turns()
        assert waiting.claim is not None
        assert intake.held == 100
        first.claim.arrived(50)
        assert intake.held == 100, "never more than was claimed"

    run(test)


def test_who_has_most_makes_way_its_oldest_call_first(monkeypatch):
    monkeypatch.setattr(intake_module, "PATIENCE", 0.01)

    async def test() -> None:
        intake = Intake(100, 60)
        hoarded = [Call(intake, "mallory", 20) for _ in range(3)]
        honest = Call(intake, "alice", 40)
        await turns()
        assert honest.claim is not None
        late = Call(intake, "bob", 30)
        await asyncio.wait({hoarded[0].task, hoarded[1].task})
        await turns()
        assert late.claim is not None
        assert [call.claim.evicted for call in (*hoarded, honest)] == [True, True, False, False]

    run(test)


def test_who_has_most_does_not_evict_itself_or_who_has_less(monkeypatch):
    monkeypatch.setattr(intake_module, "PATIENCE", 0.01)
    monkeypatch.setattr(intake_module, "WAIT", 0.1)

    async def test() -> None:
        intake = Intake(100, 100)
        first, second = Call(intake, "alice", 60), Call(intake, "bob", 40)
        await turns()
        again = Call(intake, "alice", 10)
        await again.task
        assert "no room for 10 more" in again.refused
        greedy = Call(intake, "bob", 30)
        await greedy.task
        assert "bob" not in greedy.refused
        assert not first.claim.evicted
        assert not second.claim.evicted

    run(test)


def test_what_does_not_come_in_time_is_evicted():
    async def test() -> None:
        intake = Intake(100, 100)
        call = Call(intake, "alice", 10)
        await turns()
        call.claim.limit(60.0)
        call.claim.limit(0.01)
        with pytest.raises(asyncio.CancelledError):
            await call.task
        assert call.claim.evicted
        assert intake.held == 0

    run(test)


def test_who_stops_waiting_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(intake_module, "MAX_WAITING", 2)

    async def test() -> None:
        intake = Intake(10, 10)
        first = Call(intake, "alice", 10)
        await turns()
        waiting = [Call(intake, "bob", 10) for _ in range(3)]
        await turns()
        assert "2 requests wait" in waiting[2].refused
        # One is cancelled in the same turn in which it is given room.
        first.ended.set()
        waiting[0].task.cancel()
        waiting[1].task.cancel()
        for call in waiting[:2]:
            with contextlib.suppress(asyncio.CancelledError):
                await call.task
        await turns()
        assert intake.held == 0
        assert not intake._waiting
        assert not intake._held

    run(test)


def test_who_stops_waiting_lets_those_behind_have_the_room():
    async def test() -> None:
        intake = Intake(100, 100)
        first = Call(intake, "alice", 60)
        await turns()
        large, small = Call(intake, "bob", 60), Call(intake, "carol", 10)
        await turns()
        assert small.claim is None
        large.task.cancel()
        await turns()
        assert small.claim is not None
        for call in (first, small):
            await call.end()
        assert intake.held == 0

    run(test)


def test_one_clients_calls_keep_nobody_from_waiting(monkeypatch):
    monkeypatch.setattr(intake_module, "MAX_WAITING", 6)
    monkeypatch.setattr(intake_module, "MOST_WAITING", 4)

    async def test() -> None:
        intake = Intake(10, 10)
        first = Call(intake, "alice", 10)
        await turns()
        many = [Call(intake, "mallory", 10) for _ in range(6)]
        await turns()
        assert [bool(call.refused) for call in many] == [False] * 4 + [True] * 2
        others = [Call(intake, name, 10) for name in ("bob", "carol", "dave", "eve")]
        await turns()
        assert [bool(call.refused) for call in many] == [False] * 2 + [True] * 4, "the newest of who has most"
        assert not any(call.refused for call in others)
        late = Call(intake, "mallory", 10)
        await turns()
        assert "6 requests wait" in late.refused
        for call in (first, *many, *others):
            call.ended.set()
        await asyncio.wait([call.task for call in (first, *many, *others)])
        assert intake.held == 0

    run(test)


def test_as_many_silent_calls_as_there_is_room_for_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(intake_module, "PATIENCE", 0.01)

    async def test() -> None:
        intake = Intake(30, 10)
        calls = [Call(intake, f"stranger {number}", 10) for number in range(3)]
        await turns()
        for call in calls:
            call.claim.limit(60.0)
        calls[0].claim.arrived(10)  # no longer silent: it is being answered
        honest = Call(intake, "alice", 10)
        with contextlib.suppress(asyncio.CancelledError):
            await calls[1].task
        await turns()
        assert honest.claim is not None
        assert [call.claim.evicted for call in calls] == [False, True, False]

    run(test)
