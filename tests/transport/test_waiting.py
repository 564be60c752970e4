"""Waits of asyncio's tasks: they end, whichever turn of the event loop something comes in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import pytest

from remote_gym.transport import waiting
from remote_gym.transport.waiting import end_tasks, within
from waiting import scaled

LONG = 1000.0


def on_a_loop(check: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        before = asyncio.all_tasks()
        await check()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(run(), scaled(30.0)))


async def result_after(turns: int) -> str:
    for _ in range(turns):
        await asyncio.sleep(0)
    return "result"


def test_a_result_an_error_and_their_absence_are_told_apart():
    async def fail() -> None:
        raise ValueError("its own")

    async def check() -> None:
        assert await within(LONG, result_after(3)) == "result"
        with pytest.raises(ValueError, match="its own"):
            await within(LONG, fail())
        with pytest.raises(asyncio.TimeoutError):
            await within(0.01, asyncio.sleep(LONG))

    on_a_loop(check)


def test_no_cancellation_is_swallowed_in_whichever_turn_it_comes():
    async def check() -> None:
        for turns in range(1, 12):
            discarded: list[str] = []
            task = asyncio.ensure_future(within(LONG, result_after(5), discard=discarded.append))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = task.done()
            task.cancel()
            if was_done:
                assert await task == "result"
            else:
                with pytest.raises(asyncio.CancelledError):
                    await task
            # A result that is there and that nobody gets has been given back.
            assert discarded in ([], ["result"])
            discards.append(len(discarded))

    discards: list[int] = []
    on_a_loop(check)
    assert 0 < sum(discards) < len(discards)


@pytest.mark.parametrize("by_timeout", [True, False])
def test_what_was_waited_for_has_cleaned_up_before_its_owner_goes_on(by_timeout):
    async def check() -> None:
        steps: list[str] = []

        async def clean_up_slowly() -> None:
            try:
                await asyncio.sleep(LONG)
            finally:
                await asyncio.sleep(0.02)
                steps.append("clean")

        task = asyncio.ensure_future(within(0.02 if by_timeout else LONG, clean_up_slowly()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not by_timeout:
            task.cancel()
        with pytest.raises((asyncio.TimeoutError, asyncio.CancelledError)):
            await task
        assert steps == ["clean"]

    on_a_loop(check)


def test_an_error_that_nobody_gets_any_more_is_not_reported(caplog):
    async def fail_at_the_end() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise ValueError("at its end") from None

    async def check() -> None:
        task = asyncio.ensure_future(within(LONG, fail_at_the_end()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.ERROR):
        on_a_loop(check)
    assert not caplog.records


def test_tasks_that_swallow_a_cancellation_are_cancelled_again(monkeypatch):
    monkeypatch.setattr(waiting, "AGAIN", 0.02)

    async def swallow(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(LONG)
        await asyncio.sleep(LONG)

    async def check() -> None:
        tasks = [asyncio.ensure_future(swallow(times)) for times in range(4)]
        await asyncio.sleep(0)
        await end_tasks(tasks)
        assert all(task.cancelled() for task in tasks)
        await end_tasks(tasks)
        await end_tasks([])

    on_a_loop(check)


def test_a_task_that_does_not_end_is_named_and_not_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(waiting, "AGAIN", 0.02)

    async def go_on_until(event: asyncio.Event) -> None:
        while not event.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await event.wait()

    async def check() -> None:
        end = asyncio.Event()
        task = asyncio.ensure_future(go_on_until(end))
        await asyncio.sleep(0)
        await end_tasks([task], timeout=0.1)
        assert not task.done()
        end.set()
        await task

    on_a_loop(check)
    assert "a task has not ended within 0.1 s of being cancelled" in caplog.text
    assert "go_on_until" in caplog.text
