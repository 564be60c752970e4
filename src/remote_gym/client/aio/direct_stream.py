"""A direct connection to a session's worker whose answers are awaited: the fast path."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import numpy as np

from remote_gym.address import Place, is_unix
from remote_gym.client.aio.stream import AsyncStream
from remote_gym.client.connect.direct_stream import target_of
from remote_gym.config import Limits
from remote_gym.errors import ConnectError, ConnectionLost, ConnectReason, EncodingError, RemoteGymError
from remote_gym.transport.direct_socket import set_options
from remote_gym.transport.framing import HEADER_BYTES, LONGEST, read_length, write_length
from remote_gym.transport.preamble import write_preamble
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.parse import parse

T = TypeVar("T")

_BUFFER_BYTES = 2**12
"""Memory of each connection for messages that are on their way; a larger one gets its own, once."""


class AsyncDirectStream(AsyncStream, asyncio.BufferedProtocol):
    """Attached to a session: send, and receive the answer, again and again. `attach_directly` makes one.

    Args:
        where: The other end, for errors.
        limits: Bounds on messages.

    Attributes:
        was_made: Whether there was a connection, whatever became of it.
    """

    is_direct = True

    def __init__(self, where: str, limits: Limits) -> None:
        super().__init__(where)
        self._limit = min(limits.message_bytes, LONGEST)
        self._transport: asyncio.Transport | None = None
        self._is_paused = False  # writing: the other end does not read
        self._is_held = False  # reading: the other end has sent what nobody asked for
        self.was_made = False
        self._lost = self._loop.create_future()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: memoryview | None = None  # the message that is on its way, and what of it is there
        self._begun = 0

    async def send(self, data: bytes, deadline: float) -> None:
        """Send one message; see `AsyncStream`."""
        self._sent = time.monotonic()
        if self._end is not None:
            raise self._end()
        assert self._transport is not None
        self._transport.write(write_length(len(data), self._limit) + data)
        while self._is_paused:
            await self._change(deadline)

    def shut_down(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Detach; see `AsyncStream`."""
        super().close()
        # Not `close`, by which asyncio would wait for the other end's farewell, for 30 s.
        self.shut_down()

    async def ended(self) -> None:
        """Wait until the socket is closed."""
        if self.was_made:
            await asyncio.wait({self._lost}, timeout=1.0)

    # ----------------------------------------------------------------------------------------------------------
    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self.was_made = True

    def connection_lost(self, error: Exception | None) -> None:
        """End: called by asyncio."""
        transport, self._transport = self._transport, None  # which refers to this
        if transport is not None:
            transport.abort()  # or Python 3.10's TLS takes it for one that nobody has closed
        if not self._lost.done():
            self._lost.set_result(None)
        where, text = self._where, str(error or "")
        if not text:
            self._ends(lambda: ConnectionLost(f"the worker at {where} closed the direct connection"))
        else:
            self._ends(lambda: ConnectionLost(f"the direct connection to {where} broke: {text}"))

    def pause_writing(self) -> None:
        """Let `send` wait: called by asyncio."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Let `send` go on: called by asyncio."""
        self._is_paused = False
        self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Memory for what comes next: called by asyncio."""
        return self._view[self._filled :] if self._large is None else self._large[self._begun :]

    def buffer_updated(self, count: int) -> None:
        """Take what has come: called by asyncio."""
        if self._large is not None:
            self._begun += count
            if self._begun == len(self._large):
                message, self._large = self._large, None
                self._came(message)
            return
        self._filled += count
        try:
            self._take_messages()
        except EncodingError as error:
            text = str(error)
            self._ends(lambda: EncodingError(text))
            self.shut_down()

    def eof_received(self) -> bool:
        """Close: called by asyncio."""
        return False

    def _take_messages(self) -> None:
        """Hand over whole messages.

        Raises:
            EncodingError: If one that begins is over the limit.
        """
        begin = 0
        while self._filled - begin >= HEADER_BYTES:
            size = read_length(self._view[begin : begin + HEADER_BYTES], self._limit)
            end = begin + HEADER_BYTES + size
            if end <= self._filled:
                self._came(bytes(self._view[begin + HEADER_BYTES : end]))
                begin = end
                continue
            if HEADER_BYTES + size > _BUFFER_BYTES:
                # Not zeroed, and so no memory before something arrives to fill it.
                self._large = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]
                self._begun = self._filled - begin - HEADER_BYTES
                self._large[: self._begun] = self._view[begin + HEADER_BYTES : self._filled]
                begin = self._filled
            break
        rest = self._filled - begin
        if begin and rest:
            self._buffer[:rest] = self._buffer[begin : self._filled]
        self._filled = rest
        if self._is_full and not self._is_held and self._transport is not None:
            self._is_held = True
            self._transport.pause_reading()

    def _has_room(self) -> None:
        if self._is_held and not self._is_full and self._transport is not None:
            self._is_held = False
            with contextlib.suppress(RuntimeError):  # it is closing
                self._transport.resume_reading()


async def attach_directly(
    place: Place,
    address: pb.DirectAddress,
    token: str,
    *,
    context: ssl.SSLContext | None,
    limits: Limits,
    timeout: float,
    client_token: str = "",
    server_name: str | None = None,
) -> AsyncDirectStream:
    """Connect to a session's worker itself, and attach to the session.

    Args:
        place: The host that the server is known by, or ``unix:path``, and the port by which it was reached.
        address: Where the worker can be reached there.
        token: The session's.
        context: This end's TLS; None for plaintext.
        limits: Bounds on messages.
        timeout: Seconds that all of it may take.
        client_token: What the server knows the client by, where that is no certificate.
        server_name: The server's, where that is not the host of `place`.

    Raises:
        ConnectError: If it cannot be reached, or one end does not accept the other.
        NotPermitted: If the worker does not accept token or identity.
    """
    target, where = target_of(place, address)
    if address.tls != (context is not None):
        text = f"the direct connection to {where} has {'' if address.tls else 'no '}TLS"
        raise ConnectError(text, reason=ConnectReason.NOT_DIRECT)
    stream = AsyncDirectStream(where, limits)
    deadline = time.monotonic() + timeout
    attach = pb.Attach(token=token, client_token=client_token)
    try:
        preamble = write_preamble(address.routing_id, server_name or "")
        name = server_name or ("localhost" if is_unix(place[0]) else place[0].strip("[]"))
        await _timed(_connect(stream, target, preamble, context, name), timeout)
        await stream.send(attach.SerializeToString(), deadline)
        attached = parse(pb.Attached, await stream.receive(deadline))
        if attached.HasField("error"):
            error = decode_error(attached.error)
            assert isinstance(error, RemoteGymError)
            raise error
    except OSError as error:
        stream.close()
        what = "was refused" if stream.was_made else "cannot be made"
        text = f"the direct connection to {where} {what}: {error or type(error).__name__}"
        raise ConnectError(text, reason=ConnectReason.NOT_DIRECT) from error
    except BaseException:
        stream.close()
        raise
    return stream


async def _connect(
    stream: AsyncDirectStream, target: str | Place, preamble: bytes, context: ssl.SSLContext | None, name: str
) -> None:
    loop = asyncio.get_running_loop()
    try:
        if isinstance(target, str):
            transport, _ = await loop.create_unix_connection(lambda: stream, target)
        else:
            transport, _ = await loop.create_connection(lambda: stream, *target)
        set_options(transport.get_extra_info("socket"))
        transport.write(preamble)
        if context is not None:
            encrypted = await loop.start_tls(transport, stream, context, server_hostname=name)
            if encrypted is None:  # as where the loop is closed
                raise ConnectionError("it ended amid the handshake")
            stream._transport = encrypted
    except BaseException:
        stream.shut_down()
        raise


async def _timed(coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await for so many seconds.

    Not by `asyncio.wait_for`, which until Python 3.11 can swallow a cancellation that comes together with the result.

    Raises:
        TimeoutError: If it takes longer; it is cancelled.
    """
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        raise TimeoutError(f"it took longer than {seconds:.3g} s")
    return task.result()
