"""One port for all: what comes in by it is told apart, keeps its address, and nothing is left of the way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from environments import ACTION
from hellos import client_hello
from remote_gym import RemoteEnvironment
from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.server.frontends import listener as listener_module
from remote_gym.server.frontends import ports as ports_module
from remote_gym.server.frontends.relay import private_socket
from remote_gym.server.frontends.relay.private_socket import PREFIX, PrivateSocket
from remote_gym.server.frontends.sniffing import HTTP2_PREFACE
from remote_gym.testing import loopback_server
from remote_gym.transport.client_hello import MOST_BYTES
from remote_gym.transport.direct_socket import PREAMBLE
from served import served
from waiting import scaled, wait_until

if sys.platform != "linux":
    pytest.skip("elsewhere there are two ports", allow_module_level=True)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a Unix socket's name, as pytest's own do not always."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder:
        yield Path(folder)


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=scaled(10.0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(2**16):
            data += part
    return data


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[int]:
    """Another port of this machine that leads to that one, as a tunnel or a container's does."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.settimeout(0.1)
        ended = threading.Event()
        threads: list[threading.Thread] = []

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(2**16):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        def accept() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    near, _ = listening.accept()
                    far = connected(port)
                    for sock in (near, far):
                        sock.settimeout(scaled(20.0))
                        stack.enter_context(sock)
                    threads.extend(threading.Thread(target=pump, args=pair) for pair in ((near, far), (far, near)))
                    for thread in threads[-2:]:
                        thread.start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            accepting.join()
            for thread in threads:
                thread.join()


def test_a_tunnel_of_one_port_is_enough_for_direct_connections(obedient):
    with loopback_server(obedient, secure=False, use_thread=True) as server, tunnel(server.server.port) as port:
        for connection in ("direct", "grpc"):
            with contextlib.closing(RemoteEnvironment("localhost", port, connection=connection)) as environment:
                environment.reset()
                assert environment.step(ACTION["step"])[0]["count"] == 1
                is_direct = isinstance(environment._session._carrier.stream, DirectStream)
                assert is_direct == (connection == "direct")


def test_a_client_that_reads_a_port_only_connects_to_it(obedient, monkeypatch):
    """As those of the release before do, which do not know `same_place`."""
    from remote_gym.client.connect import direct_stream

    monkeypatch.setattr(
        direct_stream, "target_of", lambda place, address: ((place[0].strip("[]"), address.port), "there")
    )
    with loopback_server(obedient, use_thread=True) as server:
        environment = server.environment(connection="direct")
        environment.reset()
        assert environment.step(ACTION["step"])[0]["count"] == 1


@pytest.mark.parametrize("secure", [True, False])
def test_http_is_refused_clearly(obedient, secure, caplog):
    with loopback_server(obedient, secure=secure, use_thread=True) as server, caplog.at_level(logging.INFO):
        with connected(server.server.port) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(3000))
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 505 ")
        assert b"gRPC" in answer
        for protocols in ((), ("http/1.1",), ("h2", "http/1.1")):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if protocols:
                context.set_alpn_protocols(protocols)
            with (
                connected(server.server.port) as sock,
                pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"),
            ):
                context.wrap_socket(sock)
        assert "HTTP/1" in caplog.text
        assert "ALPN h2" in caplog.text


def test_first_bytes_may_come_one_by_one(obedient):
    with loopback_server(obedient, use_thread=True) as server, connected(server.server.port) as sock:
        for byte in client_hello("h2"):
            sock.sendall(bytes([byte]))
        assert sock.recv(5)[:2] == b"\x16\x03"  # gRPC's ServerHello


@pytest.mark.parametrize(("names", "size"), [(0, 517), (60, 12_000)])
def test_a_hello_of_many_packets_leads_to_grpc(obedient, names, size):
    """As one with post-quantum key shares, which this Python's TLS may not have, is of two."""
    with loopback_server(obedient, use_thread=True) as server, connected(server.server.port) as sock:
        ca, certificate, key = server.client_credentials_paths
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols([*(f"{name:0200}" for name in range(names)), "h2"])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        assert outgoing.pending >= size
        while tls.selected_alpn_protocol() is None:
            while part := outgoing.read(1_400):  # twice where gRPC asks for a key share of another group, as 1.62 does
                sock.sendall(part)
            received = sock.recv(2**16)
            assert received
            incoming.write(received)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
        assert tls.selected_alpn_protocol() == "h2"


def test_a_hello_that_is_too_long_is_refused(obedient, caplog):
    hello = client_hello(*(f"{name:0200}" for name in range(90)), "h2")
    with (
        loopback_server(obedient, use_thread=True) as server,
        caplog.at_level(logging.INFO),
        connected(server.server.port) as sock,
    ):
        assert len(hello) > MOST_BYTES
        with contextlib.suppress(ConnectionError):
            sock.sendall(hello)
        assert read_all(sock) == b""
        wait_until(lambda: "its first bytes are neither gRPC's nor a direct connection's" in caplog.text)


