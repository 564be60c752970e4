"""The relay: what one end sends the other gets, in whatever way either of them ends."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from waiting import scaled, wait_until

if sys.platform != "linux":
    pytest.skip("gRPC is relayed to on Linux only", allow_module_level=True)

from remote_gym.server.frontends.relay import process as relay_module
from remote_gym.server.frontends.relay.process import CARRY, CHUNK, COMMAND, CUT, ENDED, STOP, Relay

MUCH = 8 * 2**20


@dataclass
class Carried:
    """A connection that is carried, at both of its ends, and the relay's control."""

    client: socket.socket
    grpc: socket.socket
    control: socket.socket
    thread: threading.Thread

    def ask(self, what: int, number: int = 1) -> None:
        self.control.send(COMMAND.pack(what, number))

    def ended(self) -> int:
        number: int
        [number] = ENDED.unpack(self.control.recv(100))
        return number


@pytest.fixture
def carried(monkeypatch) -> Iterator[Carried]:
    monkeypatch.setattr(relay_module, "LINGER", 0.5)
    with contextlib.ExitStack() as stack:
        control, theirs = (stack.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        thread = threading.Thread(target=Relay(theirs).run)
        thread.start()
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listening.getsockname()))
        accepted, _ = listening.accept()
        upstream, grpc = socket.socketpair()
        stack.enter_context(grpc)
        for sock in (client, grpc, control):
            sock.settimeout(scaled(20.0))
        with accepted, upstream:
            socket.send_fds(control, [COMMAND.pack(CARRY, 1)], [accepted.fileno(), upstream.fileno()])
        yield Carried(client, grpc, control, thread)
        control.close()
        thread.join(scaled(10.0))
        assert not thread.is_alive()


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while part := sock.recv(2**16):
        data += part
    return bytes(data)


@pytest.mark.parametrize("forward", [True, False])
def test_many_bytes_arrive_in_order_while_the_other_end_reads_slowly(carried, forward):
    data = random.Random(3).randbytes(MUCH)
    source, sink = (carried.client, carried.grpc) if forward else (carried.grpc, carried.client)

    def send() -> None:
        source.sendall(data)
        source.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    time.sleep(0.2)  # in which all buffers fill
    assert hashlib.sha256(read_all(sink)).digest() == hashlib.sha256(data).digest()
    sending.join()
    # Only half of it has ended.
    sink.sendall(b"and back")
    assert source.recv(100) == b"and back"
    sink.close()
    assert read_all(source) == b""
    source.close()
    assert carried.ended() == 1


def test_both_directions_at_once(carried):
    data = [random.Random(seed).randbytes(MUCH) for seed in (1, 2)]
    got: dict[int, bytes] = {}

    def receive(index: int, sock: socket.socket) -> None:
        got[index] = read_all(sock)

    def send(index: int, sock: socket.socket) -> None:
        sock.sendall(data[index])
        sock.shutdown(socket.SHUT_WR)

    threads = [
        threading.Thread(target=what, args=(index, sock))
        for index, (source, sink) in enumerate([(carried.client, carried.grpc), (carried.grpc, carried.client)])
        for what, sock in ((send, source), (receive, sink))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(30.0))
    assert [len(got[0]), len(got[1])] == [MUCH, MUCH]
    assert [got[0] == data[0], got[1] == data[1]] == [True, True]
    assert carried.ended() == 1


def test_what_grpc_sent_last_arrives_though_it_closed_with_bytes_unread(carried):
    carried.client.sendall(bytes(1000))  # which it never reads
    data = bytes(2**18)
    sending = threading.Thread(target=lambda: (carried.grpc.sendall(data), carried.grpc.close()))
    sending.start()
    time.sleep(0.1)
    carried.client.sendall(bytes(1000))
    assert len(read_all(carried.client)) == len(data)
    sending.join()
    carried.client.close()
    assert carried.ended() == 1


def test_a_reset_by_the_client_ends_it(carried):
    carried.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    carried.client.close()
    assert carried.ended() == 1
    with contextlib.suppress(ConnectionResetError):
        assert carried.grpc.recv(1) == b""


def test_a_client_that_does_not_leave_once_grpc_has_is_left(carried):
    carried.grpc.close()
    assert carried.client.recv(1) == b""
    assert carried.ended() == 1


def test_a_client_that_reads_nothing_is_left_once_grpc_has_closed(carried):
    carried.grpc.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            carried.grpc.send(bytes(CHUNK))
    time.sleep(0.1)
    carried.grpc.close()
    before = time.process_time()
    assert carried.ended() == 1
    assert time.process_time() - before < 0.2  # it sleeps meanwhile


def test_an_idle_and_a_half_closed_connection_take_no_time(carried):
    carried.client.shutdown(socket.SHUT_WR)
    assert carried.grpc.recv(1) == b""
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.2
    carried.grpc.sendall(b"late")
    assert carried.client.recv(10) == b"late"


def test_cut(carried):
    carried.ask(CUT, 7)  # which is none
    carried.ask(CUT, 1)
    assert carried.ended() == 1
    assert carried.client.recv(1) == b""
    assert carried.grpc.recv(1) == b""


def test_too_few_descriptors_are_reported_and_leave_nothing(carried):
    """The system leaves out those for which there is no room, and neither end hears of it."""
    client, theirs = socket.socketpair()
    with client:
        with theirs:
            socket.send_fds(carried.control, [COMMAND.pack(CARRY, 2)], [theirs.fileno()])
        assert b"open no more files" in carried.control.recv(100)
        assert carried.ended() == 2
        client.settimeout(scaled(20.0))
        assert client.recv(1) == b""


def test_stop_sends_what_is_on_its_way_and_does_not_wait_for_clients(carried):
    carried.grpc.sendall(b"goodbye")
    carried.grpc.close()
    carried.ask(STOP, int(scaled(20_000)))
    assert read_all(carried.client) == b"goodbye"
    carried.thread.join(scaled(5.0))
    assert not carried.thread.is_alive()


def test_stop_ends_in_time(carried):
    carried.ask(STOP, 200)  # gRPC has not closed
    carried.thread.join(scaled(5.0))
    assert not carried.thread.is_alive()


def test_it_ends_with_its_server(carried):
    carried.control.shutdown(socket.SHUT_RDWR)
    carried.thread.join(scaled(5.0))
    assert carried.client.recv(1) == b""


def test_nothing_is_left_open(carried):
    def count() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    carried.client.sendall(b"x")
    assert carried.grpc.recv(1) == b"x"  # so that the relay has its descriptors
    before = count()
    for number in range(2, 50):
        client, theirs = socket.socketpair()
        upstream, grpc = socket.socketpair()
        with theirs, upstream:
            socket.send_fds(carried.control, [COMMAND.pack(CARRY, number)], [theirs.fileno(), upstream.fileno()])
        client.sendall(b"x")
        assert grpc.recv(1) == b"x"
        for sock in (client, grpc) if number % 2 else (grpc, client):
            sock.close()
        assert carried.ended() == number
    wait_until(lambda: count() == before)
