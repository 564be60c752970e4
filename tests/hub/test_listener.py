"""A hub's port, with servers and clients of the tests' own that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from certificates import sign
from remote_gym.certs import create_all
from remote_gym.config import HubOptions, TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.hub import link as link_module
from remote_gym.hub.run import Hub
from remote_gym.protocol.hub import (
    APPLICATION_PROTOCOL,
    DIAL_BACK,
    HEARTBEAT_TO_HUB,
    MESSAGE_BYTES,
    REGISTER,
    pack,
    unpack,
)
from remote_gym.tls.hub import dialler_context, names_host
from remote_gym.transport.async_messages import AsyncMessages
from remote_gym.transport.preamble import write_preamble
from remote_gym.v1 import hub_pb2
from waiting import scaled

PREAMBLE = write_preamble(bytes(16), "sim-home")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    create_all(folder, ["sim-home"], hub_hosts=["127.0.0.1"])
    return folder


class Town:
    """A hub, and whoever comes to it.

    Args:
        files: Folder of its files, and of a server's.
        options: The hub's.
    """

    def __init__(self, files: Path, options: HubOptions) -> None:
        self._files = files
        self.hub = Hub("127.0.0.1", 0, TlsFiles.from_folder(files, "hub"), options)
        self.hub.start()
        self._loop = asyncio.get_running_loop()
        self._port = int(self.hub.address.rpartition(":")[2])
        self._sockets: list[socket.socket] = []

    async def connect(self, first: bytes) -> socket.socket:
        sock = socket.socket()
        self._sockets.append(sock)
        sock.setblocking(False)
        await self._loop.sock_connect(sock, ("127.0.0.1", self._port))
        await self._loop.sock_sendall(sock, first)
        return sock

    async def is_closed(self, sock: socket.socket) -> bool:
        """Wait until it is, or something comes."""
        return await self._loop.sock_recv(sock, 1) == b""

    async def ask_to_register(self, tls: TlsFiles | None = None, version: int = 1) -> AsyncMessages:
        sock = await self.connect(REGISTER)
        context = dialler_context(tls or TlsFiles.from_folder(self._files, "server"), APPLICATION_PROTOCOL)
        taken = socket.socket(fileno=sock.detach())
        timeout = scaled(5.0)
        server = await AsyncMessages.over_tls(taken, context, server_side=True, timeout=timeout, limit=MESSAGE_BYTES)
        server.send(pack(hub_pb2.Registration(protocol_version=version)))
        return server

    async def register(self, tls: TlsFiles | None = None) -> AsyncMessages:
        server = await self.ask_to_register(tls)
        answer = await heard(server)
        if answer.HasField("refused"):
            server.abort()
        assert not answer.refused.reason, answer.refused.reason
        assert answer.registered.names == ["sim-home"]
        return server

    async def has_no_connection(self) -> None:
        while self.hub._listener._pipes:
            await asyncio.sleep(0.001)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


async def heard(server: AsyncMessages) -> hub_pb2.ToServer:
    while (data := await server.receive(scaled(10.0))) is not None:
        message = unpack(hub_pb2.ToServer, data)
        if not message.HasField("heartbeat"):
            return message
    raise AssertionError("the hub has ended the connection")


def at_a_hub(files: Path, check: Callable[[Town], Awaitable[None]], **options: float) -> None:
    @contextlib.asynccontextmanager
    async def town() -> AsyncIterator[Town]:
        made = Town(files, HubOptions(**options))
        try:
            yield made
        finally:
            await made.hub.stop()
            made.close()
            assert not made.hub._listener._pipes
            assert not len(made.hub._listener._dial_backs)
            assert not len(made.hub._listener._registry)

    async def run() -> None:
        before = asyncio.all_tasks()
        async with town() as made:
            await check(made)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(run(), scaled(30.0)))


def test_a_client_is_carried_from_its_first_byte_on(files):
    async def check(town: Town) -> None:
        loop = asyncio.get_running_loop()
        server = await town.register()
        client = await town.connect(PREAMBLE + b"more")
        dial_back = (await heard(server)).dial_back
        assert dial_back.peer == f"ipv4:127.0.0.1:{client.getsockname()[1]}"
        back = await town.connect(DIAL_BACK + dial_back.id)
        data = b""
        while len(data) < len(PREAMBLE) + 4:
            data += await loop.sock_recv(back, 100)
        assert data == PREAMBLE + b"more"
        await loop.sock_sendall(back, b"answer")
        assert await loop.sock_recv(client, 100) == b"answer"
        server.abort()  # who has come stays
        await loop.sock_sendall(back, b"again")
        assert await loop.sock_recv(client, 100) == b"again"
        assert await town.is_closed(await town.connect(DIAL_BACK + dial_back.id))  # it was good once

    at_a_hub(files, check)


def test_a_server_that_does_not_dial_back_in_time_ends_the_client_s_connection(files, caplog):
    async def check(town: Town) -> None:
        server = await town.register()
        client = await town.connect(PREAMBLE)
        dial_back = (await heard(server)).dial_back
        assert await town.is_closed(client)
        assert await town.is_closed(await town.connect(DIAL_BACK + dial_back.id))
        server.abort()

    with caplog.at_level(logging.INFO):
        at_a_hub(files, check, dial_timeout=0.3)
    assert "sim-home has not dialled back within 0.3 s" in caplog.text
    assert "nobody waits, or no longer" in caplog.text


def test_an_id_that_was_guessed_leads_nowhere(files):
    async def check(town: Town) -> None:
        server = await town.register()
        client = await town.connect(PREAMBLE)
        dial_back = (await heard(server)).dial_back
        assert len(dial_back.id) == 32
        assert await town.is_closed(await town.connect(DIAL_BACK + dial_back.id[:-1] + bytes((dial_back.id[-1] ^ 1,))))
        back = await town.connect(DIAL_BACK + dial_back.id)
        assert await asyncio.get_running_loop().sock_recv(back, 100) == PREAMBLE
        client.close()
        assert await town.is_closed(back)
        server.abort()

    at_a_hub(files, check)


def test_one_address_has_few_clients_wait_at_once(files, caplog):
    async def check(town: Town) -> None:
        server = await town.register()
        await town.connect(PREAMBLE)
        await heard(server)
        assert await town.is_closed(await town.connect(PREAMBLE))
        server.abort()

    with caplog.at_level(logging.INFO):
        at_a_hub(files, check, max_pending=4)
    assert "1 clients from there wait for sim-home to dial back" in caplog.text


def test_a_server_has_so_many_connections_and_no_more(files, caplog):
    async def check(town: Town) -> None:
        server = await town.register()
        client = await town.connect(PREAMBLE)
        back = await town.connect(DIAL_BACK + (await heard(server)).dial_back.id)
        assert await asyncio.get_running_loop().sock_recv(back, 100) == PREAMBLE
        assert await town.is_closed(await town.connect(PREAMBLE))
        client.close()
        assert await town.is_closed(back)
        back.close()
        await town.has_no_connection()
        await town.connect(PREAMBLE)
        assert (await heard(server)).HasField("dial_back")
        server.abort()

    with caplog.at_level(logging.INFO):
        at_a_hub(files, check, max_connections=2)
    assert "half of all that it may" in caplog.text


@pytest.mark.parametrize("sent", [b"no TLS at all", b"\x16\x03\x01\x00\x05hello"])
def test_who_registers_without_tls_is_refused(files, caplog, sent):
    async def check(town: Town) -> None:
        sock = await town.connect(REGISTER + sent)
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(sock, 4096):
                pass
        while "TLS failed" not in caplog.text:
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        at_a_hub(files, check)
    assert "refused a server at ipv4:127.0.0.1: TLS failed" in caplog.text


def test_who_says_something_else_than_its_registration_is_refused(files, caplog):
    async def check(town: Town) -> None:
        server = await town.ask_to_register(version=0)
        assert await server.receive(scaled(10.0)) is None
        server.abort()

    with caplog.at_level(logging.WARNING):
        at_a_hub(files, check)
    assert "it does not register" in caplog.text


def test_a_server_of_another_version_is_told_both(files, caplog):
    async def check(town: Town) -> None:
        server = await town.ask_to_register(version=7)
        refused = (await heard(server)).refused
        assert "the server speaks version 7" in refused.reason
        assert "the hub version 1" in refused.reason
        assert refused.hopeless
        assert await server.receive(scaled(10.0)) is None
        server.abort()

    with caplog.at_level(logging.WARNING):
        at_a_hub(files, check)
    assert "refused a server at ipv4:127.0.0.1: the server speaks version 7" in caplog.text


def test_a_server_that_speaks_another_protocol_by_tls_is_refused(files, caplog):
    """As a server's own port would, to which a stranger could lead the hub's handshake."""

    async def check(town: Town) -> None:
        sock = await town.connect(REGISTER)
        context = dialler_context(TlsFiles.from_folder(files, "server"), "h2")
        taken = socket.socket(fileno=sock.detach())
        server = await AsyncMessages.over_tls(
            taken, context, server_side=True, timeout=scaled(5.0), limit=MESSAGE_BYTES
        )
        assert await server.receive(scaled(10.0)) is None
        server.abort()

    with caplog.at_level(logging.WARNING):
        at_a_hub(files, check)
    assert "does not speak remote-gym-hub/1" in caplog.text


def test_a_registration_ends_with_the_certificate(files, tmp_path, caplog):
    end = 4.0
    begun = time.time()
    made = sign(files, tmp_path, "made", ["sim-home"], profile="server", end=timedelta(seconds=end))
    tls = TlsFiles(ca=files / "ca.pem", certificate=made.certificate, private_key=made.private_key)

    async def check(town: Town) -> None:
        server = await town.register(tls)
        with pytest.raises((AssertionError, ConnectionError)):
            await heard(server)
        assert time.time() - begun < scaled(end + 5.0)
        server.abort()

    with caplog.at_level(logging.INFO):
        at_a_hub(files, check)
    assert "server sim-home is gone: its certificate has expired" in caplog.text


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_server_takes_the_name_of_one_with_its_certificate_that_does_not_answer(files, monkeypatch, is_alive):
    monkeypatch.setattr(link_module, "PROBE_TIMEOUT", scaled(5.0) if is_alive else 0.2)

    async def check(town: Town) -> None:
        first = await town.register()
        answering = asyncio.ensure_future(_answer_heartbeats(first)) if is_alive else None
        if answering is None:
            second = await town.register()
            client = await town.connect(PREAMBLE)
            assert (await heard(second)).HasField("dial_back")
            client.close()
            second.abort()
        else:
            with pytest.raises(AssertionError, match="it is registered as 'sim-home' already"):
                await town.register()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        first.abort()

    at_a_hub(files, check)


def test_a_server_that_leaves_before_it_is_registered_is_gone(files, monkeypatch, caplog):
    monkeypatch.setattr(link_module, "PROBE_TIMEOUT", scaled(1.0))

    async def check(town: Town) -> None:
        silent = await town.register()
        leaving = await town.ask_to_register()  # while the hub asks the silent one whether it is there
        await leaving.close()
        while caplog.text.count("server sim-home is gone: ") < 2:  # the silent one, too
            await asyncio.sleep(0.01)
        assert "the hub stops" not in caplog.text
        (await town.register()).abort()
        silent.abort()

    with caplog.at_level(logging.INFO):
        at_a_hub(files, check)
    assert "never retrieved" not in caplog.text
    assert "ended by a fault" not in caplog.text


async def _answer_heartbeats(server: AsyncMessages) -> None:
    while await server.receive(scaled(10.0)) is not None:
        server.send(HEARTBEAT_TO_HUB)


def test_a_hub_stops_in_whichever_turn_a_heartbeat_comes(files, monkeypatch):
    monkeypatch.setattr(link_module, "SILENCE", 1000.0)  # else that would end what hangs

    async def check() -> None:
        for turns in range(30):
            town = Town(files, HubOptions())
            server = await town.register()
            server.send(HEARTBEAT_TO_HUB)
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping = asyncio.ensure_future(town.hub.stop())
            await asyncio.wait({stopping}, timeout=scaled(2.0))
            stopped = stopping.done()
            server.abort()
            town.close()
            assert stopped, f"not after {turns} turns"

    asyncio.run(asyncio.wait_for(check(), scaled(60.0)))


def test_a_hub_s_certificate_that_nears_its_end_is_told(files, tmp_path, caplog):
    made = sign(
        files, tmp_path, "hub", ["127.0.0.1"], profile="client", begin=timedelta(days=-80), end=timedelta(days=1)
    )
    (tmp_path / "ca.pem").write_bytes((files / "ca.pem").read_bytes())

    async def check(town: Town) -> None:
        while "the hub's certificate expires on" not in caplog.text:
            await asyncio.sleep(0.01)
        assert str(made.certificate) in caplog.text

    with caplog.at_level(logging.WARNING):
        at_a_hub(tmp_path, check)


def test_a_hub_needs_all_three_files(files):
    for left_out in ("ca", "certificate", "private_key"):
        given = {name: value for name, value in vars(TlsFiles.from_folder(files, "hub")).items() if name != left_out}
        with pytest.raises(ConfigError, match=rf"\({left_out}\)"):
            Hub("127.0.0.1", 0, TlsFiles(**given), HubOptions())
    with pytest.raises(ConfigError, match="not made for a client"):
        Hub("127.0.0.1", 0, TlsFiles.from_folder(files, "server"), HubOptions())


def test_a_hub_is_known_by_names_and_addresses_in_any_form():
    hosts = ("Trainer.lab", "10.0.0.1", "::1", "*.lab")
    for host in ("trainer.LAB", "trainer.lab.", "10.0.0.1", "0:0::1"):
        assert names_host(hosts, host)
    for host in ("other.lab", "10.0.0.2", "", "lab"):
        assert not names_host(hosts, host)