def test_first_bytes_that_do_not_come_end_the_connection(obedient, monkeypatch):
    monkeypatch.setattr(listener_module, "FIRST_BYTES_TIMEOUT", 0.3)
    with loopback_server(obedient, use_thread=True) as server:
        for begun in (b"", client_hello("h2")[:100], HTTP2_PREFACE[:5], b"GE"):
            with connected(server.server.port) as sock:
                sock.sendall(begun)
                assert read_all(sock) == b""
        server.environment().reset()


def test_the_log_names_the_client_and_not_the_relay(tmp_path, certificates):
    log, tokens = tmp_path / "log", tmp_path / "tokens"
    tokens.write_text("")
    files = ("--certificate", certificates.server, "--key", certificates.server_key, "--token-file", tokens)
    with served("CartPole-v1", "--port", "0", *files, "--log-format", "json", log=log) as server:
        with pytest.raises(Exception, match="token"):
            RemoteEnvironment("localhost", server.port, {}, (certificates.ca, None, None)).reset()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(scaled(30)) == 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    peers = [record["peer"] for record in records if record.get("event") == "call_refused"]
    assert peers
    assert all(peer.startswith(("ipv4:127.0.0.1:", "ipv6:[::1]:")) for peer in peers)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")


def calls(path: str, count: int, *, ended: bool, **more: str) -> bytes:
    """So many calls as HTTP/2, that are taken back at once, or wait for their answer."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
    block = b"".join(literal(*item) for item in {**headers, **more, "content-type": "application/grpc"}.items())
    return b"".join(
        frame(1, 4, stream, block) + (frame(3, 0, stream, struct.pack("!I", 8)) if ended else b"")
        for stream in range(1, 2 * count, 2)
    )


@pytest.mark.parametrize("path", ["/remote_gym.v1.RemoteGym/Load", "/remote_gym.v1.RemoteGym/Interact", "/no/Such"])
def test_resets_that_come_too_fast_cut_the_connection_and_no_other(obedient, path, caplog):
    with loopback_server(obedient, secure=False, use_thread=True) as server:
        environment = server.environment(connection="grpc")
        environment.reset()
        with connected(server.server.port) as sock:
            sock.sendall(HTTP2_PREFACE + frame(4, 0, 0, b""))
            sock.sendall(calls(path, 300, ended=True))  # fewer than 1,024, beyond which gRPC itself ends a connection
            read_all(sock)  # ends
        wait_until(lambda: "cut a connection from ipv4:127.0.0.1" in caplog.text)
        assert environment.step(ACTION["step"])[0]["count"] == 1


def test_grpc_says_nothing_of_metadata_that_is_no_text(obedient, caplog):
    with loopback_server(obedient, secure=False, use_thread=True) as server:
        with connected(server.server.port) as sock:
            sock.sendall(HTTP2_PREFACE + frame(4, 0, 0, b""))
            sock.sendall(calls("/no/Such", 3, ended=False, authorization="Bearer \xff\xfe"))
            data = b""
            while data.count(b"grpc-status") < 1:
                part = sock.recv(2**16)
                assert part
                data += part
        server.environment(connection="grpc").reset()
    assert "Invalid encoding" not in caplog.text


@pytest.mark.parametrize("kind", ["resets", "refusals"])
def test_an_address_that_connects_anew_again_and_again_is_shut_out_and_no_other(obedient, monkeypatch, caplog, kind):
    monkeypatch.setattr(listener_module, "SHUT_OUT", 3600.0)
    source = ("127.0.0.9", 0)
    path = "/remote_gym.v1.RemoteGym/Load" if kind == "resets" else "/no/Such"

    def is_taken(sock: socket.socket) -> bool:
        sock.sendall(HTTP2_PREFACE + frame(4, 0, 0, b""))
        with contextlib.suppress(ConnectionResetError):
            return sock.recv(1) != b""
        return False

    with loopback_server(obedient, secure=False, use_thread=True) as server:
        environment = server.environment(connection="grpc")
        environment.reset()
        port = server.server.port
        deadline = time.monotonic() + scaled(60.0)
        while "taking no connections by gRPC from ipv4:127.0.0.9" not in caplog.text:
            assert time.monotonic() < deadline
            with (
                socket.create_connection(("127.0.0.1", port), scaled(10.0), source) as sock,
                contextlib.suppress(OSError),
            ):
                if is_taken(sock):
                    sock.sendall(calls(path, 95, ended=kind == "resets"))  # fewer than cut a connection
                    sock.settimeout(0.2)
                    read_all(sock)
        assert environment.step(ACTION["step"])[0]["count"] == 1
        other = server.environment(connection="grpc")
        other.reset()
        with socket.create_connection(("127.0.0.1", port), scaled(10.0), source) as sock:
            assert not is_taken(sock)


def relays(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if "frontends/relay" in " ".join(child.cmdline())]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_the_way_however_the_server_ends(short_path, end):
    temporary = short_path
    with served("CartPole-v1", "--port", "0", prefix=("env", f"TMPDIR={temporary}")) as server:
        [relay] = relays(psutil.Process(server.process.pid))
        assert len(list(temporary.glob(f"{PREFIX}*"))) == 1
        with connected(server.port) as sock:
            sock.sendall(HTTP2_PREFACE)
            assert sock.recv(1)
            server.process.send_signal(end)
            read_all(sock)
        server.process.wait(scaled(30.0))
        wait_until(lambda: not relay.is_running() or relay.status() == psutil.STATUS_ZOMBIE)
        wait_until(lambda: not list(temporary.glob(f"{PREFIX}*")))


def test_no_descriptor_is_left_of_connections_however_they_end(certificates):
    files = ("--certificate", certificates.server, "--key", certificates.server_key, "--ca", certificates.ca)
    with served("CartPole-v1", "--port", "0", *files) as server:
        process = psutil.Process(server.process.pid)
        [relay] = relays(process)
        with contextlib.closing(
            RemoteEnvironment(
                "localhost",
                server.port,
                client_credentials_paths=(certificates.ca, certificates.client, certificates.client_key),
                connection="grpc",
            )
        ) as environment:
            environment.reset()  # so that all is there that stays
            before = relay.num_fds()
            hello = client_hello("h2")
            for begun in (b"", hello[:100], hello, HTTP2_PREFACE, b"GET / HTTP/1.1\r\n", PREAMBLE + bytes(16), b"\0"):
                for linger in (None, struct.pack("ii", 1, 0)):  # in order, and by a reset
                    with contextlib.ExitStack() as stack:
                        for _ in range(10):
                            sock = stack.enter_context(connected(server.port))
                            sock.sendall(begun)
                            if linger is not None:
                                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            wait_until(lambda: relay.num_fds() == before)
            environment.step(environment.action_space.sample())
        wait_until(lambda: sockets_of(process) == [server.port])


def sockets_of(process: psutil.Process) -> list[int]:
    """The ports of a process's sockets of IPv4, each of them."""
    return [connection.laddr.port for connection in process.net_connections("tcp4")]


