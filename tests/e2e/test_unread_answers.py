"""Who does not read what it is answered has the server keep little, and keeps nobody waiting."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from http2 import MIB, Half, announced_message, holding
from raw_client import method
from remote_gym.protocol.constants import PROTOCOL_VERSION
from remote_gym.server.frontends.grpc import OPENING_FIELDS
from remote_gym.server.frontends.grpc_reading import OTHERS_CALLS
from remote_gym.v1 import remote_gym_pb2 as pb
from served import Served, served
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of processes is measured")

LONG_ENOUGH = 60
"""Seconds of drain that no test waits for."""


@contextlib.contextmanager
def unread(port: int) -> Iterator[Half]:
    """A connection whose answers nobody reads."""
    connection = Half(port, None, window=0)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def kept_open(connection: Half) -> Iterator[None]:
    """Answer the server's pings meanwhile, without which it would end the connection."""
    ended = threading.Event()

    def keep() -> None:
        with contextlib.suppress(OSError):  # the server has ended
            while not ended.is_set():
                connection.look(0.1)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def server(tmp_path) -> Iterator[Served]:
    with served("CartPole-v1", "--port", 0, "--drain-timeout", LONG_ENOUGH, cwd=tmp_path) as running:
        yield running


def call(connection: Half, path: str, message: bytes = b"") -> int:
    number = connection.begin(path)
    connection.send(number, announced_message(len(message)) + message)
    return number


def test_a_watch_that_is_not_read_keeps_neither_others_from_an_answer_nor_the_server_from_stopping(server):
    with unread(server.port) as connection:
        call(connection, "/grpc.health.v1.Health/Watch")
        connection.look(0.2)
        with kept_open(connection), grpc.insecure_channel(f"localhost:{server.port}") as channel:
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=scaled(20.0))
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            server.process.terminate()
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watched.cancel()
            assert server.process.wait(scaled(20.0)) == 0


def test_errors_that_are_not_read_keep_neither_what_was_asked_nor_repeat_it(server):
    request = pb.OpenRequest(protocol_version=PROTOCOL_VERSION, environment="x" * MIB).SerializeToString()
    with unread(server.port) as connection, holding(psutil.Process(server.process.pid), 48 * MIB):
        for _ in range(64):
            assert connection.send(connection.begin(method("Open")), announced_message(len(request)) + request) > MIB
        connection.look(0.2)


def test_health_checks_that_are_not_read_are_bounded_and_others_are_answered(server):
    with unread(server.port) as connection:
        for _ in range(OTHERS_CALLS + 20):
            call(connection, "/grpc.health.v1.Health/Check")
        wait_until(lambda: connection.look() or len(connection.ended) == 20)
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        wait_until(lambda: answered(lambda: check(health_pb2.HealthCheckRequest(), timeout=scaled(5.0))))


def answered(ask: Callable[[], health_pb2.HealthCheckResponse]) -> bool:
    try:
        return ask().status == health_pb2.HealthCheckResponse.SERVING
    except grpc.RpcError:  # until the connection's end is known
        return False


def test_compressed_requests_are_refused(server):
    with grpc.insecure_channel(f"localhost:{server.port}", compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method("Open"))(bytes(2**16), timeout=scaled(10.0))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("field", [b"\x08\x00", b"\x78\x00", b"\x22\x00", b"\xf8\x7f\x00"])
def test_a_request_to_open_of_more_fields_than_any_has_is_refused(server, field):
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method("Open"))(field * (OPENING_FIELDS + 1), timeout=scaled(10.0))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "more than 4,096 fields" in caught.value.details()
