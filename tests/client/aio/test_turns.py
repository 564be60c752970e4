"""Whose turn it is, of tasks that wait, give up, and are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from awaited import LOOPS, run
from remote_gym.client.aio.turns import Turns


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize("loop", LOOPS)
def test_turns_come_in_the_order_in_which_they_were_asked_for(loop):
    async def main() -> None:
        turns, order = Turns(), []

        async def use(number: int) -> None:
            assert await turns.take(soon())
            order.append(number)
            await asyncio.sleep(0)
            turns.give_back()

        await asyncio.gather(*map(use, range(10)))
        assert order == list(range(10))
        assert await turns.take(soon())

    run(main(), loop)


def test_one_that_came_too_late_does_not_keep_the_others_waiting():
    async def main() -> None:
        turns = Turns()
        assert await turns.take(soon())
        assert not await turns.take(time.monotonic() + 0.01)
        assert not await turns.take(time.monotonic() - 1.0)
        waiting = asyncio.create_task(turns.take(soon()))
        await asyncio.sleep(0)
        turns.give_back()
        assert await waiting
        turns.give_back()
        assert await turns.take(time.monotonic() - 1.0), "it is free"

    run(main())


def test_one_that_is_cancelled_as_it_gets_the_turn_passes_it_on():
    async def main() -> None:
        for turns_before in range(4):
            turns = Turns()
            assert await turns.take(soon())
            first, second = (asyncio.create_task(turns.take(soon())) for _ in range(2))
            await asyncio.sleep(0)
            turns.give_back()  # to the first, which has not run since
            for _ in range(turns_before):
                await asyncio.sleep(0)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if await first:
                    turns.give_back()
            assert await second
            turns.give_back()
            assert await turns.take(time.monotonic() - 1.0), "it is free"

    run(main())