def test_another_relay_takes_over_and_no_step_is_lost_or_doubled(obedient, caplog):
    with loopback_server(obedient, use_thread=True) as server:
        environment = server.environment(connection="grpc")
        environment.reset()
        for count in range(1, 4):
            assert environment.step(ACTION["step"])[0]["count"] == count
            os.kill(server.server._ports._relay.pid, signal.SIGKILL)
        assert environment.step(ACTION["step"])[0]["count"] == 4
        assert "the relay of gRPC's connections has ended" in caplog.text


def test_two_servers_of_one_process_do_not_take_each_others_names(obedient, short_path, caplog):
    """All clients of a Unix socket have the same address, and each server counts its connections from one."""
    with contextlib.ExitStack() as stack:
        for number in range(2):
            url = f"unix:{short_path}/{number}"
            server = stack.enter_context(loopback_server(obedient, secure=False, url=url, use_thread=True))
            environment = server.environment(connection="grpc")
            environment.reset()
            assert environment.step(ACTION["step"])[0]["count"] == 1
    assert "cannot relay a connection" not in caplog.text


def test_a_port_of_grpc_alone_and_the_one_port(obedient):
    with loopback_server(obedient, grpc_port=0, use_thread=True) as server:
        ports = {server.server.port, server.server.grpc_port}
        assert len(ports) == 2
        for port in ports:
            for connection in ("grpc", "direct"):
                environment = RemoteEnvironment(
                    "localhost", port, client_credentials_paths=server.client_credentials_paths, connection=connection
                )
                environment.reset()
                environment.close()


def test_without_a_temporary_folder_it_works_all_the_same(obedient, monkeypatch, short_path):
    monkeypatch.setattr(tempfile, "tempdir", str(short_path / "no-such-folder"))
    monkeypatch.setattr(private_socket, "FALLBACK", short_path / "nor-this")
    beside = PrivateSocket(short_path)
    assert Path(beside.folder).parent == short_path
    beside.close()
    assert not list(short_path.iterdir())
    assert PrivateSocket().folder == ""
    with loopback_server(obedient, secure=False, use_thread=True) as server:
        server.environment(connection="grpc").reset()


def test_what_a_server_and_a_relay_that_were_killed_at_once_left_is_removed_by_the_next_one(monkeypatch, short_path):
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    left, right = PrivateSocket(), PrivateSocket()
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as listening:
        dead.bind(left.address)
        listening.bind(right.address)
        listening.listen()
        PrivateSocket().close()
        assert Path(left.folder).exists()  # which may be a server's that is about to listen
        monkeypatch.setattr(private_socket, "YOUNG", -1.0)
        PrivateSocket().close()
    assert [str(path) for path in short_path.iterdir()] == [right.folder]


def test_two_ports_where_one_cannot_be_had(obedient, monkeypatch, tmp_path):
    monkeypatch.setattr(ports_module, "ONE_PORT", False)
    for url in ("localhost", f"unix:{tmp_path}/socket"):
        with loopback_server(obedient, secure=False, url=url, use_thread=True) as server:
            for connection in ("grpc", "direct"):
                environment = server.environment(connection=connection)
                environment.reset()
                address = environment._session._session.direct
                assert (address.port, address.path) != (server.server.port, f"{tmp_path}/socket")
                environment.close()
    assert not list(tmp_path.iterdir())
