"""The names by which gRPC knows whose bytes it is sent."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from remote_gym.server.frontends.relay.peers import Peer, address_of_socket, host_in, peer_of, relay_name

LONGEST = "ipv6:[fe80:1111:2222:3333:4444:5555:6666:7777%wlp0s20f3]:65535"


def called_by(peer: str) -> Peer:
    """What is read from a call of that peer."""
    return peer_of(SimpleNamespace(peer=lambda: peer))


@pytest.mark.parametrize("address", ["unix:", "ipv4:10.0.0.1:4321", "ipv6:[::1]:4321", LONGEST])
def test_a_name_holds_number_and_address(address):
    name = relay_name("0123456789abcdef", 7, address)
    assert called_by(f"unix-abstract:{name}") == Peer(address, 7)
    quoted = name.replace("[", "%5B").replace("]", "%5D")  # as gRPC does
    assert called_by(f"unix-abstract:{quoted}") == Peer(address, 7)


@pytest.mark.parametrize(
    "peer", ["ipv4:10.0.0.1:4321", "unix:/tmp/socket", "unix-abstract:other/1/2", "unix-abstract:"]
)
def test_others_are_taken_as_grpc_has_them(peer):
    assert called_by(peer) == Peer(peer, None)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_the_longest_name_can_be_bound():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(b"\0" + relay_name("0123456789abcdef", 10**9, LONGEST).encode())


def test_a_client_by_ipv4_is_the_same_on_any_address():
    assert address_of_socket(("::ffff:10.0.0.1", 4321, 0, 0)) == "ipv4:10.0.0.1:4321"
    assert address_of_socket(("fe80::1%eth0", 4321, 0, 2)) == "ipv6:[fe80::1%eth0]:4321"
    assert [host_in(address) for address in ("ipv4:10.0.0.1:4321", "ipv6:[::1]:4321", "unix:")] == [
        "ipv4:10.0.0.1",
        "ipv6:[::1]",
        "unix:",
    ]
