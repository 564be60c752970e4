"""Requests in parts: what was cut is joined again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parts import PART_BYTES, Joining, announced, cut, is_part

LIMIT = 64


def join(messages: list[bytes], limit: int = 2**20) -> bytes | None:
    """As the server does; None where more would have to come."""
    size = announced(messages[0])
    if size > limit:
        raise EncodingError("too large")
    joining = Joining(size)
    for message in messages:
        assert joining.request is None, "more came than was asked for"
        joining.add(message)
    return None if joining.request is None else bytes(joining.request)


def part(**fields) -> bytes:
    return pb.Request(part=pb.Part(**fields)).SerializeToString()


@given(st.binary(max_size=1000), st.integers(33, 200))
def test_what_was_cut_is_joined(data, limit):
    messages = list(cut(data, limit))
    assert all(len(message) <= limit for message in messages)
    if len(data) <= limit:
        assert messages == [data]
    else:
        assert all(is_part(message) for message in messages)
        assert join(messages) == data
        assert join(messages[:-1]) is None


@given(st.binary(min_size=65, max_size=500))
def test_parts_are_what_the_protocol_says(data):
    """A client in another language writes them with the generated code."""
    parts = [pb.Request.FromString(message) for message in cut(data, LIMIT)]
    assert b"".join(request.part.data for request in parts) == data
    assert [request.part.size for request in parts] == [len(data)] + [0] * (len(parts) - 1)
    assert join([request.SerializeToString() for request in parts]) == data


def test_a_request_is_cut_into_pieces_that_are_soon_sent():
    data = bytes(3 * PART_BYTES)
    assert [len(message) for message in cut(data, 4 * 2**20)] == [len(data)]
    assert max(len(message) for message in cut(data, 2 * 2**20)) < PART_BYTES + 100
    assert list(cut(data, 0)) == [data], "an older server takes requests whole"


@pytest.mark.parametrize(
    "request_", [pb.Request(), pb.Request(sequence=1), pb.Request(reset=pb.ResetRequest()), pb.Request(frame=True)]
)
def test_no_other_request_looks_like_a_part(request_):
    assert not is_part(request_.SerializeToString())


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([part(data=b"a")], "does not tell the size"),
        ([part(size=3)], "damaged"),
        ([part(size=0, data=b"a")], "does not tell the size"),
        ([part(size=2, data=b"abc")], "3 bytes, and 2 were announced"),
        ([part(size=3, data=b"ab"), part(data=b"cd")], "4 bytes, and 3 were announced"),
        ([part(size=3, data=b"ab"), part(size=3, data=b"abc")], "another one begins"),
        ([part(size=3, data=b"ab"), part()], "damaged|another form"),
        ([part(size=3, data=b"ab"), pb.Request(sequence=2).SerializeToString()], "something else"),
        ([part(size=3, data=b"ab"), b""], "damaged"),
        ([part(size=3, data=b"abc") + b"\x08\x01"], "something else"),
        ([pb.Request(sequence=1, part=pb.Part(size=3, data=b"abc")).SerializeToString()], "something else"),
        ([b"\x7a"], "damaged"),
        ([b"\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"], "damaged"),
    ],
)
def test_what_is_no_part_of_the_request_is_refused(messages, expected):
    with pytest.raises(EncodingError, match=expected):
        join(messages)


@given(st.lists(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda data: b"\x7a" + data)), min_size=1))
def test_anything_else_is_refused_or_waited_for(messages):
    try:
        joined = join(messages[:1] + [message for message in messages[1:] if message], limit=1000)
    except (EncodingError, AssertionError):
        return
    assert joined is None or len(joined) == announced(messages[0])


def test_an_announced_size_costs_no_memory_by_itself():
    import tracemalloc

    import psutil

    tracemalloc.stop()
    before = psutil.Process().memory_info().rss
    joining = [Joining(2**28) for _ in range(8)]
    assert psutil.Process().memory_info().rss - before < 2**24
    assert all(one.request is None for one in joining)
