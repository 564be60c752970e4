"""Bytes that a hub carries: all of them, in order, and no more than the other end takes."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from remote_gym.hub import pipe as pipe_module
from remote_gym.hub.pipe import CHUNK, Pipe
from remote_gym.hub.rate import Rate
from waiting import scaled


@dataclass
class Ends:
    """A pipe, with the far ends of its two connections."""

    client: socket.socket
    server: socket.socket
    pipe: Pipe
    ended: list[None] = field(default_factory=list)


def connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection; a pair of Unix sockets cannot be reset."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def carried(check: Callable[[Ends], Awaitable[None]], first: bytes = b"", rate: int | None = None) -> None:
    """Check a pipe on an event loop, and that nothing of it is left."""

    async def run() -> None:
        client, near_client = connected()
        server, near_server = connected()
        ended: list[None] = []
        pipe = Pipe(
            near_client, near_server, first, Rate(rate, time.monotonic).share("here"), lambda: ended.append(None)
        )
        pipe.start()
        with client, server:
            await check(Ends(client, server, pipe, ended))
            pipe.close()
            pipe.close()
        assert ended == [None]
        assert near_client.fileno() == near_server.fileno() == -1

    asyncio.run(asyncio.wait_for(run(), scaled(30.0)))


async def read(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size and (part := await loop.sock_recv(sock, size - len(data))):
        data += part
    return data


def test_what_was_read_of_the_client_comes_first_and_all_follows():
    async def check(ends: Ends) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ends.client, b" and more")
        assert await read(ends.server, 14) == b"first and more"
        await loop.sock_sendall(ends.server, b"answer")
        assert await read(ends.client, 6) == b"answer"
        assert ends.pipe.carried == len(b"first and more") + len(b"answer")

    carried(check, first=b"first")


def test_a_gibibyte_would_wait_in_the_sender_where_nobody_reads():
    async def check(ends: Ends) -> None:
        sent = 0
        for _ in range(200):
            try:
                sent += ends.client.send(bytes(2**20))
            except BlockingIOError:
                await asyncio.sleep(0.005)
        unsent = ends.pipe._server.unsent
        assert 0 < len(unsent) <= CHUNK
        assert not ends.pipe.is_flushed
        await asyncio.get_running_loop().sock_sendall(ends.server, b"the other way is open")
        assert await read(ends.client, 21) == b"the other way is open"
        ends.client.shutdown(socket.SHUT_WR)
        assert len(await read(ends.server, sent + 1)) == sent
        assert ends.pipe.is_flushed

    carried(check)


@pytest.mark.parametrize("first_to_end", ["client", "server"])
def test_either_end_may_end_its_half_and_hear_the_other(first_to_end):
    async def check(ends: Ends) -> None:
        one, other = (ends.client, ends.server) if first_to_end == "client" else (ends.server, ends.client)
        await asyncio.get_running_loop().sock_sendall(one, b"last words")
        one.shutdown(socket.SHUT_WR)
        assert await read(other, 100) == b"last words"
        await asyncio.get_running_loop().sock_sendall(other, b"heard")
        assert await read(one, 5) == b"heard"
        assert not ends.ended
        other.close()
        while not ends.ended:
            await asyncio.sleep(0.001)

    carried(check)


def test_a_client_that_stays_when_its_server_has_left_is_ended(monkeypatch):
    monkeypatch.setattr(pipe_module, "LINGER", 0.1)

    async def check(ends: Ends) -> None:
        ends.server.close()
        assert await read(ends.client, 1) == b""
        while not ends.ended:
            await asyncio.sleep(0.01)

    carried(check)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_server_s_last_words_arrive_though_it_resets_the_connection(monkeypatch):
    """As gRPC's does that refuses a certificate while the client talks on."""
    monkeypatch.setattr(pipe_module, "LINGER", 0.5)

    async def check(ends: Ends) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ends.server, b"refused")
        while ends.pipe.carried < 7:
            await asyncio.sleep(0.001)
        reset(ends.server)
        for _ in range(20):
            ends.client.send(b"x")
            await asyncio.sleep(0.005)
        assert await read(ends.client, 100) == b"refused"
        while not ends.ended:
            await asyncio.sleep(0.01)

    carried(check)


def test_a_client_that_resets_ends_it():
    async def check(ends: Ends) -> None:
        reset(ends.client)
        assert await read(ends.server, 1) == b""
        assert ends.ended

    carried(check)


def test_too_fast_a_connection_is_slowed_down_and_loses_nothing():
    async def check(ends: Ends) -> None:
        size = 2**18 + 2**17
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(ends.client, bytes(size)))
        begun = time.monotonic()
        assert await read(ends.server, size) == bytes(size)
        # Of what is over one second's worth all but the last chunk is waited for.
        assert time.monotonic() - begun > 0.2
        await sending

    carried(check, rate=2**18)


def test_what_was_read_of_the_client_counts_for_the_rate():
    async def check(ends: Ends) -> None:
        begun = time.monotonic()
        ends.client.send(b"more")
        assert await read(ends.server, 3 * 2**13) == bytes(3 * 2**13)
        assert await read(ends.server, 4) == b"more"
        # One second's worth comes at once, and the rest, which is half as much, has the client wait.
        assert time.monotonic() - begun > 0.4

    carried(check, first=bytes(3 * 2**13), rate=2**14)
