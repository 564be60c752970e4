"""Nobody can have a server hold more than its bounds: neither a stranger nor a client, by whatever call."""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from attacks import _frame, _literal
from environments import ACTION
from raw_client import RawSession, channel_to, method, open_request, reset, step
from remote_gym import EncodingError
from remote_gym.config import Limits
from remote_gym.protocol.constants import SESSION_KEY, TOKEN_KEY
from remote_gym.testing import LoopbackServer, loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parts import LARGEST_MESSAGE, PART_BYTES, cut, is_part
from served import served
from waiting import wait_until

MIB = 2**20
METHODS = ("Load", "Open", "Spaces", "Reset", "Step", "Render", "Call", "Close", "Interact")


class Half:
    """A connection on which calls are begun, and messages sent halfway: HTTP/2 by hand."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._secure = context.wrap_socket(sock, server_hostname="localhost")
        self._secure.settimeout(0.5)
        self._numbers = itertools.count(1, 2)
        self._window = 65535
        self._windows: dict[int, int] = {}
        self._initial = 65535
        self._received = b""
        self.ended: set[int] = set()
        self._secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))

    def begin(self, path: str, metadata: dict[str, str] | None = None) -> int:
        number = next(self._numbers)
        fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost"}
        fields |= {"te": "trailers", "content-type": "application/grpc", **(metadata or {})}
        self._secure.sendall(_frame(1, 4, number, b"".join(_literal(*field) for field in fields.items())))
        self._windows[number] = self._initial
        return number

    def send(self, number: int, data: bytes, seconds: float = 2.0) -> int:
        """Send as much as the server lets, until it lets no more for so long.

        Returns:
            How much that was.
        """
        sent, end = 0, time.monotonic() + seconds
        while sent < len(data) and number not in self.ended and time.monotonic() < end:
            size = min(16384, len(data) - sent, self._window, self._windows[number])
            if size <= 0:
                self.look()
                continue
            self._secure.sendall(_frame(0, 0, number, data[sent : sent + size]))
            self._window -= size
            self._windows[number] -= size
            sent += size
            end = time.monotonic() + seconds
        return sent

    def look(self, seconds: float = 0.05) -> None:
        """Read what the server says."""
        self._secure.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            self._received += self._secure.recv(2**16)
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                return
            kind, flags = self._received[3], self._received[4]
            number = int.from_bytes(self._received[5:9], "big")
            payload, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            self._take(kind, flags, number, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == 8:
            grown = int.from_bytes(payload, "big")
            if number:
                self._windows[number] = self._windows.get(number, self._initial) + grown
            else:
                self._window += grown
        elif kind == 4 and not flags & 1:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == 4:
                    grown, self._initial = value - self._initial, value
                    for stream in self._windows:
                        self._windows[stream] += grown
            self._secure.sendall(_frame(4, 1, 0, b""))
        elif kind == 6 and not flags & 1:
            self._secure.sendall(_frame(6, 1, 0, payload))
        elif kind == 3 or (flags & 1 and kind in (0, 1)):
            self.ended.add(number)

    def close(self) -> None:
        self._secure.close()


def announced_message(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big")


@contextlib.contextmanager
def holding(process: psutil.Process, most: int) -> Iterator[None]:
    """Check that the process grows by no more."""
    before = process.memory_info().rss
    yield
    grown = process.memory_info().rss - before
    assert grown < most, f"it grew by {grown / MIB:.0f} MiB"


@pytest.fixture(scope="module")
def token_server(tmp_path_factory) -> Iterator[tuple[int, psutil.Process, Path]]:
    """A server that knows its clients by tokens, apart, since its memory is measured."""
    folder = tmp_path_factory.mktemp("served")
    tokens = folder / "tokens"
    tokens.touch()
    with loopback_server("CartPole-v1", use_thread=True) as files:
        ca, _, _ = files.client_credentials_paths
        certificates = ca.parent
        arguments = ["CartPole-v1", "--port", 0, "--certificate", certificates / "server.pem"]
        arguments += ["--key", certificates / "server-key.pem", "--token-file", tokens]
        with served(*arguments, cwd=folder) as running:
            yield running.port, psutil.Process(running.process.pid), ca


def stranger(port: int, ca: Path) -> Half:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return Half(port, context)


@pytest.mark.parametrize("name", METHODS)
def test_a_stranger_is_refused_before_a_message_is_read(token_server, name):
    port, process, ca = token_server
    connection = stranger(port, ca)
    blob = bytes(2 * MIB)
    with holding(process, 24 * MIB):
        for _ in range(32):
            number = connection.begin(method(name))
            connection.send(number, announced_message(LARGEST_MESSAGE) + blob)
            wait_until(lambda number=number: connection.look() or number in connection.ended)
    connection.close()


@pytest.mark.parametrize("name", ["Check", "Watch"])
def test_half_sent_health_checks_are_bounded_in_all_and_others_are_answered(token_server, name):
    port, process, ca = token_server
    connections = [stranger(port, ca) for _ in range(2)]
    blob = bytes(LARGEST_MESSAGE - 1)
    with holding(process, 140 * MIB):
        for _ in range(32):  # in turn, since a connection that answers no pings is ended
            for connection in connections:
                number = connection.begin(f"/grpc.health.v1.Health/{name}")
                connection.send(number, announced_message(LARGEST_MESSAGE) + blob, 0.05)
    address = f"localhost:{port}"
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes())) as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
        assert answer == b"\x08\x01", "SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a" + b"\xff\x7f" + bytes(2**14 - 1), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x01x", timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watched = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
        assert next(watched) == b"\x08\x01"
        watched.cancel()
    for connection in connections:
        connection.close()


# --------------------------------------------------------------------------------------------------------------
# A client that is known


@pytest.fixture(scope="module")
def small_server() -> Iterator[LoopbackServer]:
    """Holds little, so that little fills it."""
    with loopback_server({"entrypoint": "environments.py"}, receive_bytes=32 * MIB) as running:
        yield running


def client_context(server: LoopbackServer) -> ssl.SSLContext:
    ca, certificate, key = server.client_credentials_paths
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


def test_half_sent_requests_of_a_client_are_bounded(tmp_path):
    """By 32 connections of 16 calls each, 4 MiB less a byte in each: 2 GiB, if all were taken."""
    with loopback_server("CartPole-v1", use_thread=True) as files:
        ca, certificate, key = files.client_credentials_paths
        arguments = ["CartPole-v1", "--port", 0, "--certificate", ca.parent / "server.pem"]
        arguments += ["--key", ca.parent / "server-key.pem", "--ca", ca, "--receive-bytes", "32MiB"]
        with served(*arguments, cwd=tmp_path) as running:
            context = ssl.create_default_context(cafile=ca)
            context.load_cert_chain(certificate, key)
            context.set_alpn_protocols(["h2"])
            blob = announced_message(LARGEST_MESSAGE) + bytes(LARGEST_MESSAGE - 1)
            connections = [Half(running.port, context) for _ in range(4)]
            with holding(psutil.Process(running.process.pid), 200 * MIB):
                for _ in range(16):
                    for connection in connections:
                        connection.send(connection.begin(method("Open")), blob, 0.05)
            for connection in connections:
                connection.close()
            # What they held is given back with their connections.
            credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), certificate.read_bytes())
            with grpc.secure_channel(f"localhost:{running.port}", credentials) as channel:
                answer = channel.unary_unary(method("Open"))(open_request(), timeout=60)
                assert pb.OpenResponse.FromString(answer).HasField("session")


def interact(channel: grpc.Channel, session: RawSession) -> tuple[queue.SimpleQueue[bytes | None], grpc.Call]:
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    return requests, channel.stream_stream(method("Interact"))(
        iter(requests.get, None), metadata=session.metadata, timeout=60
    )


def padded(request: pb.Request, size: int) -> bytes:
    """The request, with a part of it that large."""
    request.call.args.tuple.items.add().binary = bytes(size)
    return request.SerializeToString()


def test_a_request_over_the_message_limit_travels_in_parts(small_server):
    with channel_to(small_server) as channel:
        session = RawSession.open(channel)
        assert session.session.message_bytes == LARGEST_MESSAGE
        assert session.spaces().message_bytes == LARGEST_MESSAGE
        requests, call = interact(channel, session)
        requests.put(reset(1).SerializeToString())
        assert pb.Response.FromString(next(call)).HasField("reset")
        data = padded(pb.Request(sequence=2, call=pb.CallRequest(name="no_such")), 10 * MIB)
        for _ in range(2):  # a request in parts, too, is answered once, and again by the same answer
            for message in cut(data, LARGEST_MESSAGE):
                assert is_part(message)
                requests.put(message)
            assert "no_such" in pb.Response.FromString(next(call)).error.message
        requests.put(step(3).SerializeToString())
        assert pb.Response.FromString(next(call)).HasField("step")
        session.ask("Close", pb.Request())
        requests.put(None)


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([pb.Request(part=pb.Part(size=25 * MIB, data=b"x"))], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([pb.Request(part=pb.Part(size=2**63, data=b"x"))], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([pb.Request(part=pb.Part(data=b"x"))], grpc.StatusCode.INVALID_ARGUMENT),
        ([pb.Request(part=pb.Part(size=2, data=b"x")), step(1)], grpc.StatusCode.INVALID_ARGUMENT),
        (
            [pb.Request(part=pb.Part(size=LARGEST_MESSAGE + 1, data=bytes(LARGEST_MESSAGE)))],
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ),
    ],
)
def test_parts_that_cannot_be_taken_end_the_call_and_not_the_session(small_server, messages, status):
    with channel_to(small_server) as channel:
        session = RawSession.open(channel)
        requests, call = interact(channel, session)
        for message in messages:
            requests.put(message.SerializeToString())
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is status, caught.value.details()
        assert session.ask("Reset", reset(1)).HasField("reset")
        session.ask("Close", pb.Request())


def test_announced_parts_that_do_not_come_make_way_for_others(monkeypatch, small_server):
    """Two calls of one client hold all that it may; its third waits, and is answered once one of them has gone."""
    with channel_to(small_server) as channel:
        sessions = [RawSession.open(channel) for _ in range(3)]
        part = pb.Request(part=pb.Part(size=10 * MIB, data=bytes(MIB))).SerializeToString()
        held = [interact(channel, session) for session in sessions[:2]]
        for requests, _ in held:
            requests.put(part)
        requests, call = interact(channel, sessions[2])
        intake = small_server.server._grpc._intake if hasattr(small_server.server, "_grpc") else None
        assert intake is None or intake.held <= 24 * MIB
        data = padded(pb.Request(sequence=1, call=pb.CallRequest(name="no_such")), 6 * MIB)
        time.sleep(0.2)
        for message in cut(data, LARGEST_MESSAGE):
            requests.put(message)
        held[0][0].put(None)
        assert pb.Response.FromString(next(call)).HasField("error")
        for requests, call in [*held[1:]]:
            call.cancel()
            requests.put(None)
        for session in sessions:
            session.ask("Close", pb.Request())


@pytest.mark.parametrize("connection", ["grpc", "direct"])
def test_a_large_request_of_the_client_gets_through_either_way(connection):
    with loopback_server({"entrypoint": "environments.py"}) as server:
        environment = server.environment(connection=connection)
        environment.reset(options={"large": bytes(9 * MIB)})
        assert environment.step(ACTION["step"])[0]["count"] == 1
        environment.close()


def test_a_resumed_session_sends_large_requests_too():
    with loopback_server({"entrypoint": "environments.py"}) as server:
        environment = server.environment(connection="grpc")
        environment.reset()
        ticket = environment.detach()
        resumed = server.environment(connection="grpc", resume=ticket)
        resumed.reset(options={"large": bytes(9 * MIB)})
        resumed.close()


def test_a_request_over_the_servers_limit_says_which_and_whose():
    with loopback_server({"entrypoint": "environments.py"}, limits=Limits(message_bytes=MIB)) as server:
        environment = server.environment(connection="grpc")
        environment.reset()
        with pytest.raises(EncodingError, match=r"3,\d+,\d+ bytes.*at most 1,048,576"):
            environment.reset(options={"large": bytes(3 * MIB)})


def test_answers_that_are_not_read_are_one_for_each_session(small_server):
    """Of calls by themselves, the next one is asked when the last one's answer has gone."""
    with channel_to(small_server) as channel:
        session = RawSession.open(channel)
        session.ask("Reset", reset(1))
    metadata = {SESSION_KEY: session.session.id, TOKEN_KEY: session.session.token}
    request = pb.Request(sequence=2, step=pb.StepRequest(packed=ACTION["large_info"].to_bytes(8, "little")))
    data = request.SerializeToString()
    connection = Half(small_server.server.port, client_context(small_server))
    process = psutil.Process()
    with holding(process, 64 * MIB):
        for _ in range(64):
            number = connection.begin(method("Step"), metadata)
            connection.send(number, announced_message(len(data)) + data)
        time.sleep(1.0)
    connection.close()
    with channel_to(small_server) as channel:
        again = RawSession(channel, session.session)
        assert again.ask("Step", request).HasField("step")
        again.ask("Close", pb.Request())


def test_parts_are_smaller_than_what_a_server_takes():
    assert PART_BYTES < LARGEST_MESSAGE
