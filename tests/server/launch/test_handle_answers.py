"""The server's end of a worker's sockets, with this test as the worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator

import pytest

from remote_gym.errors import SessionLost
from remote_gym.server.launch.handle import _BUFFER_BYTES, WorkerHandle
from waiting import scaled

LIMIT = 2**20
HELD = _BUFFER_BYTES - 4
"""Bytes of the longest message that the buffer holds."""


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[WorkerHandle, asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, theirs = socket.socketpair()
    control, other = socket.socketpair()
    worker = WorkerHandle("s", lambda: None, LIMIT)
    await worker.connect(ours, control)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield worker, reader, writer
    finally:
        worker.set_exited("the test ended it")
        writer.close()
        await worker.gone
        await worker.close(1.0)
        other.close()


async def hear(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


def run(test):
    asyncio.run(asyncio.wait_for(test(), scaled(60.0)))


@pytest.mark.parametrize("size", [0, 1, HELD - 1, HELD, HELD + 1, 5 * HELD, LIMIT])
@pytest.mark.parametrize("pieces", ["whole", "torn"])
def test_answers_of_any_size_arrive(size, pieces):
    async def test() -> None:
        async with linked() as (worker, reader, writer):
            for number in range(3):
                answer = bytes([number]) * size
                asked = asyncio.ensure_future(worker.ask(b"request %d" % number))
                assert await hear(reader) == b"request %d" % number
                data = framed(answer)
                cuts = (
                    [0, len(data)]
                    if pieces == "whole"
                    else sorted({0, 2, min(4, len(data)), len(data) // 2, len(data)})
                )
                for begin, end in itertools.pairwise(cuts):
                    writer.write(data[begin:end])
                    await writer.drain()
                    await asyncio.sleep(0)  # so that the other end reads this piece by itself
                assert await asked == answer

    run(test)


def test_who_stopped_waiting_is_not_answered_and_the_next_gets_an_answer_of_its_own():
    async def test() -> None:
        async with linked() as (worker, reader, writer):
            impatient = asyncio.ensure_future(worker.ask(b"first"))
            assert await hear(reader) == b"first"
            impatient.cancel()
            others = [asyncio.ensure_future(worker.ask(b"%d" % number)) for number in range(3)]
            await asyncio.sleep(0)
            writer.write(framed(b"late"))
            for _ in others:
                writer.write(framed(b"to " + await hear(reader)))
            assert [await other for other in others] == [b"to 0", b"to 1", b"to 2"]
            assert impatient.cancelled()

    run(test)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (framed(b"one") + framed(b"two"), "more than it was asked for"),
        (framed(b"x" * (LIMIT + 1))[:8], "a message of 1,048,577 bytes"),
    ],
)
def test_a_worker_that_breaks_the_rules_is_cut_off(answer, reason):
    async def test() -> None:
        async with linked() as (worker, reader, writer):
            asked = [asyncio.ensure_future(worker.ask(b"request")) for _ in range(2)]
            await hear(reader)
            writer.write(answer)
            for one in asked:
                with pytest.raises(SessionLost, match=reason):
                    await one

    run(test)


def test_a_worker_that_speaks_without_being_asked_is_cut_off():
    async def test() -> None:
        async with linked() as (worker, _, writer):
            writer.write(framed(b"hello"))
            assert "without being asked" in await worker.gone

    run(test)
