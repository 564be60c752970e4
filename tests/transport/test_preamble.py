"""Beginnings of direct connections, with and without a server's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.transport.direct_socket import PREAMBLE
from remote_gym.transport.preamble import MAGIC, Preamble, read_preamble, wanted_bytes, write_preamble

ID = bytes(range(16))


def test_without_a_name_it_is_what_every_release_knows():
    assert write_preamble(ID) == PREAMBLE + ID == b"rmtgym\x00\x01" + ID


@pytest.mark.parametrize("name", ["", "a", "sim-home.lab", "x" * 253])
def test_what_is_written_is_read_and_no_byte_more(name):
    data = write_preamble(ID, name)
    assert read_preamble(data) == read_preamble(data + b"more") == Preamble(ID, name)
    assert {read_preamble(data[:size]) for size in range(len(data))} == {None}
    # Whoever reads as many bytes as are wanted each time has it, and nothing of what follows.
    read = b""
    while len(read) < wanted_bytes(read):
        read = (data + b"more")[: wanted_bytes(read)]
    assert read == data


@pytest.mark.parametrize(
    "data",
    [MAGIC + b"\x00", MAGIC + b"\x03", b"x", MAGIC + b"\x02" + ID + b"\x00", MAGIC + b"\x02" + ID + b"\x02A\n"],
)
def test_what_is_none_is_refused(data):
    with pytest.raises(ValueError, match=r"version|names no server"):
        read_preamble(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_one_or_none(rest):
    for begin in (PREAMBLE, MAGIC + b"\x02"):
        try:
            found = read_preamble(begin + rest)
        except ValueError:
            continue
        if found is not None:
            assert (begin + rest).startswith(write_preamble(*found))
