"""Messages on a socket arrive whole, in order, and within bounds."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost, DeadlineExceeded, EncodingError
from remote_gym.transport.framing import LONGEST, MessageSocket, frame, read_length, write_length
from waiting import scaled

LIMITS = Limits(message_bytes=2**24)


@pytest.fixture
def ends() -> Iterator[tuple[MessageSocket, socket.socket]]:
    """One end as messages, the other raw; neither waits for longer than 10 s."""
    one, other = socket.socketpair()
    one.settimeout(scaled(10))
    other.settimeout(scaled(10))
    with one, other:
        yield MessageSocket(one, LIMITS), other


def in_background(work: threading.Thread) -> threading.Thread:
    work.start()
    return work


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_messages_arrive_in_order(messages: list[bytes]) -> None:
    one, other = socket.socketpair()
    with one, other:
        sender, receiver = MessageSocket(one, LIMITS), MessageSocket(other, LIMITS)
        for message in messages:
            sender.send(message)
        one.shutdown(socket.SHUT_WR)
        assert [receiver.receive() for _ in messages] == messages
        assert receiver.receive() is None


@pytest.mark.parametrize("size", [0, 1, 2**16 - 4, 2**16, 2**16 + 1, 3 * 10**6])
def test_messages_of_any_size_arrive(ends: tuple[MessageSocket, socket.socket], size: int) -> None:
    sender, other = ends
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    thread = in_background(threading.Thread(target=sender.send, args=(message,)))
    assert MessageSocket(other, LIMITS).receive() == message
    thread.join()


def test_the_length_precedes_the_message(ends: tuple[MessageSocket, socket.socket]) -> None:
    sender, other = ends
    sender.send(b"abc")
    assert other.recv(100) == b"\0\0\0\3abc"


def test_a_large_message_is_sent_whole_where_the_buffer_takes_little() -> None:
    class Narrow:
        """Takes two bytes, fewer than the header has, at the first call."""

        def __init__(self, sock: socket.socket) -> None:
            self.sendall = sock.sendall
            self._send = sock.send

        def sendmsg(self, parts: list[bytes]) -> int:
            return self._send(parts[0][:2])

    one, peer = socket.socketpair()
    with one, peer:
        message = bytes(2**16 + 1)
        sender = MessageSocket(Narrow(one), LIMITS)  # type: ignore[arg-type]
        thread = in_background(threading.Thread(target=sender.send, args=(message,)))
        assert MessageSocket(peer, LIMITS).receive() == message
        thread.join()


def test_a_header_in_pieces_is_put_together(ends: tuple[MessageSocket, socket.socket]) -> None:
    receiver, other = ends
    found: list[bytes | None] = []
    thread = in_background(threading.Thread(target=lambda: found.append(receiver.receive())))
    for byte in b"\0\0\0\2ab":
        other.sendall(bytes([byte]))
    thread.join()
    assert found == [b"ab"]


def test_nothing_is_read_ahead(ends: tuple[MessageSocket, socket.socket]) -> None:
    receiver, other = ends
    other.sendall(b"\0\0\0\1a\0\0\0\1b")
    assert receiver.receive() == b"a"
    with socket.socket(fileno=socket.dup(receiver.fileno())) as sock:
        assert sock.recv(100) == b"\0\0\0\1b"


@pytest.mark.parametrize("begun", [b"\0", b"\0\0\0\5", b"\0\0\0\5abcd"])
def test_an_end_within_a_message_is_a_loss(ends: tuple[MessageSocket, socket.socket], begun: bytes) -> None:
    receiver, other = ends
    other.sendall(begun)
    other.close()
    with pytest.raises(ConnectionLost, match="within a message"):
        receiver.receive()


def test_an_announced_length_over_the_limit_is_refused(ends: tuple[MessageSocket, socket.socket]) -> None:
    receiver, other = ends
    other.sendall((2**24 + 1).to_bytes(4, "big"))
    with pytest.raises(EncodingError, match=r"^a message of 16,777,217 bytes is announced; the limit is 16,777,216$"):
        receiver.receive()


def test_an_announced_length_allocates_nothing(ends: tuple[MessageSocket, socket.socket]) -> None:
    receiver, other = ends
    other.sendall((2**24).to_bytes(4, "big") + bytes(1000))
    other.close()
    tracemalloc.start()
    with pytest.raises(ConnectionLost):
        receiver.receive()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_message_over_the_limit_is_not_sent(ends: tuple[MessageSocket, socket.socket]) -> None:
    sender, other = ends
    with pytest.raises(EncodingError, match="over the limit"):
        sender.send(bytes(2**24 + 1))
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(1)


def test_a_broken_connection_is_a_loss(ends: tuple[MessageSocket, socket.socket]) -> None:
    sender, other = ends
    other.close()
    with pytest.raises(ConnectionLost, match="sending"):
        sender.send(b"a")


def test_a_reset_connection_is_a_loss() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(ConnectionLost, match="receiving"):
            MessageSocket(one, LIMITS).receive()


def test_timeouts_of_the_socket_are_deadlines() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0.01)
        with pytest.raises(DeadlineExceeded):
            MessageSocket(one, LIMITS).receive()
        with pytest.raises(DeadlineExceeded):
            MessageSocket(one, LIMITS).send(bytes(2**24))


def test_a_deadline_is_for_the_whole_message(ends: tuple[MessageSocket, socket.socket]) -> None:
    receiver, other = ends
    over = threading.Event()

    def drip() -> None:
        other.sendall((2**20).to_bytes(4, "big"))
        while not over.wait(0.02):
            other.sendall(b"a")

    thread = in_background(threading.Thread(target=drip))
    begin = time.monotonic()
    try:
        with pytest.raises(DeadlineExceeded):
            receiver.receive(begin + 0.2)
        assert time.monotonic() - begin < scaled(20.0)
    finally:
        over.set()
        thread.join()


def test_closing_twice_is_fine(ends: tuple[MessageSocket, socket.socket]) -> None:
    connection, other = ends
    assert connection.fileno() >= 0
    connection.close()
    connection.close()
    assert connection.fileno() == -1
    assert other.recv(1) == b""


def test_a_frame_is_a_message_behind_four_bytes_of_its_length():
    assert frame(b"hello") == b"\x00\x00\x00\x05hello"
    assert write_length(2**24 + 1) == b"\x01\x00\x00\x01"
    for size in (0, 1, 255, 2**31, LONGEST):
        assert read_length(write_length(size), LONGEST) == size
    assert read_length(memoryview(b"\x00\x00\x00\x05"), 5) == 5


def test_a_length_over_the_limit_is_neither_written_nor_read():
    with pytest.raises(EncodingError, match=r"^a message of 6 bytes is over the limit of 5$"):
        frame(b"longer", limit=5)
    with pytest.raises(EncodingError, match=r"^a message of 4,294,967,296 bytes is over the limit of 4,294,967,295$"):
        write_length(2**32)
    with pytest.raises(EncodingError, match=r"^a message of 6 bytes is announced; the limit is 5$"):
        read_length(b"\x00\x00\x00\x06", 5)
