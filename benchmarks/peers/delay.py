"""A TCP proxy that holds every byte back for a while, and counts them: delay.py JSON.

Each direction waits half of a round trip, without a bound on what is under way, as a long link with large buffers does.
It says ``{"ready": true}`` when it listens, ``{"bytes": [to, from]}`` for each line on standard input, and ends
with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import selectors
import socket
import sys
from collections import deque
from typing import Any


class Delay(asyncio.Protocol):
    """One direction of one connection: what arrives here leaves through `other` after `seconds`."""

    def __init__(self, seconds: float, counts: list[int], index: int) -> None:
        self._seconds, self._counts, self._index = seconds, counts, index
        self._waiting: list[bytes] | None = []
        self._held: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; small messages go out at once."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def join(self, other: asyncio.Transport) -> None:
        """Say where to send it, and send what came before that was known."""
        self._other = other
        waiting, self._waiting = self._waiting or [], None
        for data in waiting:
            self._send_later(data)

    def data_received(self, data: bytes) -> None:
        """Hold it back."""
        self._counts[self._index] += len(data)
        if self._waiting is not None:
            self._waiting.append(data)
        else:
            self._send_later(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other connection, after what is under way."""
        if self._waiting is None:
            asyncio.get_running_loop().call_later(self._seconds, self._other.close)

    def _send_later(self, data: bytes) -> None:
        if self._seconds:
            # In a queue of our own, since an event loop does not promise the order of calls that are due together.
            self._held.append(data)
            asyncio.get_running_loop().call_later(self._seconds, lambda: self._other.write(self._held.popleft()))
        else:
            self._other.write(data)


async def _relay(job: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    counts = [0, 0]
    connecting: set[asyncio.Task[None]] = set()

    async def connect(near: Delay, port: int) -> None:
        assert near._transport is not None
        try:
            far_transport, far = await loop.create_connection(lambda: Delay(job["seconds"], counts, 1), job["to"], port)
        except OSError:
            near._transport.close()
            return
        far.join(near._transport)
        near.join(far_transport)

    class Accepted(Delay):
        def __init__(self, port: int) -> None:
            super().__init__(job["seconds"], counts, 0)
            self._port = port

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(connect(self, self._port))
            connecting.add(task)
            task.add_done_callback(connecting.discard)

    with contextlib.ExitStack() as stack:
        for port in job["ports"]:
            server = await loop.create_server(functools.partial(Accepted, port), job["listen"], port)
            stack.callback(server.close)
        print(json.dumps({"ready": True}), flush=True)
        ended = asyncio.Event()

        def hear() -> None:
            if sys.stdin.readline():
                print(json.dumps({"bytes": counts}), flush=True)
            else:
                ended.set()

        loop.add_reader(sys.stdin, hear)
        await ended.wait()
        loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    # Not epoll, which rounds half a millisecond up to a whole one.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_relay(json.loads(sys.argv[1])))
    loop.close()
