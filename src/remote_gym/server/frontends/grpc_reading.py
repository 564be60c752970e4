"""How a call's messages are read: within the room there is, and not before it is known whose call it is.

A handler of unary calls gets gRPC to read the whole message before it is asked. So on the server every call is one of
streams, which a client that makes a unary call cannot tell, and reads when it chooses to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc

from remote_gym.address import host_in
from remote_gym.protocol.constants import SERVICE_NAME
from remote_gym.server.frontends.crowding import Calls, CrowdedError
from remote_gym.server.frontends.intake import Intake, NoRoomError, Reservation
from remote_gym.server.frontends.relay.peers import peer_of
from remote_gym.wire.parts import LARGEST_MESSAGE

READ_TIMEOUT = 60.0
"""Seconds in which a message has to come once its call is taken, as has each part of a larger one."""

OTHERS_BYTES = 2**12
"""Bytes of a message to services that are not ours, such as gRPC's health checks."""

OTHERS_TIMEOUT = 5.0
"""Seconds in which such a message has to come, which fits into one packet. gRPC would let it grow to 4 MiB, so that
there is room for few at once."""

OTHERS_CALLS, ALL_OTHERS_CALLS = 256, 4096
"""Such calls of one address, and of all: anybody may make them, and need not read their answers."""

REFLECTING = 60.0
"""Seconds that a call of gRPC's reflection may last."""

Context = Any  # grpc.aio.ServicerContext, which has no types


def address_of(context: Context) -> str:
    """The client's address without its port, so that one client's connections count together."""
    return host_in(peer_of(context).address)


@contextlib.asynccontextmanager
async def counted(calls: Calls, context: Context, holder: str) -> AsyncIterator[None]:
    """Count a call while it lasts. It ends by UNAVAILABLE where its client has too many."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(calls.one(holder))
        except CrowdedError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        yield


@contextlib.asynccontextmanager
async def room(intake: Intake, context: Context, holder: str, size: int) -> AsyncIterator[Reservation]:
    """Room for a call's bytes while they are received and used. Only the last message may be written within it.

    The call ends by UNAVAILABLE where there is none, or the call has to make way.
    """
    try:
        claim = await intake.claim(holder, size)
    except NoRoomError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("aborting raises") from error
    try:
        yield claim
    except asyncio.CancelledError:
        if not claim.evicted:
            raise
        claim.release()
        what = "the request did not come in time, or others needed the room that it took; ask again"
        await context.abort(grpc.StatusCode.UNAVAILABLE, what)
    finally:
        claim.release()


@contextlib.asynccontextmanager
async def message(
    intake: Intake,
    context: Context,
    holder: str,
    message_bytes: int,
    copies: int = 1,
    seconds: float = READ_TIMEOUT,
) -> AsyncIterator[bytes]:
    """Read a call's only message, and have room for it, and for copies of it, until it has been used. As `room`."""
    async with room(intake, context, holder, copies * message_bytes) as claim:
        claim.limit(seconds)
        data = await context.read()
        if data is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        claim.arrived(copies * len(data))
        yield data


class ReadLate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Has health checks, which anybody may ask for, and reflection read their messages as our own service does.

    Args:
        message_bytes: Size of the largest message that gRPC takes.
        own: Names of services that read by themselves.
    """

    def __init__(self, message_bytes: int = LARGEST_MESSAGE, own: Collection[str] = (SERVICE_NAME,)) -> None:
        self._own = frozenset(own)
        self._message_bytes = message_bytes
        self._intake = Intake(16 * message_bytes, 4 * message_bytes)
        self._calls = Calls(OTHERS_CALLS, ALL_OTHERS_CALLS)

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Change a handler. Called by gRPC for each call."""
        handler = await continuation(details)
        if handler is None or details.method.rpartition("/")[0].removeprefix("/") in self._own:
            return handler
        if handler.request_streaming:
            return self._bounded(handler)
        return self._late(handler)

    def _late(self, handler: Any) -> grpc.RpcMethodHandler:
        """One message, then the handler."""

        async def call(_: object, context: Context) -> None:
            async with counted(self._calls, context, address_of(context)):
                await answer(context)

        async def answer(context: Context) -> None:
            reading = message(self._intake, context, address_of(context), self._message_bytes, seconds=OTHERS_TIMEOUT)
            async with reading as data:
                if len(data) > OTHERS_BYTES:
                    what = f"the message has {len(data):,} bytes; at most {OTHERS_BYTES:,} are allowed"
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)
            try:
                request = handler.request_deserializer(data)
            except Exception as error:  # noqa: BLE001  what protobuf raises is the generated code's affair
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message cannot be read: {error}")
            if handler.response_streaming:
                await handler.unary_stream(request, context)
            else:
                await context.write(await handler.unary_unary(request, context))

        return grpc.stream_stream_rpc_method_handler(call, response_serializer=handler.response_serializer)

    def _bounded(self, handler: Any) -> grpc.RpcMethodHandler:
        """Any number of messages; few calls at once, and not for long."""

        async def call(requests: Any, context: Context) -> None:
            holder = address_of(context)
            async with (
                counted(self._calls, context, holder),
                room(self._intake, context, holder, self._message_bytes) as claim,
            ):
                claim.limit(REFLECTING)
                async for response in handler.stream_stream(requests, context):
                    await context.write(response)

        return grpc.stream_stream_rpc_method_handler(
            call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )
