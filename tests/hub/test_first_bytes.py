"""Who comes to a hub, and to which server, as their first bytes show."""

from __future__ import annotations

import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellos import client_hello, in_records
from remote_gym.hub.first_bytes import ConnectionKind, FirstBytes, recognise
from remote_gym.protocol.hub import DIAL_BACK, REGISTER
from remote_gym.transport.client_hello import MOST_BYTES
from remote_gym.transport.direct_socket import PREAMBLE
from remote_gym.transport.preamble import write_preamble
from waiting import scaled

ID = bytes(range(32))
PREAMBLE_OF_HOME = write_preamble(bytes(16), "sim-home")

FIRST_BYTES = {
    "a registration": (REGISTER, ConnectionKind.REGISTERING, "", b""),
    "a dial-back": (DIAL_BACK + ID, ConnectionKind.DIALLING_BACK, "", ID),
    "a direct connection": (PREAMBLE_OF_HOME, ConnectionKind.CLIENT, "sim-home", b""),
    "gRPC": (client_hello("h2"), ConnectionKind.CLIENT, "localhost", b""),
    "TLS in small records": (in_records(client_hello("h2"), 7), ConnectionKind.CLIENT, "localhost", b""),
    "TLS without ALPN": (client_hello(name="Sim-Home"), ConnectionKind.CLIENT, "sim-home", b""),
    "TLS without a name": (client_hello("h2", name=None), ConnectionKind.NO_SERVER, "", b""),
    "a direct connection without a name": (PREAMBLE + bytes(16), ConnectionKind.NO_SERVER, "", b""),
    "a name that is none": (
        client_hello(name="sim_home.").replace(b"sim_home.", b"sim_home\n"),
        ConnectionKind.NO_SERVER,
        "",
        b"",
    ),
    "a preamble with a bad name": (
        PREAMBLE_OF_HOME.replace(b"sim-home", b"sim\nhome"),
        ConnectionKind.UNKNOWN,
        "",
        b"",
    ),
    "HTTP/1": (b"G", ConnectionKind.UNKNOWN, "", b""),
    "HTTP/2 in plaintext": (b"P", ConnectionKind.UNKNOWN, "", b""),
    "another version of servers": (REGISTER[:7] + b"\x02", ConnectionKind.UNKNOWN, "", b""),
    "another kind of servers": (REGISTER[:8] + b"X", ConnectionKind.UNKNOWN, "", b""),
    "another preamble": (PREAMBLE[:-1] + b"\x03", ConnectionKind.UNKNOWN, "", b""),
    "a ServerHello": (b"\x16\x03\x01\x00\x04\x02", ConnectionKind.UNKNOWN, "", b""),
    "zeros": (b"\0", ConnectionKind.UNKNOWN, "", b""),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_who_it_is_shows_with_the_last_byte_that_it_takes_and_not_before(name):
    data, kind, server, dial_back = FIRST_BYTES[name]
    found = recognise(data)
    assert found is not None
    assert (found.kind, found.name, found.id) == (kind, server, dial_back)
    assert {recognise(data[:size]) for size in range(len(data))} == {None}
    assert bool(found.why) == (kind in (ConnectionKind.NO_SERVER, ConnectionKind.UNKNOWN))


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_no_byte_is_read_that_is_not_the_hub_s(name):
    data, kind, _, _ = FIRST_BYTES[name]
    if kind is not ConnectionKind.UNKNOWN and data[0] != 0x16:  # of TLS, what is read is carried
        first, all_bytes = FirstBytes(), data + b"what follows"
        while first.readable:
            first.feed(all_bytes[len(first.data) :][: first.readable])
        assert bytes(first.data) == data


def test_the_name_is_the_one_that_openssl_finds():
    for name in ("sim-home", "a.b.c", "xn--bcher-kva.example", "x" * 60):
        seen: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda _socket, found, _context, seen=seen: seen.append(found)
        incoming = ssl.MemoryBIO()
        incoming.write(hello := client_hello("h2", name=name))
        with pytest.raises(ssl.SSLError):  # there is no certificate
            context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
        found = recognise(hello)
        assert found is not None
        assert seen == [found.name] == [name]


def test_what_comes_byte_by_byte_is_bounded_and_looked_at_once():
    endless = in_records(b"\x16\x03\x01\x00\x00\x01\x00\x3f\xf0" + bytes(0x3FF0), 1)[:MOST_BYTES]
    first = FirstBytes()
    begun = time.process_time()
    found = [first.feed(endless[at : at + 1]) for at in range(MOST_BYTES)]
    assert time.process_time() - begun < scaled(1.0)
    assert found[:-1] == [None] * (MOST_BYTES - 1)
    assert found[-1] is not None
    assert found[-1].kind is ConnectionKind.UNKNOWN
    assert not first.readable


@given(
    st.one_of(
        st.binary(),
        st.sampled_from([data for data, *_ in FIRST_BYTES.values()]).flatmap(
            lambda data: st.tuples(st.integers(0, len(data)), st.binary(max_size=60)).map(
                lambda change: data[: change[0]] + change[1] + data[change[0] + len(change[1]) :]
            )
        ),
    ),
    st.integers(1, 40),
)
def test_parts_of_any_size_show_the_same_as_the_whole(data, size):
    first, found, at = FirstBytes(), None, 0
    while found is None and at < len(data) and first.readable:
        part = data[at : at + min(size, first.readable)]
        found = first.feed(part)
        at += len(part)
    assert found == recognise(bytes(first.data))
    assert bytes(first.data) == data[:at]
