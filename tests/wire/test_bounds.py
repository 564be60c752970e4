"""Values are counted before they cost memory, and what honest peers send is let through."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tracemalloc

import gymnasium as gym
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.bounds import COUNTED, VALUE, _is_repeated, _shape_of, check_items
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.encoding import encode_space
from remote_gym.wire.splice import parse_response
from remote_gym.wire.values import encode_value
from remote_gym.wire.varint import varint
from wire.examples import ANY_VALUE

ALL = [getattr(module, name) for module in (pb, worker_pb2) for name in module.DESCRIPTOR.message_types_by_name]
"""Every kind of message, as classes."""


def length_delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def values_of(count: int) -> pb.Value:
    return pb.Value(list=pb.List(items=[pb.Value()] * count))


def test_no_message_can_hold_its_like_without_being_counted():
    """So what is not counted is bounded by what is, and by the sizes of the descriptors."""

    def free_of(descriptor):
        for field in descriptor.fields:
            inner = field.message_type
            if inner is not None and not _is_repeated(field) and inner.full_name not in COUNTED:
                yield inner

    def longest_chain(descriptor, seen=()):
        assert descriptor.full_name not in seen, f"{descriptor.full_name} holds itself: {seen}"
        return 1 + max(
            (longest_chain(inner, (*seen, descriptor.full_name)) for inner in free_of(descriptor)), default=0
        )

    assert max(longest_chain(message_class.DESCRIPTOR) for message_class in ALL) < 8


@pytest.mark.parametrize("size", [2**10, 2**22])
@given(data=st.binary(max_size=64), kind=st.sampled_from(ALL))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_walked_to_the_end_or_refused(data, kind, size):
    """In a time that grows with the bytes: by their square, 4 MiB would not end within the time that a test has."""
    data = data * (size // (len(data) or 1))
    with contextlib.suppress(EncodingError):
        check_items(kind, data, Limits(items=100_000))


@given(st.binary(max_size=200), st.sampled_from(ALL))
def test_what_protobuf_parses_is_counted_and_not_taken_for_damaged(data, kind):
    try:
        message = kind.FromString(data)
    except Exception:  # noqa: BLE001  whatever its implementation raises
        return
    if b"\x0b" not in data and not any(byte & 7 in (3, 4) for byte in data):  # groups, which nobody writes
        check_items(kind, message.SerializeToString(), Limits(items=1000))


@given(ANY_VALUE)
def test_what_this_package_encodes_is_let_through_by_as_many_values_as_it_holds(value):
    message = pb.Value()
    encode_value(value, message, strict=True, limits=Limits())
    held = count(message)
    check_items(pb.Value, message.SerializeToString(), Limits(items=held))


def count(message: Message) -> int:
    """Messages, texts and numbers within it: no fewer than there are values."""
    total = 1
    for field, value in message.ListFields():
        for inner in value if _is_repeated(field) else (value,):
            total += count(inner) if isinstance(inner, Message) else 1
    return total


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Dict({str(i): gym.spaces.Box(0, 1, (3,)) for i in range(50)}),
        gym.spaces.Tuple([gym.spaces.Discrete(3)] * 50),
    ],
)
def test_spaces_are_let_through(space):
    data = encode_space(space, Limits()).SerializeToString()
    check_items(pb.Space, data, Limits(items=200))
    with pytest.raises(EncodingError, match=r"more than 20 values \(Limits.items\)"):
        check_items(pb.Space, data, Limits(items=20))


HOSTILE = {
    "values": (pb.Value, values_of(5000).SerializeToString()),
    "values of a response": (
        pb.Response,
        pb.Response(sequence=1, step=pb.Transition(info=values_of(5000))).SerializeToString(),
    ),
    "names": (pb.Value, pb.Value(dict=pb.Dict(names=[""] * 20_000)).SerializeToString()),
    "transitions": (
        pb.Response,
        pb.Response(step_many=pb.StepManyResponse(transitions=[pb.Transition()] * 5000)).SerializeToString(),
    ),
    "spaces": (pb.Space, pb.Space(tuple=pb.TupleSpace(spaces=[pb.Space()] * 5000)).SerializeToString()),
    "versions": (
        worker_pb2.Opening,
        worker_pb2.Opening(versions={str(i): "" for i in range(5000)}).SerializeToString(),
    ),
    "numbers of a shape": (pb.Array, pb.Array(shape=[1] * 500_000).SerializeToString()),
    "a oneof that changes its mind": (
        pb.Value,
        5000 * (length_delimited(9, b"") + length_delimited(11, b"")),
    ),
    "a message that comes again and again": (pb.Request, 5000 * length_delimited(2, b"")),
    "graphs within graphs": (pb.Value, None),
}


def graphs(depth: int) -> bytes:
    inner = b"" if depth == 0 else graphs(depth - 1)
    return length_delimited(15, b"".join(length_delimited(number, inner) for number in (1, 2, 3)))


HOSTILE["graphs within graphs"] = (pb.Value, graphs(8))


@pytest.mark.parametrize("what", HOSTILE)
def test_many_of_anything_are_refused_before_they_are_parsed(what):
    kind, data = HOSTILE[what]
    with pytest.raises(EncodingError, match=r"more than 1000 values \(Limits.items\)"):
        parse(kind, data, Limits(items=1000))
    kind.FromString(data)  # which would have taken it
    check_items(kind, data, Limits(items=100_000))


def test_a_response_that_is_taken_apart_is_bounded_too():
    data = pb.Response(sequence=1, step=pb.Transition(info=values_of(20_000), packed=b"")).SerializeToString()
    rest = pb.Transition(info=values_of(20_000)).SerializeToString()
    large = length_delimited(1, bytes(2**16))
    spliced = b"\x08\x01" + length_delimited(3, rest + large)
    for message in (data, spliced):
        with pytest.raises(EncodingError, match="more than 1000 values"):
            parse_response(message, Limits(items=1000))
        assert len(parse_response(message, Limits(items=100_000))[0].step.info.list.items) == 20_000


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x4a\xff\xff\x7f",
        b"\x4a\x04\x0a\x7f\x00\x00",
        b"\x4a\xff",
        b"\x80",
        b"\x08\x80",
        b"\x0b\x0c",
        b"\x4a" + 12 * b"\xff",
    ],
)
def test_what_ends_early_or_overlaps_is_refused(damaged):
    with pytest.raises(EncodingError):
        check_items(pb.Value, damaged, Limits(items=1))


def test_a_large_field_of_bytes_is_neither_copied_nor_walked():
    data = pb.Response(sequence=1, step=pb.Transition(packed=bytes(2**26))).SerializeToString()
    lines = 0

    def count(*_):
        nonlocal lines
        lines += 1
        return count

    traced = sys.gettrace()
    tracemalloc.start()
    sys.settrace(count)
    try:
        check_items(pb.Response, data, Limits())
    finally:
        sys.settrace(traced)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert lines < 1000
    assert peak < 2**20


def test_deep_nesting_is_refused_as_protobuf_does():
    data = b""
    for _ in range(60):
        data = length_delimited(9, length_delimited(1, data))
    with pytest.raises(EncodingError, match="deeper than 100 levels"):
        check_items(pb.Value, data, Limits(items=1000))


SCRIPT = """
import resource, sys
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.errors import EncodingError
from remote_gym.wire.varint import varint
def framed(tag, data): return varint(tag) + varint(len(data)) + data
values = framed(0x4a, b"\\x0a\\x00" * (48 * 2**19))
data = b"\\x08\\x01" + framed(0x1a, framed(0x4a, values))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    parse(pb.Response, data)
    print("parsed")
except EncodingError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_response_of_tiny_values_costs_a_client_no_more_than_itself():
    """Peak memory, in a process of its own: parsed first, 48 MiB took 1.2 GiB."""
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(result.stdout) * unit < 16 * 2**20


def test_the_shape_of_a_value_is_what_the_specification_says():
    shape = _shape_of(pb.Value.DESCRIPTOR)
    assert shape.free == 1, "one kind"
    assert shape.costs[9] == 0, "a list itself"
    assert shape.kinds[9].costs == {1: VALUE}
    assert _shape_of(pb.Graph.DESCRIPTOR).costs == {1: VALUE, 2: VALUE, 3: VALUE}
