"""A direct connection that is awaited, and other ends that do not keep to the protocol."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaited import LOOPS, run
from remote_gym.client.aio import direct_stream
from remote_gym.client.aio.direct_stream import AsyncDirectStream, attach_directly
from remote_gym.config import Limits
from remote_gym.errors import ConnectError, ConnectionLost, DeadlineExceeded, EncodingError, NotPermitted
from remote_gym.transport.direct_socket import PREAMBLE, ROUTING_ID_BYTES
from remote_gym.transport.framing import frame
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import encode_error

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ATTACHED = frame(pb.Attached().SerializeToString())


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


async def against(behave: Behave, use: Callable[[AsyncDirectStream], Awaitable[Any]], *, attaches: bool = True) -> Any:
    """Attach to another end that does as it likes once it was attached to, or from the beginning."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert (await reader.readexactly(len(PREAMBLE) + ROUTING_ID_BYTES))[: len(PREAMBLE)] == PREAMBLE
            if attaches:
                size = int.from_bytes(await reader.readexactly(4), "big")
                assert pb.Attach.FromString(await reader.readexactly(size)).token == "secret"
                writer.write(ATTACHED)
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        address = pb.DirectAddress(port=server.sockets[0].getsockname()[1], routing_id=bytes(ROUTING_ID_BYTES))
        limits = Limits(message_bytes=2**20)
        stream = await attach_directly(("127.0.0.1", 1), address, "secret", context=None, limits=limits, timeout=5.0)
        try:
            return await use(stream)
        finally:
            stream.close()
            await stream.ended()
    finally:
        server.close()


def sending(*parts: bytes, then: float = 0.0) -> Behave:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        await asyncio.sleep(then)

    return behave


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_come_whole_however_they_are_cut(loop):
    large = bytes(range(256)) * 1000
    data = frame(b"one") + frame(large) + frame(b"") + frame(b"four")
    cuts = [0, 1, 5, 9, 20, 5000, 200_000, len(data) - 5, len(data)]
    parts = [data[begin:end] for begin, end in itertools.pairwise(cuts)]

    async def use(stream: AsyncDirectStream) -> None:
        assert [bytes(await stream.receive(soon())) for _ in range(4)] == [b"one", large, b"", b"four"]

    run(against(sending(*parts), use), loop)


@given(st.lists(st.binary(max_size=9000), max_size=6), st.randoms(use_true_random=False))
def test_messages_are_those_that_were_sent_wherever_they_are_cut(messages, random):
    data = b"".join(map(frame, messages))

    async def main() -> None:
        stream, at = AsyncDirectStream("there", Limits()), 0
        while at < len(data):
            buffer = stream.get_buffer(-1)
            count = min(len(buffer), len(data) - at, random.choice([1, 2, 3, 5, 100, 5000]))
            assert count > 0
            buffer[:count] = data[at : at + count]
            at += count
            stream.buffer_updated(count)
        assert [bytes(message) for message in stream._messages] == messages

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("sent", "error", "text"),
    [
        (b"\xff\xff\xff\xff", EncodingError, "limit"),
        (b"\x00\x10\x00\x01" + bytes(100), EncodingError, "limit"),
        (b"\x00\x00\x00\x09abc", ConnectionLost, "closed"),
        (b"\x00\x00\xff\xffabc", ConnectionLost, "closed"),
        (b"\x00", ConnectionLost, "closed"),
        (b"", ConnectionLost, "closed"),
    ],
)
def test_what_is_no_message_ends_the_stream_and_says_why(sent, error, text, loop):
    async def use(stream: AsyncDirectStream) -> None:
        for _ in range(2):
            with pytest.raises(error, match=text):
                await stream.receive(soon())
        with pytest.raises(error, match=text):
            await stream.send(b"more", soon())

    run(against(sending(sent), use), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_sends_without_end_is_read_no_further_than_it_was_asked(loop):
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(frame(bytes(1000)))
            sent += 1000
            await writer.drain()

    async def use(stream: AsyncDirectStream) -> None:
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert len(stream._messages) <= direct_stream._BUFFER_BYTES // 1000 + 3
        for _ in range(100):
            assert len(await stream.receive(soon())) == 1000

    run(against(flood, use), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_reads_nothing_holds_up_nobody_past_the_deadline(loop):
    async def use(stream: AsyncDirectStream) -> None:
        async def send() -> None:
            for _ in range(100):
                await stream.send(bytes(2**20), soon(0.3))

        with pytest.raises(DeadlineExceeded):
            await send()

    run(against(sending(then=60.0), use), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_that_does_not_come_is_waited_for_until_the_deadline(loop):
    async def use(stream: AsyncDirectStream) -> None:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="no answer"):
            await stream.receive(soon(0.2))
        assert time.monotonic() - begin >= 0.19

    run(against(sending(then=60.0), use), loop)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (frame(pb.Attached(error=encode_error(NotPermitted("not you"))).SerializeToString()), NotPermitted, "not you"),
        (frame(b"\xff\xff\xff"), EncodingError, "Attached"),
        (b"\xff\xff\xff\xff", EncodingError, "limit"),
        (b"", ConnectError, "closed"),
    ],
)
def test_one_that_does_not_attach_says_why(answer, error, text):
    async def use(stream: AsyncDirectStream) -> None:
        raise AssertionError("it has attached")

    with pytest.raises(error, match=text):
        run(against(sending(answer), use, attaches=False))


def test_nobody_there_and_somebody_who_says_nothing():
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main() -> None:
        address = pb.DirectAddress(port=1, routing_id=bytes(ROUTING_ID_BYTES))
        arguments: dict[str, Any] = {"context": None, "limits": Limits(), "timeout": 0.3}
        with pytest.raises(ConnectError, match="cannot be made"):
            await attach_directly(("127.0.0.1", 1), address, "", **arguments)
        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        try:
            address.port = silent.sockets[0].getsockname()[1]
            with pytest.raises(ConnectError, match="was refused: no answer"):
                await attach_directly(("127.0.0.1", 1), address, "", **arguments)
            with pytest.raises(ConnectError, match="has no TLS"):
                await attach_directly(("127.0.0.1", 1), address, "", **{**arguments, "context": object()})
        finally:
            silent.close()

    run(main())
