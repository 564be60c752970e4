"""Waits with an end, amid which their tasks are cancelled."""

from __future__ import annotations

import asyncio

import pytest

from remote_gym.transport.waiting import within
from waiting import scaled


def run(test):
    return asyncio.run(asyncio.wait_for(test(), scaled(30.0)))


def test_a_result_or_an_error_comes_through():
    async def fail() -> None:
        raise ValueError("no")

    async def test() -> None:
        assert await within(10.0, asyncio.sleep(0, "there")) == "there"
        with pytest.raises(ValueError, match="no"):
            await within(10.0, fail())

    run(test)


def test_what_takes_too_long_is_cancelled_and_has_ended():
    ends = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("ended")

    async def test() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await within(0.01, hang())
        assert ends == ["ended"]

    run(test)


def test_what_is_cancelled_by_others_is_not_late():
    async def test() -> None:
        awaited = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(within(10.0, awaited))
        await asyncio.sleep(0)
        awaited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_is_not_lost_in_whatever_tick_the_result_comes(turns, fails, caplog):
    went_on = []

    async def test() -> None:
        awaited = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await within(10.0, awaited)
            await asyncio.sleep(0)
            went_on.append(True)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if fails:
            awaited.set_exception(ValueError("no"))
        else:
            awaited.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        was_in_time = task.cancel()
        await asyncio.wait([task])
        assert not (was_in_time and went_on)
        assert task.cancelled() or task.exception() is None or fails

    run(test)
    assert not caplog.records
