"""Nobody can have a server hold more than its bounds: neither a stranger nor a client, by whatever call."""

from __future__ import annotations

import queue
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from environments import ACTION
from http2 import Half, announced_message, holding
from raw_client import RawSession, channel_to, method, open_request, reset, step
from remote_gym import EncodingError
from remote_gym.config import Limits
from remote_gym.protocol.constants import SESSION_KEY, TOKEN_KEY
from remote_gym.server.frontends.grpc import REFUSALS
from remote_gym.testing import LoopbackServer, loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parts import LARGEST_MESSAGE, PART_BYTES, cut, is_part
from served import served
from waiting import wait_until

MIB = 2**20
METHODS = ("Load", "Open", "Spaces", "Reset", "Step", "Render", "Call", "Close", "Interact")


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


def stranger(port: int, ca: Path, *, window: int = 65535) -> Half:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return Half(port, context, window=window)


def test_refusals_that_are_not_read_are_bounded(token_server):
    port, _, ca = token_server
    connection = stranger(port, ca, window=0)
    for _ in range(REFUSALS + 20):
        connection.begin(method("Load"))
    wait_until(lambda: connection.look() or len(connection.ended) == 20)
    connection.close()


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


def test_a_large_request_of_the_client_gets_through_either_way(process_server):
    environment = process_server.environment()
    environment.reset(options={"large": bytes(9 * MIB)})
    assert environment.step(ACTION["step"])[0]["count"] == 1
    # And of one that goes on with the session.
    resumed = process_server.environment(resume=environment.detach())
    resumed.reset(options={"large": bytes(9 * MIB)})


def test_a_request_over_the_servers_limit_says_which_and_whose():
    arguments = {"entrypoint": "environments.py"}
    with loopback_server(arguments, use_thread=True, message_limits=Limits(message_bytes=MIB)) as server:
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
