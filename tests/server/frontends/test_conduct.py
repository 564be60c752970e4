"""Calls that are taken back or refused: too many cut a connection, and, by many connections, shut an address out."""

from __future__ import annotations

import pytest

from remote_gym.server.frontends.grpc_conduct import HOST_IDLE, HOST_RESETS, IDLE, RESETS, Conduct
from remote_gym.server.frontends.relay.peers import Peer


class Watched:
    """A conduct, and what it has had done."""

    def __init__(self) -> None:
        self.cuts: set[int] = set()
        self.shut_out: set[str] = set()
        self.conduct = Conduct(self._cut, self.shut_out.add, clock=lambda: 0.0)

    def _cut(self, number: int) -> bool:
        is_news = number not in self.cuts
        self.cuts.add(number)
        return is_news


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize(
    ("name", "burst"), [("note_reset", RESETS[0]), ("note_refusal", IDLE[0]), ("note_idle", IDLE[0])]
)
def test_a_burst_is_let_pass_and_what_is_beyond_cuts_once(watched, name, burst, caplog):
    note = getattr(watched.conduct, name)
    for _ in range(int(burst)):
        note(Peer("ipv4:10.0.0.1:4321", 7))
    assert not watched.cuts
    for _ in range(100):
        note(Peer("ipv4:10.0.0.1:4321", 7))
    assert watched.cuts == {7}
    assert not watched.shut_out
    assert caplog.text.count("cut a connection from ipv4:10.0.0.1:") == 1


@pytest.mark.parametrize(
    ("name", "burst"), [("note_reset", HOST_RESETS[0]), ("note_refusal", HOST_IDLE[0]), ("note_idle", HOST_IDLE[0])]
)
def test_connections_anew_are_counted_together_by_their_address_and_no_others(watched, name, burst):
    note = getattr(watched.conduct, name)
    for number in range(int(burst)):
        note(Peer(f"ipv4:10.0.0.1:{number}", number))
    assert not watched.cuts
    note(Peer("ipv4:10.0.0.1:4321", 100_000))
    note(Peer("ipv4:10.0.0.2:4321", 100_001))
    assert (watched.cuts, watched.shut_out) == ({100_000}, {"ipv4:10.0.0.1"})


def test_of_ipv6_a_client_may_have_64_bits_of_addresses(watched):
    for number in range(int(HOST_RESETS[0]) + 1):
        watched.conduct.note_reset(Peer(f"ipv6:[2001:db8:1:2::{number:x}]:4321", number))
    assert watched.shut_out == {"ipv6:2001:db8:1:2::/64"}


def test_neither_a_unix_socket_nor_grpcs_own_port_is_shut_out(watched):
    for _ in range(2 * int(HOST_RESETS[0])):
        watched.conduct.note_reset(Peer("unix:", 7))
        watched.conduct.note_reset(Peer("ipv4:10.0.0.1:4321", None))
    assert (watched.cuts, watched.shut_out) == ({7}, set())
