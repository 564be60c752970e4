"""Many at the doors at once: who fills connections, handshakes and headers keeps nobody else out."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from hellos import client_hello
from raw_client import channel_to, method, open_request
from remote_gym import RemoteEnvironment
from remote_gym.client.connect import connection
from remote_gym.client.connect.diagnosis import Check, diagnose, summarise
from remote_gym.protocol.constants import TOKEN_KEY
from remote_gym.server.frontends import grpc as grpc_server
from remote_gym.server.frontends.sniffing import HTTP2_PREFACE
from remote_gym.testing import loopback_server
from waiting import scaled, wait_until


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end has closed it."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.fixture
def connect() -> Callable[[int], socket.socket]:
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_connection(("127.0.0.1", port), 10.0))


def test_connections_beyond_the_limit_are_closed_and_there_is_room_when_others_leave(obedient, connect):
    with loopback_server(obedient, url="127.0.0.1", max_connections=3, use_thread=True) as server:
        silent = [connect(server.server.port) for _ in range(6)]  # nobody knows yet what they are
        crowd = [connect(server.server.port) for _ in range(6)]
        for sock in crowd:
            sock.sendall(client_hello("h2"))
        wait_until(lambda: sum(map(is_closed, crowd)) == 3)
        assert not any(map(is_closed, silent))
        for sock in crowd:
            sock.close()
        server.environment(connect_timeout=scaled(30.0)).reset()


@pytest.mark.parametrize("secure", [False, True])
def test_who_opens_while_there_is_no_room_gets_it_once_others_leave(obedient, connect, monkeypatch, secure):
    looks: list[list[Check]] = []

    def diagnose_and_note(*args: Any, **options: Any) -> list[Check]:
        looks.append(diagnose(*args, **options))
        return looks[-1]

    monkeypatch.setattr(connection, "diagnose", diagnose_and_note)
    first = client_hello("h2") if secure else HTTP2_PREFACE
    with loopback_server(obedient, secure=secure, url="127.0.0.1", max_connections=3, use_thread=True) as server:
        crowd = [connect(server.server.port) for _ in range(3)]
        for sock in crowd:
            sock.sendall(first)
        wait_until(lambda: is_closed(greeted(connect(server.server.port), first)))
        opened: list[RemoteEnvironment] = []
        opening = threading.Thread(target=lambda: opened.append(server.environment(connect_timeout=scaled(30.0))))
        opening.start()
        wait_until(lambda: looks)
        assert "it may be full" in summarise(looks[0])
        assert not opened
        for sock in crowd:
            sock.close()
        opening.join(scaled(30.0))
        assert opened[0].reset()


def greeted(sock: socket.socket, first: bytes) -> socket.socket:
    with contextlib.suppress(ConnectionError):
        sock.sendall(first)
    return sock


def test_a_silent_handshake_ends(monkeypatch, obedient, connect):
    monkeypatch.setattr(grpc_server, "HANDSHAKE_TIMEOUT_MS", int(scaled(1.0) * 1e3))
    with loopback_server(obedient, use_thread=True) as server:
        silent = [connect(server.server.port) for _ in range(20)]
        half = connect(server.server.port)
        half.sendall(b"\x16\x03\x01\x02\x00\x01")  # a handshake begins
        server.environment().reset()
        wait_until(lambda: all(map(is_closed, [*silent, half])), timeout=30.0)


def test_huge_headers_are_refused_and_the_server_goes_on(obedient):
    with loopback_server(obedient, use_thread=True) as server, channel_to(server) as channel:
        for size in (2**14, 2**20):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(method("Open"))(
                    open_request(), timeout=scaled(30.0), metadata=((TOKEN_KEY, "x" * size),)
                )
        many = tuple((f"x-{number}", "y" * 64) for number in range(2000))
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(method("Open"))(open_request(), timeout=scaled(30.0), metadata=many)
        assert server.server.session_count == 0
        server.environment().reset()
