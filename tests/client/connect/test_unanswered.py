"""Calls that go well, as gRPC has it, and bring nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.config import ClientOptions
from remote_gym.errors import ConnectionLost
from remote_gym.protocol.constants import SERVICE_NAME
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled


def nothing(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    return iter(())


@pytest.fixture
def connection() -> Iterator[GrpcConnection]:
    """To a server that ends each call with status OK and without a message."""
    # A call that may have any number of answers may have none, which the client, who expects one, cannot see from it.
    handler = grpc.unary_stream_rpc_method_handler(nothing)
    methods = dict.fromkeys(("Load", "Open", "Spaces", "Close", "Step"), handler)
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, methods),))
        port = server.add_insecure_port("localhost:0")
        server.start()
        connection = GrpcConnection("localhost", port, None, ClientOptions())
        yield connection
        connection.close()
        server.stop(None).wait(scaled(5.0))


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda connection: connection.ask_load(5.0)(), r"asking \S+ for its load"),
        (
            lambda connection: connection.open(pb.OpenRequest(), connect_timeout=scaled(5.0), open_timeout=scaled(5.0)),
            r"opening a session",
        ),
        (lambda connection: connection.reach("session", "token", 5.0), r"looking for session session"),
        (lambda connection: connection.call("Step", "session", "token", b"", 5.0), r"Step at"),
    ],
    ids=["load", "open", "reach", "call"],
)
def test_a_call_that_ends_without_an_answer_is_a_connection_lost(connection, ask, what):
    with pytest.raises(ConnectionLost, match=rf"{what}.*ended without an answer"):
        ask(connection)


def test_closing_a_session_needs_no_answer(connection):
    connection.close_session("session", "token", 5.0)
