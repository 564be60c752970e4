"""The socket of a direct connection, with real sockets and real TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from remote_gym import tls
from remote_gym.config import Limits, TlsFiles
from remote_gym.errors import ConnectionLost, DeadlineExceeded, EncodingError
from remote_gym.transport.busy_poll import Wakefulness
from remote_gym.transport.direct_socket import DirectSocket
from waiting import scaled

LIMITS = Limits(message_bytes=2**22)
SIZES = [0, 1, 100, 2**14 - 4, 2**14, 2**14 + 1, 2**16 - 4, 2**16 - 3, 2**16, 300_000, 2**22]


def soon() -> float:
    return time.monotonic() + scaled(10.0)


@pytest.fixture(params=["unix", "tcp", "tls"])
def pair(request, certificates) -> Iterator[tuple[DirectSocket, DirectSocket]]:
    one, other = connected(request.param, certificates)
    ends = DirectSocket(one, LIMITS), DirectSocket(other, LIMITS)
    yield ends
    for end in ends:
        end.close()


def connected(kind: str, certificates) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    if kind == "tcp":
        return one, other
    server = TlsFiles(ca=certificates.ca, certificate=certificates.server, private_key=certificates.server_key)
    client = TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.client_key)
    secured: list[ssl.SSLSocket] = []
    thread = threading.Thread(
        target=lambda: secured.append(tls.server_context(server).wrap_socket(other, server_side=True))
    )
    thread.start()
    one = tls.client_context(client).wrap_socket(one, server_hostname="localhost")
    thread.join()
    return one, secured[0]


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size_arrive_and_are_answered(pair, size):
    asking, answering = pair
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    def answer() -> None:
        for _ in range(2):
            received = answering.receive(soon())
            assert received is not None
            answering.send(bytes(received)[::-1], soon())

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(2):
        asking.send(message, soon())
        assert bytes(asking.receive(soon(), Wakefulness(1e-4))) == message[::-1]
    thread.join()


def test_messages_that_do_not_wait_for_answers_arrive_one_by_one(pair):
    asking, answering = pair
    for number in range(200):
        asking.send(b"%d" % number * 50, soon())
    for number in range(200):
        assert answering.receive(soon()) == b"%d" % number * 50
    assert not answering.has_message_begun()


def test_a_message_that_was_read_ahead_is_told_of(pair):
    asking, answering = pair
    asking.send(b"one", soon())
    asking.send(b"two", soon())
    assert answering.receive(soon()) == b"one"
    deadline = soon()
    while not answering.has_message_begun():  # over TLS a second record may have been read or not
        assert time.monotonic() < deadline
        if answering._poll.poll(0):
            break
    assert answering.receive(soon()) == b"two"


def test_nothing_comes_in_time(pair):
    asking, _ = pair
    with pytest.raises(DeadlineExceeded):
        asking.receive(time.monotonic() + scaled(0.05), Wakefulness(0.01))


def test_a_reader_that_does_not_read(pair):
    asking, _ = pair
    with pytest.raises(DeadlineExceeded):
        send_again_and_again(asking)


def send_again_and_again(asking: DirectSocket) -> None:
    for _ in range(100):
        asking.send(bytes(2**20), time.monotonic() + scaled(0.2))


def test_a_message_over_the_limit_is_not_sent(pair):
    asking, answering = pair
    with pytest.raises(EncodingError, match="limit"):
        asking.send(bytes(2**22 + 1), soon())
    asking.send(b"fine", soon())
    assert answering.receive(soon()) == b"fine"


def raw_pair() -> tuple[socket.socket, DirectSocket]:
    one, other = socket.socketpair()
    return one, DirectSocket(other, LIMITS)


def test_the_end_between_messages_and_within_one():
    for begun, outcome in ((b"", None), (b"\0\0", ConnectionLost), (b"\0\0\0\x09abc", ConnectionLost)):
        raw, end = raw_pair()
        raw.sendall(begun)
        raw.close()
        if outcome is None:
            assert end.receive(soon()) is None
        else:
            with pytest.raises(outcome):
                end.receive(soon())
        end.close()


def test_the_end_within_a_large_message():
    raw, end = raw_pair()
    raw.sendall((200_000).to_bytes(4, "big") + bytes(100_000))
    raw.close()
    with pytest.raises(ConnectionLost, match="100,000 of 200,000"):
        end.receive(soon())
    end.close()


def test_a_length_over_the_limit_is_refused_before_it_is_read():
    raw, end = raw_pair()
    raw.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(EncodingError, match="announced"):
        end.receive(soon())
    raw.close()
    end.close()


def test_a_broken_connection(certificates):
    one, other = connected("tcp", certificates)
    end = DirectSocket(one, LIMITS)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    other.close()
    with pytest.raises(ConnectionLost):
        end.receive(soon())
    end.close()
