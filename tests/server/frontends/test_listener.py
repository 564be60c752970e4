"""The listener's own sockets: none is left, whenever it stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket

from remote_gym.server.frontends import listener as listener_module
from remote_gym.server.frontends.listener import Listener
from remote_gym.server.frontends.sniffing import HTTP2_PREFACE
from remote_gym.transport import acceptor
from remote_gym.transport.direct_socket import PREAMBLE
from waiting import scaled


def never(routing_id: bytes, sock: socket.socket) -> bool:
    raise AssertionError("nobody said for which session it comes")


def test_a_connection_that_was_accepted_just_before_the_end_is_closed():
    async def stop_at_once() -> None:
        listener = Listener("127.0.0.1", 0)
        listener.start(never, None)
        client = socket.create_connection(("127.0.0.1", listener.port), timeout=scaled(10.0))
        with client:
            while not listener._pending:
                await asyncio.sleep(0)
            await listener.stop()  # before the task of the connection has had its first turn
            assert client.recv(1) == b""

    asyncio.run(asyncio.wait_for(stop_at_once(), scaled(20.0)))


def test_what_cannot_be_accepted_is_tried_again(monkeypatch, caplog):
    """As when the process is out of descriptors for a while."""
    monkeypatch.setattr(acceptor, "PAUSE", 0.05)
    given = asyncio.Queue[bytes]()
    failures = [OSError(errno.EMFILE, "Too many open files")] * 2

    class Failing(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if failures:
                raise failures.pop()
            return super().accept()

    def give(routing_id: bytes, sock: socket.socket) -> bool:
        given.put_nowait(routing_id)
        return True

    async def connect() -> bytes:
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(socket, "socket", Failing)
            listener = Listener("127.0.0.1", 0)
            listener.start(give, None)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=scaled(10.0)) as client:
            client.sendall(PREAMBLE + bytes(range(16)))
            routing_id = await given.get()
        await listener.stop()
        return routing_id

    assert asyncio.run(asyncio.wait_for(connect(), scaled(20.0))) == bytes(range(16))
    assert not failures
    assert "cannot accept a connection: [Errno 24] Too many open files" in caplog.text


def test_a_fault_of_ours_ends_one_connection_and_is_logged(caplog):
    async def connect() -> None:
        listener = Listener("127.0.0.1", 0)
        listener.start(never, None)
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", listener.port))
            await loop.sock_sendall(client, PREAMBLE + bytes(16))
            assert await loop.sock_recv(client, 1) == b""
        await listener.stop()

    asyncio.run(asyncio.wait_for(connect(), scaled(20.0)))
    (record,) = caplog.records
    assert record.getMessage() == "a connection was ended by a fault"
    assert "nobody said for which session it comes" in caplog.text


def test_an_address_that_is_shut_out_is_taken_again_after_a_while(monkeypatch):
    monkeypatch.setattr(listener_module, "SHUT_OUT", 0.5)

    class Relay:
        """Notes whose connections it would carry."""

        def __init__(self) -> None:
            self.hosts: list[str] = []

        async def carry(self, sock: socket.socket, data: bytes, peer: str) -> None:
            self.hosts.append(peer.rpartition(":")[0])

        def __len__(self) -> int:
            return 0

    async def connect() -> None:
        listener, relay = Listener("127.0.0.1", 0), Relay()
        listener.start(never, relay)  # type: ignore[arg-type]

        async def ask(host: str) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(host, 0))
            writer.write(HTTP2_PREFACE)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(1) == b""
            writer.close()

        begun = asyncio.get_running_loop().time()
        listener.shut_out("ipv4:127.0.0.9")
        while "ipv4:127.0.0.9" not in relay.hosts:
            await ask("127.0.0.9")
        assert asyncio.get_running_loop().time() - begun >= 0.5
        listener.shut_out("ipv4:127.0.0.9")
        await ask("127.0.0.8")
        assert relay.hosts == ["ipv4:127.0.0.9", "ipv4:127.0.0.8"]
        await listener.stop()

    asyncio.run(asyncio.wait_for(connect(), scaled(20.0)))
