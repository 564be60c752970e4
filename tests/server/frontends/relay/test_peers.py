"""The names by which gRPC knows whose bytes it is sent."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from remote_gym.address import address_of_socket, host_in
from remote_gym.server.frontends.relay.peers import (
    Peer,
    forget_peer,
    note_peer,
    peer_of,
)


def called_by(peer: str) -> Peer:
    """What is read from a call of that peer."""
    return peer_of(SimpleNamespace(peer=lambda: peer))


@pytest.mark.parametrize("address", ["unix:", "ipv4:10.0.0.1:4321", "ipv6:[::1]:4321"])
def test_a_name_stands_for_its_peer_until_it_is_forgotten(address):
    name = note_peer(Peer(address, 7))
    assert called_by(f"unix-abstract:{name}") == Peer(address, 7)
    forget_peer(name)
    assert called_by(f"unix-abstract:{name}") == Peer("unix:", None)


def test_no_name_tells_another_or_whose_it_is():
    names = {note_peer(Peer("ipv4:10.0.0.1:4321", number)) for number in range(1000)}
    for name in names:
        forget_peer(name)
    assert len(names) == len({name[:24] for name in names}) == 1000
    assert not any("10.0.0.1" in name for name in names)


def test_no_name_is_made_up():
    """All of those are one stranger."""
    for name in ("other", "", "remote_gym/1/ipv4:10.0.0.1:4321", f"remote_gym/{32 * '0'}"):
        assert called_by(f"unix-abstract:{name}") == Peer("unix:", None)


def test_others_are_taken_as_grpc_has_them():
    assert called_by("unix:/tmp/socket") == Peer("unix:/tmp/socket", None)
    assert called_by("ipv4:10.0.0.1:4321") == Peer("ipv4:10.0.0.1:4321", None)
    assert called_by("ipv6:%5B::1%5D:4321") == Peer("ipv6:[::1]:4321", None)


def test_a_client_by_ipv4_is_the_same_on_any_address():
    assert address_of_socket(("::ffff:10.0.0.1", 4321, 0, 0)) == "ipv4:10.0.0.1:4321"
    assert address_of_socket(("fe80::1%eth0", 4321, 0, 2)) == "ipv6:[fe80::1%eth0]:4321"
    assert [host_in(address) for address in ("ipv4:10.0.0.1:4321", "ipv6:[::1]:4321", "unix:")] == [
        "ipv4:10.0.0.1",
        "ipv6:[::1]",
        "unix:",
    ]
