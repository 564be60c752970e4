"""Servers that answer over gRPC as no server should, and an asynchronous client that has to say so and end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from awaited import LOOPS, run
from remote_gym import (
    AsyncRemoteEnvironment,
    ConnectionLost,
    EncodingError,
    Limits,
    RemoteGymError,
    RetryPolicy,
    SessionLost,
)
from remote_gym.client.aio import stream
from remote_gym.protocol.constants import SERVICE_NAME
from remote_gym.v1 import remote_gym_pb2 as pb

Interact = Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]


class Hostile:
    """Opens sessions of an environment that it does not have.

    Args:
        interact: Answers the requests of a session.
        session: Fields of what it says to have opened.
    """

    def __init__(self, interact: Interact, opened: bytes) -> None:
        self._interact = interact
        self._opened = opened
        self.sent = 0
        self.closed = 0

    async def __aenter__(self) -> int:
        self._server = grpc.aio.server()
        handlers = {
            "Open": grpc.unary_unary_rpc_method_handler(self._open),
            "Spaces": grpc.unary_unary_rpc_method_handler(self._spaces),
            "Close": grpc.unary_unary_rpc_method_handler(self._close),
            "Interact": grpc.stream_stream_rpc_method_handler(self._interact),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
        port = self._server.add_insecure_port("localhost:0")
        await self._server.start()
        return port

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def _open(self, _: bytes, __: Any) -> bytes:
        return self._opened

    async def _spaces(self, _: bytes, __: Any) -> bytes:
        return pb.SpacesResponse().SerializeToString()

    async def _close(self, _: bytes, __: Any) -> bytes:
        self.closed += 1
        return pb.Response().SerializeToString()


@pytest.fixture(scope="module")
def opened() -> bytes:
    """What a true server says when it opens a session of CartPole and resets it."""
    from remote_gym.testing import loopback_server
    from remote_gym.testing.peer import Target

    with loopback_server("CartPole-v1", use_thread=True, secure=False) as server:
        target = Target(url="localhost", port=server.server.port)
        request = target.opening()
        request.first.reset.SetInParent()
        request.first.sequence = 1
        answer = target.try_to_open(request)
        answer.session.ClearField("direct")
        return answer.SerializeToString()


def answering(*answers: bytes) -> Interact:
    async def interact(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for _request in requests:
            for answer in answers:
                yield answer

    return interact


async def step_at(hostile: Hostile, use: Callable[[AsyncRemoteEnvironment], Awaitable[None]]) -> None:
    async with hostile as port:
        options: dict[str, Any] = {
            "retry": RetryPolicy(first_pause=0.001, longest_pause=0.01, attempts=2),
            "reconnect_timeout": 2.0,
            "message_limits": Limits(message_bytes=100_000),
        }
        async with AsyncRemoteEnvironment(port=port, **options) as environment:
            await environment.reset()
            await use(environment)


STEP = pb.Response(sequence=2, step=pb.Transition(reward_float=1.0)).SerializeToString()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((b"\xff\xff\xff",), EncodingError),
        ((b"",), EncodingError),
        ((pb.Response(sequence=9).SerializeToString(),), EncodingError),
        ((STEP[:-3],), EncodingError),
        ((bytes(200_000),), EncodingError),
        ((STEP,), EncodingError),  # without an observation
    ],
    ids=["garbage", "nothing", "another number", "cut", "too large", "no observation"],
)
def test_what_is_no_answer_is_an_error_and_not_waited_for(opened, answers, error, loop):
    async def use(environment: AsyncRemoteEnvironment) -> None:
        begin = time.monotonic()
        with pytest.raises(error):
            await environment.step(0)
        assert time.monotonic() - begin < 20.0

    run(step_at(Hostile(answering(*answers), opened), use), loop)


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL])
def test_one_that_ends_each_call_gives_the_session_up(opened, code):
    async def interact(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            if code is not grpc.StatusCode.OK:
                await context.abort(code, "no")
            return
            yield b""

    async def use(environment: AsyncRemoteEnvironment) -> None:
        with pytest.raises((ConnectionLost, SessionLost)):
            await environment.step(0)
        with pytest.raises(RemoteGymError):
            await environment.step(0)

    run(step_at(Hostile(interact, opened), use))


def test_one_that_answers_without_end_is_read_no_further_than_it_was_asked(opened):
    sent = 0

    async def interact(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        nonlocal sent
        async for _request in requests:
            while True:
                sent += 1
                yield bytes(50_000)

    async def use(environment: AsyncRemoteEnvironment) -> None:
        with pytest.raises(EncodingError):
            await environment.step(0)
        attached = environment._session._carrier.stream
        assert attached is None, "it is out of step"

    run(step_at(Hostile(interact, opened), use))
    assert sent < 1000


def test_what_nobody_asked_for_is_not_kept(opened):
    """Beside two messages, and what HTTP/2's window holds."""
    sent = 0

    async def interact(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(50_000)

    async def use(environment: AsyncRemoteEnvironment) -> None:
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert len(environment._session._carrier.stream._messages) == stream.MOST_UNASKED
        assert sent < 1000  # seen while it is open: a server of gRPC 1.62 goes on by itself once the call has ended

    run(step_at(Hostile(interact, opened), use))
