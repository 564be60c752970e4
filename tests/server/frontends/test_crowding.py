"""What one client may have in progress and does not read is bounded, and what waits is written in order."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from remote_gym.server.frontends import crowding
from remote_gym.server.frontends.crowding import CALL_BYTES, Answers, Calls, CrowdedError


def test_calls_are_counted_while_they_last():
    calls = Calls(2)
    with calls.one("alice"), calls.one("alice"):
        with pytest.raises(CrowdedError, match="2 calls of this client"), calls.one("alice"):
            pass
        with calls.one("bob"):
            assert calls.count == 3
    assert calls.count == 0
    with calls.one("alice"):
        pass


def test_where_there_are_too_many_in_all_everybody_may_still_have_a_few():
    calls = Calls(100, total=3, always=1)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(calls.one("mallory"))
        with pytest.raises(CrowdedError), calls.one("mallory"):
            pass
        with calls.one("alice"), pytest.raises(CrowdedError), calls.one("alice"):
            pass


class Answer:
    """One that is on its way until it is read."""

    def __init__(self, answers: Answers, holder: str, size: int) -> None:
        self.written = False
        self.read = asyncio.Event()
        self.task = asyncio.ensure_future(self._write(answers, holder, size - CALL_BYTES))

    async def _write(self, answers: Answers, holder: str, size: int) -> None:
        async with answers.sending(holder, size):
            self.written = True
            await self.read.wait()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_answers_over_a_clients_share_wait_until_it_has_read_others():
    async def test() -> None:
        answers = Answers(10 * CALL_BYTES)
        first, second, third = (Answer(answers, "alice", size * CALL_BYTES) for size in (8, 5, 2))
        other, large = Answer(answers, "bob", 9 * CALL_BYTES), Answer(answers, "carol", 50 * CALL_BYTES)
        await turns()
        assert [each.written for each in (first, second, third, other, large)] == [True, False, False, True, True]
        first.read.set()
        await turns()
        assert second.written
        assert third.written
        for each in (second, third, other, large):
            each.read.set()
            await each.task
        assert not any(map(answers.size, ("alice", "bob", "carol")))
        assert not answers._holders

    asyncio.run(asyncio.wait_for(test(), 30))


def test_where_nothing_is_read_further_answers_are_dropped(monkeypatch):
    monkeypatch.setattr(crowding, "STALLED", 0.05)

    async def test() -> None:
        answers = Answers(10 * CALL_BYTES)
        first, second, third = (Answer(answers, "alice", 8 * CALL_BYTES) for _ in range(3))
        await turns()
        third.task.cancel()  # whose client has gone
        with pytest.raises(CrowdedError, match="wait for this client to read them"):
            await second.task
        first.read.set()
        await first.task
        await turns()
        assert not answers._holders

    asyncio.run(asyncio.wait_for(test(), 30))
