"""A server's way out to a hub, with hubs of the tests' own that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from remote_gym.certs import create_all
from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.protocol.hub import APPLICATION_PROTOCOL, DIAL_BACK, ID_BYTES, MESSAGE_BYTES, REGISTER, pack
from remote_gym.server.frontends import hub_dialler
from remote_gym.server.frontends.hub_dialler import HubDialler, is_peer
from remote_gym.tls.hub import hub_context
from remote_gym.transport.async_messages import AsyncMessages
from remote_gym.v1 import hub_pb2
from waiting import scaled


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    create_all(folder, ["sim-home"], hub_hosts=["127.0.0.1"])
    return folder


class OddHub:
    """A hub that a test plays, and the server that has dialled out to it.

    Attributes:
        came: Clients' addresses, of the connections that the server has taken for them.
    """

    def __init__(self, files: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = hub_context(TlsFiles.from_folder(files, "hub"), APPLICATION_PROTOCOL)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.came: asyncio.Queue[str] = asyncio.Queue()
        self._met: list[AsyncMessages] = []
        self.dialler = HubDialler(self.address, TlsFiles.from_folder(files, "server"), self._adopt)
        self.dialler.start()

    def _adopt(self, sock: socket.socket, peer: str) -> None:
        sock.close()
        self.came.put_nowait(peer)

    async def accept(self, begins: bytes, size: int = 0) -> tuple[socket.socket, bytes]:
        sock, _ = await self._loop.sock_accept(self._listening)
        sock.setblocking(False)
        data = b""
        while len(data) < len(begins) + size:
            data += await self._loop.sock_recv(sock, len(begins) + size - len(data))
        assert data.startswith(begins)
        return sock, data[len(begins) :]

    async def registration(self) -> AsyncMessages:
        sock, _ = await self.accept(REGISTER)
        messages = await AsyncMessages.over_tls(
            sock, self._context, server_side=False, timeout=scaled(5.0), limit=MESSAGE_BYTES
        )
        self._met.append(messages)
        data = await messages.receive(scaled(5.0))
        assert data is not None
        assert hub_pb2.ToHub.FromString(data).registration.protocol_version == 1
        return messages

    async def stop(self) -> None:
        await self.dialler.stop()
        for messages in self._met:
            messages.abort()
        self._listening.close()


def with_a_hub(files: Path, check: Callable[[OddHub], Awaitable[None]]) -> None:
    @contextlib.asynccontextmanager
    async def odd_hub() -> AsyncIterator[OddHub]:
        hub = OddHub(files)
        try:
            yield hub
        finally:
            await hub.stop()

    async def run() -> None:
        before = asyncio.all_tasks()
        async with odd_hub() as hub:
            await check(hub)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(run(), scaled(30.0)))


@pytest.mark.parametrize(
    ("said", "taken"),
    [("ipv4:10.0.0.1:4321", True), ("ipv6:[2001:db8::1]:4321", True), ("unix:", False), ("ipv4:x\n:1", False)],
)
def test_the_client_is_known_by_the_address_that_the_hub_has_seen_if_it_is_one(files, said, taken):
    async def check(hub: OddHub) -> None:
        messages = await hub.registration()
        messages.send(pack(hub_pb2.DialBack(id=bytes(range(ID_BYTES)), peer=said)))
        sock, dial_back_id = await hub.accept(DIAL_BACK, ID_BYTES)
        assert dial_back_id == bytes(range(ID_BYTES))
        assert await hub.came.get() == (said if taken else f"ipv4:{hub.address}")
        sock.close()

    with_a_hub(files, check)


@pytest.mark.parametrize("fault", ["ends", "garbage", "too long", "refuses", "silence", "no TLS"])
def test_the_server_dials_again_whatever_the_hub_does(files, caplog, monkeypatch, fault):
    monkeypatch.setattr(hub_dialler, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(hub_dialler, "SILENCE", 0.3 if fault == "silence" else 15.0)
    whys = {
        "ends": "it has ended the connection",
        "garbage": "no ToServer message",
        "too long": "the limit is",
        "refuses": "it refuses this server: no room",
        "silence": "nothing came for 0.3 s",
        "no TLS": "SSL",
    }

    async def check(hub: OddHub) -> None:
        if fault == "no TLS":
            sock, _ = await hub.accept(REGISTER)
            await asyncio.get_running_loop().sock_sendall(sock, b"no TLS at all, and enough of it")
            sock.close()
        else:
            messages = await hub.registration()
            if fault == "garbage":
                messages.send(b"\xff\xff\xff")
            elif fault == "too long":
                messages._limit = 2**20
                messages.send(bytes(MESSAGE_BYTES + 1))
            elif fault == "refuses":
                messages.send(pack(hub_pb2.RegistrationRefused(reason="no room")))
            elif fault == "ends":
                await messages.close()
        await hub.registration()

    with caplog.at_level(logging.INFO):
        with_a_hub(files, check)
    assert whys[fault] in caplog.text


def test_a_refusal_that_trying_again_cannot_help_is_an_error_once_and_few_attempts(files, caplog, monkeypatch):
    monkeypatch.setattr(hub_dialler, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(hub_dialler, "LONGEST_PAUSE", 0.3)
    came: list[float] = []

    async def check(hub: OddHub) -> None:
        for reason in ("no name", "no name", "too old", "no name"):
            messages = await hub.registration()
            came.append(asyncio.get_running_loop().time())
            messages.send(pack(hub_pb2.RegistrationRefused(reason=reason, hopeless=True)))
            await messages.close()
        messages = await hub.registration()
        messages.send(pack(hub_pb2.Registered(names=["sim-home"])))
        while "registered at the hub" not in caplog.text:
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.INFO):
        with_a_hub(files, check)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    reasons = ["no name", "too old", "no name"]
    assert len(errors) == len(reasons)
    assert all(
        f"it refuses this server: {reason}; trying again every" in e for e, reason in zip(errors, reasons, strict=True)
    )
    assert all(later - earlier > 0.25 for earlier, later in itertools.pairwise(came))


@pytest.mark.parametrize("fault", ["it has left", "no certificate"])
def test_no_socket_is_left_where_the_hub_s_connection_fails_at_once(files, monkeypatch, fault):
    """ResourceWarning of a socket that nobody has closed is an error here."""
    monkeypatch.setattr(hub_dialler, "FIRST_PAUSE", 0.01)

    class Left(socket.socket):
        def getpeername(self) -> object:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    connected: list[socket.socket] = []
    connect = hub_dialler._connect

    async def connect_to_leaving(family: int, target: object) -> socket.socket:
        sock = await connect(family, target)
        if fault == "it has left":
            sock = Left(fileno=sock.detach())
        connected.append(sock)
        return sock

    def cannot_read() -> None:
        raise ConfigError("no certificate")

    monkeypatch.setattr(hub_dialler, "_connect", connect_to_leaving)

    async def check(hub: OddHub) -> None:
        if fault == "no certificate":
            monkeypatch.setattr(hub.dialler._context, "get", cannot_read)
        while len(connected) < 3:
            await asyncio.sleep(0.01)
        assert all(sock.fileno() == -1 for sock in connected[:2])

    with_a_hub(files, check)


def test_heartbeats_are_answered_and_what_a_later_hub_says_is_let_be(files):
    async def check(hub: OddHub) -> None:
        messages = await hub.registration()
        messages.send(b"\xfa\x7f\x02ok")  # a field of number 2047
        messages.send(pack(hub_pb2.Heartbeat()))
        data = await messages.receive(scaled(5.0))
        assert data is not None
        assert hub_pb2.ToHub.FromString(data).HasField("heartbeat")

    with_a_hub(files, check)


def test_it_stops_in_whichever_turn_a_heartbeat_comes(files, monkeypatch):
    monkeypatch.setattr(hub_dialler, "SILENCE", 1000.0)  # else that would end what hangs

    async def check() -> None:
        for turns in range(30):
            hub = OddHub(files)
            messages = await hub.registration()
            messages.send(pack(hub_pb2.Heartbeat()))
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping = asyncio.ensure_future(hub.dialler.stop())
            await asyncio.wait({stopping}, timeout=scaled(2.0))
            stopped = stopping.done()
            await hub.stop()
            assert stopped, f"not after {turns} turns"

    asyncio.run(asyncio.wait_for(check(), scaled(60.0)))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("ipv4:1.2.3.4:5", True),
        ("ipv6:[::1]:5", True),
        ("ipv6:[fe80::1%eth0]:5", True),
        ("ipv6:[fe80::1%\nFORGED]:5", False),
        ("ipv6:::1:5", False),
        ("ipv4:1.2.3.4:٣", False),
        ("ipv4:::1:5", False),
        ("ipv6:1.2.3.4:5", False),
        ("ipv4:1.2.3.4", False),
        ("ipv4:1.2.3.4:x", False),
        ("", False),
        ("unix:", False),
        ("ipv4:1.2.3.4:" + "1" * 200, False),
    ],
)
def test_what_an_address_is(text, good):
    assert is_peer(text) is good
