"""What a connection is, by its first bytes: the same however they come in packets and records."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellos import client_hello, in_records
from remote_gym.server.frontends.sniffing import HTTP2_PREFACE, Kind, Sniffer, sniff
from remote_gym.transport.client_hello import MOST_BYTES
from remote_gym.transport.direct_socket import PREAMBLE
from remote_gym.transport.preamble import write_preamble
from waiting import scaled

DIRECT = PREAMBLE + bytes(range(16))

FIRST_BYTES = {
    "direct": (DIRECT, Kind.DIRECT),
    "gRPC in plaintext": (HTTP2_PREFACE, Kind.GRPC),
    "gRPC by TLS": (client_hello("h2"), Kind.GRPC),
    "gRPC of old by TLS": (client_hello("grpc-exp", "h2"), Kind.GRPC),
    "gRPC by TLS in small records": (in_records(client_hello("h2"), 7), Kind.GRPC),
    "a browser": (client_hello("h2", "http/1.1"), Kind.HTTPS),
    "HTTP/1 by TLS": (client_hello("http/1.1"), Kind.HTTPS),
    "TLS without ALPN": (client_hello(), Kind.HTTPS),
    "TLS without ALPN in small records": (in_records(client_hello(), 1), Kind.HTTPS),
    "GET": (b"GET ", Kind.HTTP),
    "a long method": (b"VERSION-", Kind.OTHER),
    "OPTIONS": (b"OPTIONS ", Kind.HTTP),
    "PROPFIND, which begins as HTTP/2 does": (b"PROPFIND ", Kind.HTTP),
    "PRI, which is no method": (b"PRI * HTTP/1", Kind.HTTP),
    "no method": (b"A" * 18, Kind.OTHER),
    "lower case": (b"get", Kind.OTHER),
    "a preamble with a name": (write_preamble(bytes(range(16)), "sim-home"), Kind.DIRECT),
    "a preamble with an empty name": (PREAMBLE[:-1] + b"\x02" + bytes(17), Kind.OTHER),
    "a preamble with a name of no server": (PREAMBLE[:-1] + b"\x02" + bytes(16) + b"\x03A\n\0", Kind.OTHER),
    "nearly a preamble": (PREAMBLE[:-1] + b"\x03", Kind.OTHER),
    "zeros": (b"\0", Kind.OTHER),
    "SSL 2": (b"\x80\x2e\x01", Kind.OTHER),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", Kind.OTHER),
    "another version of records": (b"\x16\x04", Kind.OTHER),
    "an empty record": (b"\x16\x03\x01\x00\x00", Kind.OTHER),
    "a ServerHello": (b"\x16\x03\x01\x00\x04\x02", Kind.OTHER),
    "a hello that is too long": (b"\x16\x03\x01\x02\x00\x01\x00\x40\x00", Kind.OTHER),
    "a hello of nothing": (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Kind.OTHER),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_what_it_is_shows_with_the_last_byte_that_it_takes_and_not_before(name):
    data, kind = FIRST_BYTES[name]
    assert sniff(data) is kind
    if kind in (Kind.DIRECT, Kind.GRPC, Kind.HTTPS):
        assert {sniff(data[:size]) for size in range(len(data))} == {None}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_what_follows_changes_nothing(name):
    data, kind = FIRST_BYTES[name]
    assert sniff(data + b"GET / HTTP/1.1\r\n") is (Kind.HTTP if name.startswith("PRI") else kind)


def test_a_large_hello_is_waited_for_up_to_the_bound():
    hello = client_hello("h2")
    # A padding extension (RFC 7685), as clients with large key shares come close to.
    body = hello[9:]
    head = 34 + 1 + body[34]
    head += 2 + int.from_bytes(body[head : head + 2], "big")
    head += 1 + body[head]
    extensions = body[head + 2 :] + (21).to_bytes(2, "big") + (12_000).to_bytes(2, "big") + bytes(12_000)
    body = body[:head] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    large = b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
    assert sniff(large[:-1]) is None
    assert sniff(large) is Kind.GRPC
    endless = in_records(b"\x16\x03\x01\x00\x00\x01\x00\x3f\xf0" + bytes(0x3FF0), 100)
    assert sniff(endless[: MOST_BYTES - 1]) is None
    assert sniff(endless[:MOST_BYTES]) is Kind.OTHER


def sniffer_of(data: bytes) -> Sniffer:
    sniffer = Sniffer()
    sniffer.feed(data)
    return sniffer


def test_no_byte_is_read_that_a_worker_has_to_read():
    assert [sniffer_of(DIRECT[:size]).readable for size in range(25)] == [24 - size for size in range(25)]
    assert sniffer_of(b"\x16").readable == MOST_BYTES - 1


def test_no_byte_is_read_beyond_a_preamble_that_names_a_server():
    named = write_preamble(bytes(16), "sim-home")
    assert [sniffer_of(named[:size]).readable for size in range(24, 34)] == [1, *range(8, -1, -1)]
    assert sniffer_of(named).preamble == (bytes(16), "sim-home")


def test_what_comes_byte_by_byte_in_tiny_records_is_looked_at_once():
    """Else the last of these bytes cost the server 15 ms each, and all of them a minute."""
    endless = in_records(b"\x16\x03\x01\x00\x00\x01\x00\x3f\xf0" + bytes(0x3FF0), 1)[:MOST_BYTES]
    sniffer = Sniffer()
    begun = time.process_time()
    kinds = [sniffer.feed(endless[at : at + 1]) for at in range(MOST_BYTES)]
    assert time.process_time() - begun < scaled(1.0)
    assert kinds == [None] * (MOST_BYTES - 1) + [Kind.OTHER]


@given(
    st.one_of(
        st.binary(),
        st.sampled_from([data for data, _ in FIRST_BYTES.values()]).flatmap(
            lambda data: st.tuples(st.integers(0, len(data)), st.binary(max_size=60)).map(
                lambda change: data[: change[0]] + change[1] + data[change[0] + len(change[1]) :]
            )
        ),
    ),
    st.integers(1, 40),
)
def test_it_is_the_same_in_whatever_parts_it_comes_and_there_is_always_more_to_read_until_it_is_known(data, size):
    kinds = [sniff(data[:end]) for end in range(len(data) + 1)]
    known = [kind for kind in kinds if kind is not None]
    assert kinds == [None] * (len(kinds) - len(known)) + known
    assert len(set(known)) <= 1
    sniffer = Sniffer()
    for begin in range(0, len(data), size):
        assert sniffer.kind is not None or sniffer.readable > 0
        assert sniffer.feed(data[begin : begin + size]) is kinds[min(begin + size, len(data))]
