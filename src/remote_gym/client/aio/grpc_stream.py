"""One `Interact` call whose answers are awaited: the session's requests and their answers over gRPC."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from remote_gym.client.aio.stream import AsyncStream
from remote_gym.client.connect.rpc_errors import from_rpc_error
from remote_gym.errors import ConnectionLost
from remote_gym.wire.parts import cut

LINGER = 1.0
"""Seconds that a server has to end a call that is to end. A call that is taken back instead counts as one of many by
which a client could keep the server busy."""


class AsyncGrpcStream(AsyncStream):
    """One `Interact` call: send, and receive the answer, again and again.

    Args:
        make: Makes the call, gRPC's, from an iterator of what it sends.
        address: The server's, for errors.
        message_bytes: Size of the largest message that the server takes; larger requests go in parts. 0 for any size.
    """

    def __init__(self, make: Any, address: str, message_bytes: int = 0) -> None:
        super().__init__(address)
        self._message_bytes = message_bytes
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._call = make(_until_none(self._requests))
        # A task reads, and not who waits for an answer: gRPC raises `CancelledError` where a call was cancelled, too,
        # which could not be told from a cancelled await.
        self._reader = asyncio.ensure_future(self._read())

    async def send(self, data: bytes, deadline: float) -> None:
        """Send one message. It goes into a queue, so the deadline is that of the answer alone."""
        self._sent = time.monotonic()
        if self._end is not None:
            raise self._end()
        messages = (data,) if len(data) <= self._message_bytes else cut(data, self._message_bytes)
        for message in messages:
            self._requests.put_nowait(message)

    def shut_down(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    def close(self) -> None:
        """Detach. The session lives on for its lease. Returns at once: the server has a moment to end the call."""
        super().close()
        self._requests.put_nowait(None)
        self._room.set()
        timer = self._loop.call_later(LINGER, self._call.cancel)
        self._reader.add_done_callback(lambda _: timer.cancel())

    async def ended(self) -> None:
        """Wait for the end of the call."""
        await asyncio.wait({self._reader}, timeout=2 * LINGER)

    def _has_room(self) -> None:
        self._room.set()

    async def _read(self) -> None:
        where = self._where
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self._came(answer)
                if self._is_full and not self.closed:
                    self._room.clear()
                    await self._room.wait()
            self._ends(lambda: ConnectionLost(f"{where} ended the call"))
        except asyncio.CancelledError:
            self._ends(lambda: ConnectionLost(f"the call to {where} was cancelled"))
        except grpc.RpcError as error:
            # Without its trace, which leads here: what gRPC has would be freed only by the garbage collector.
            self._ends(functools.partial(from_rpc_error, error.with_traceback(None), f"the connection to {where}"))


async def _until_none(requests: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (request := await requests.get()) is not None:
        yield request
