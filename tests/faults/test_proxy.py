"""The proxy breaks what it is told to break, where it is told to."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from faults.proxy import Interference, Network, Proxy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: all of 127.0.0.0/8, and socket filters")

SERVER, PROXY = "127.0.0.2", "127.0.0.3"


class Ends:
    """A connection through a proxy, and both of its ends."""

    def __init__(self, network: Network) -> None:
        self._listening = socket.create_server((SERVER, 0))
        self.port = self._listening.getsockname()[1]
        self.proxy = Proxy(network, PROXY, SERVER, self.port)
        self.client = socket.create_connection((PROXY, self.port), timeout=10.0)
        self._listening.settimeout(10.0)
        self.server, _ = self._listening.accept()
        self.server.settimeout(10.0)

    def close(self) -> None:
        for end in (self.client, self.server, self._listening, self.proxy):
            end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    network = Network()
    ends = Ends(network)
    yield ends
    ends.close()
    network.close()


def exchange(ends: Ends) -> None:
    ends.client.sendall(b"request")
    assert ends.server.recv(100) == b"request"
    ends.server.sendall(b"answer")
    assert ends.client.recv(100) == b"answer"


def test_what_is_sent_arrives_and_so_does_the_end(ends):
    exchange(ends)
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.server.recv(100) == b""
    ends.server.sendall(b"last words")
    ends.server.close()
    assert ends.client.recv(100) == b"last words"
    assert ends.client.recv(100) == b""


@pytest.mark.parametrize(("after", "whole", "arrives"), [(0, False, b""), (3, False, b"req"), (0, True, b"request")])
def test_reset_comes_after_so_many_bytes(ends, after, whole, arrives):
    fault = ends.proxy.arm(Interference("grpc", "up", after, "reset", whole=whole))
    ends.client.sendall(b"request")
    if arrives:
        assert ends.server.recv(100) == arrives
    for end in (ends.client, ends.server):
        with pytest.raises(ConnectionResetError):
            end.recv(100)
    assert fault.fired.is_set()


def test_interference_waits_for_its_direction_and_its_bytes(ends):
    fault = ends.proxy.arm(Interference("grpc", "down", 8, "reset"))
    exchange(ends)
    assert not fault.fired.is_set()
    ends.server.sendall(b"answer")
    assert ends.client.recv(100) == b"an"


def test_held_bytes_arrive(ends):
    ends.proxy.arm(Interference("grpc", "up", 3, "hold", seconds=0.01))
    ends.client.sendall(b"request")
    assert ends.server.recv(3) + ends.server.recv(100) == b"request"


def ask_to_be_told_early(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)


def test_silence_acknowledges_nothing_in_either_direction(ends):
    fault = ends.proxy.arm(Interference("grpc", "up", 0, "silence"))
    ends.client.sendall(b"request")
    assert fault.fired.wait(10.0)
    for end in (ends.client, ends.server):
        ask_to_be_told_early(end)
        end.sendall(b"is anybody there?")
        with pytest.raises(TimeoutError, match="Connection timed out"):
            end.recv(100)


@pytest.mark.parametrize("act", ["forget_client", "forget_server"])
def test_half_open_connection_has_ended_for_one_side_only(ends, act):
    knows, does_not = (ends.server, ends.client) if act == "forget_client" else (ends.client, ends.server)
    fault = ends.proxy.arm(Interference("grpc", "up", 0, act, whole=True))
    ends.client.sendall(b"request")
    assert fault.fired.wait(10.0)
    if does_not is ends.server:
        assert does_not.recv(100) == b"request"
    else:
        assert knows.recv(100) == b"request"
    with pytest.raises(ConnectionResetError):
        knows.recv(100)
    ask_to_be_told_early(does_not)
    does_not.sendall(b"hello")
    with pytest.raises(TimeoutError, match="Connection timed out"):
        does_not.recv(100)


def test_nobody_gets_through_while_the_network_is_out(ends):
    ends.proxy.is_out = True
    ends.proxy.cut_all()
    with pytest.raises(ConnectionResetError), socket.create_connection((PROXY, ends.port), timeout=10.0) as late:
        late.recv(100)
