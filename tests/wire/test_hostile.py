"""Whatever bytes come in, every decoder answers with a result or an `EncodingError`, soon and in little memory."""

from __future__ import annotations

import contextlib
import sys
import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from gymnasium import spaces
from hypothesis import example, given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, InvalidAction
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.frames import decode_frame
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.elements import decode_action, decode_observation, encode_observation
from remote_gym.wire.spaces.encoding import decode_space, encode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import decode_array, decode_value, encode_value, remote_type
from wire.examples import ANY_SPACE, ANY_VALUE, LIMITS, SPACES, seeded

SMALL = Limits(message_bytes=2**20, items=2**12, array_bytes=2**20, text_length=2**16)
LAYOUTS = [compile_layout(space) for space in SPACES.values()]

Decoder = Callable[[Any], object]
DECODERS: list[tuple[type[Message], Decoder]] = [
    (pb.Value, lambda message: decode_value(message, SMALL)),
    (pb.Array, lambda message: decode_array(message, SMALL)),
    (pb.Space, lambda message: decode_space(message, SMALL)),
    (pb.Frame, lambda message: decode_frame(message, SMALL)),
    (pb.ErrorDetail, lambda message: decode_error(message)),
    (pb.Transition, lambda message: [_decode_observation(layout, message) for layout in LAYOUTS]),
    (pb.StepRequest, lambda message: [_decode_action(layout, message) for layout in LAYOUTS]),
]


def _decode_observation(layout: Any, message: pb.Transition) -> None:
    with contextlib.suppress(EncodingError):
        decode_observation(layout, message, SMALL)


def _decode_action(layout: Any, message: pb.StepRequest) -> None:
    with contextlib.suppress(EncodingError, InvalidAction):
        decode_action(layout, message, SMALL)


def decode_everything(data: bytes) -> None:
    """Any exception other than an `EncodingError` fails the test."""
    for message_class, decode in DECODERS:
        with contextlib.suppress(EncodingError):
            decode(parse(message_class, data))


@st.composite
def mutations(draw: st.DrawFn, encoded: st.SearchStrategy[bytes]) -> bytes:
    """Cut short, with bytes changed, inserted or left out."""
    data = bytearray(draw(encoded))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["cut", "set", "insert", "remove"]))
        if kind == "cut":
            del data[place:]
        elif kind == "set" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=4))
        else:
            del data[place : place + draw(st.integers(1, 4))]
    return bytes(data)


def encoded_value(value: Any) -> bytes:
    message = pb.Value()
    encode_value(value, message, strict=True, limits=LIMITS)
    return message.SerializeToString()


def encoded_space(space: Any) -> bytes:
    return encode_space(space, LIMITS).SerializeToString()


def encoded_observation(space: Any) -> bytes:
    message = pb.Transition()
    encode_observation(compile_layout(space), seeded(space).sample(), message, LIMITS)
    return message.SerializeToString()


@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes(data: bytes) -> None:
    decode_everything(data)


@given(mutations(ANY_VALUE.map(encoded_value)))
def test_mutated_values(data: bytes) -> None:
    decode_everything(data)


@given(mutations(ANY_SPACE.map(encoded_space)))
def test_mutated_spaces(data: bytes) -> None:
    decode_everything(data)


@given(mutations(st.sampled_from(list(SPACES.values())).map(encoded_observation)))
def test_mutated_elements(data: bytes) -> None:
    decode_everything(data)


INTEGERS = st.integers(0, 2**64 - 1) | st.integers(0, 40) | st.sampled_from([2**31, 2**32, 2**63, 2**64 - 1])
MESSAGES = st.builds(
    lambda **fields: pb.Array(**fields),
    dtype=st.integers(0, 23),
    unit=st.sampled_from(["", "", "D", "ns", "as", "generic", "x"]),
    unit_count=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    shape=st.lists(INTEGERS, max_size=4) | st.lists(st.integers(0, 3), max_size=40),
    data=st.binary(max_size=64),
    item_length=st.integers(0, 2**32 - 1) | st.integers(0, 4),
    big_endian=st.booleans(),
)


@given(MESSAGES)
def test_arrays_of_any_shape_and_dtype(message: pb.Array) -> None:
    for data in (message, pb.Value(array=message), pb.Value(scalar=message), pb.Frame(array=message)):
        decode_everything(data.SerializeToString())


@given(INTEGERS, st.lists(INTEGERS, max_size=3), st.integers(0, 20), st.binary(max_size=16))
def test_spaces_of_any_numbers(number: int, shape: list[int], dtype: Any, data: bytes) -> None:
    signed = number - 2**63
    for space in (
        pb.Space(
            box=pb.BoxSpace(dtype=dtype, shape=shape, low=data, high=data, bounded_below=b"\1", bounded_above=b"")
        ),
        pb.Space(discrete=pb.DiscreteSpace(n=signed, start=-signed - 1, dtype=dtype)),
        pb.Space(multi_discrete=pb.MultiDiscreteSpace(shape=shape, dtype=dtype, nvec=data, start=data)),
        pb.Space(multi_binary=pb.MultiBinarySpace(shape=shape)),
        pb.Space(text=pb.TextSpace(min_length=number, max_length=number, characters="ab")),
    ):
        decode_everything(space.SerializeToString())


def nested_lists(depth: int) -> pb.Value:
    value = outermost = pb.Value()
    for _ in range(depth):
        value = value.list.items.add()
    value.boolean = True
    return outermost


def test_nesting_beyond_the_limit_is_refused() -> None:
    decode_value(nested_lists(32), LIMITS)
    with pytest.raises(EncodingError, match="deeper than 32"):
        decode_value(nested_lists(33), LIMITS)


def test_nesting_without_end_is_refused() -> None:
    data = b""
    for _ in range(5000):
        # A value (9, a list) of that length, whose items (1) are one value of what was there before.
        data = b"\x4a" + _delimited(b"\x0a" + _delimited(data))
    with pytest.raises(EncodingError, match="no Value message"):
        parse(pb.Value, data)


def _delimited(data: bytes) -> bytes:
    size, prefix = len(data), bytearray()
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    return bytes([*prefix, size]) + data


ONE = pb.Value(integer=1)
FOUR = pb.Array(dtype=pb.UINT8, shape=[4], data=b"abcd")


def field(**changed: Any) -> pb.StructuredArray:
    """A structured array of one field, with something wrong about it."""
    right: dict[str, Any] = {"shape": [4], "offsets": [0], "columns": [pb.Value(array=FOUR)], "item_size": 1}
    return pb.StructuredArray(names=["a"], **{**right, **changed})


def named_tuple(*fields: str, count: int = 1) -> pb.Value:
    items = pb.Value(tuple=pb.List(items=[ONE] * count))
    return pb.Value(named=pb.Named(type="a.B", form=pb.Named.NAMED_TUPLE, value=items, fields=fields))


REFUSED = {
    "no-kind": pb.Value(),
    "no-kind-within": pb.Value(list=pb.List(items=[pb.Value()])),
    "uneven-dict": pb.Value(dict=pb.Dict(names=["a"])),
    "both-keys": pb.Value(dict=pb.Dict(names=["a"], keys=[pb.Value(integer=1)], values=[pb.Value(integer=1)] * 2)),
    "name-twice": pb.Value(dict=pb.Dict(names=["a", "a"], values=[pb.Value(integer=1)] * 2)),
    "key-twice": pb.Value(
        dict=pb.Dict(keys=[pb.Value(integer=1), pb.Value(number=1.0)], values=[pb.Value(integer=1)] * 2)
    ),
    "key-unhashable": pb.Value(dict=pb.Dict(keys=[pb.Value(list=pb.List())], values=[pb.Value(integer=1)])),
    "name-long": pb.Value(dict=pb.Dict(names=["a" * 2**17], values=[pb.Value(integer=1)])),
    "text-long": pb.Value(text="a" * 2**17),
    "surrogates-long": pb.Value(surrogate_text=b"a" * 2**17),
    "surrogates-no-utf8": pb.Value(surrogate_text=b"\xff"),
    "integer-long": pb.Value(big_integer=b"a" * 2**17),
    "objects-short": pb.Value(object_array=pb.ObjectArray(shape=[2], items=[pb.Value(integer=1)])),
    "objects-giant": pb.Value(object_array=pb.ObjectArray(shape=[2**40])),
    "objects-empty-giant": pb.Value(object_array=pb.ObjectArray(shape=[0, 2**40])),
    "items": pb.Value(list=pb.List(items=[pb.Value(boolean=True)] * 2**12)),
    "array-no-dtype": pb.Value(array=pb.Array(data=b"")),
    "array-short": pb.Value(array=pb.Array(dtype=pb.INT16, shape=[2], data=b"abc")),
    "array-bool": pb.Value(array=pb.Array(dtype=pb.BOOL, shape=[1], data=b"\2")),
    "array-code-point": pb.Value(array=pb.Array(dtype=pb.TEXT, item_length=1, data=b"\0\0\x11\0")),
    "array-item-length": pb.Value(array=pb.Array(dtype=pb.TEXT, item_length=2, data=b"a\0\0\0")),
    "array-item-length-giant": pb.Value(array=pb.Array(dtype=pb.TEXT, item_length=2**32 - 1, shape=[0])),
    "array-needless-item-length": pb.Value(array=pb.Array(dtype=pb.INT8, item_length=1, data=b"a")),
    "scalar-shape": pb.Value(scalar=pb.Array(dtype=pb.INT8, shape=[1], data=b"a")),
    "scalar-code-point": pb.Value(scalar=pb.Array(dtype=pb.TEXT, item_length=1, data=b"\0\0\x11\0")),
    "graph-empty": pb.Value(graph=pb.Graph()),
    "unit-unknown": pb.Value(array=pb.Array(dtype=pb.DATETIME64, unit="fortnight")),
    "unit-of-a-number": pb.Value(array=pb.Array(dtype=pb.INT64, unit="D", shape=[0])),
    "unit-count-giant": pb.Value(array=pb.Array(dtype=pb.TIMEDELTA64, unit="D", unit_count=2**31, shape=[0])),
    "unit-evaluated": pb.Value(array=pb.Array(dtype=pb.DATETIME64, unit="D],i4[", shape=[0])),
    "long-float-format": pb.Value(array=pb.Array(dtype=pb.LONG_FLOAT, item_length=12, shape=[1], data=bytes(12))),
    "long-float-unnormal": pb.Value(
        array=pb.Array(dtype=pb.LONG_FLOAT, item_length=10, shape=[1], data=bytes(9) + b"\1")
    ),
    "set-twice": pb.Value(set=pb.List(items=[ONE, pb.Value(number=1.0)])),
    "set-unhashable": pb.Value(frozen_set=pb.List(items=[pb.Value(list=pb.List())])),
    "deque-overfull": pb.Value(deque=pb.Deque(items=[ONE, ONE], max_length=1)),
    "deque-giant": pb.Value(deque=pb.Deque(max_length=2**64 - 1)),
    "decimal-words": pb.Value(decimal="one"),
    "decimal-underscores": pb.Value(decimal="1_0"),
    "decimal-spaces": pb.Value(decimal=" 1"),
    "decimal-other-digits": pb.Value(decimal="\u0661"),
    "decimal-exponent": pb.Value(decimal="1E+99999999999999999999"),
    "decimal-long": pb.Value(decimal="1" * 2**17),
    "fraction-zero": pb.Value(fraction=pb.Fraction(numerator=b"\1", denominator=b"\0")),
    "fraction-negative": pb.Value(fraction=pb.Fraction(numerator=b"\1", denominator=b"\xff")),
    "fraction-not-lowest": pb.Value(fraction=pb.Fraction(numerator=b"\2", denominator=b"\4")),
    "fraction-long": pb.Value(fraction=pb.Fraction(numerator=b"\1" * 1025, denominator=b"\1")),
    "path-no-utf8": pb.Value(path=pb.Path(text=b"\xff")),
    "path-long": pb.Value(path=pb.Path(text=b"a" * 2**17)),
    "date-none": pb.Value(date=pb.Date(year=2026, month=2, day=30)),
    "time-none": pb.Value(time=pb.Time(hour=24)),
    "time-in-no-zone": pb.Value(time=pb.Time(zone=pb.Zone())),
    "time-beyond-zones": pb.Value(time=pb.Time(zone=pb.Zone(offset=86_400_000_000))),
    "zone-giant": pb.Value(time=pb.Time(zone=pb.Zone(offset=2**62))),
    "zone-name-long": pb.Value(time=pb.Time(zone=pb.Zone(offset=0, name="a" * 1000))),
    "timedelta-long": pb.Value(timedelta=pb.TimeDelta(days=2**31 - 1)),
    "timedelta-odd": pb.Value(timedelta=pb.TimeDelta(seconds=86_400)),
    "range-step": pb.Value(range=pb.Range(stop=1)),
    "masked-list": pb.Value(masked_array=pb.MaskedArray(data=ONE)),
    "masked-mask": pb.Value(masked_array=pb.MaskedArray(data=pb.Value(array=FOUR), mask=pb.Value(array=FOUR))),
    "masked-fill": pb.Value(masked_array=pb.MaskedArray(data=pb.Value(array=FOUR), fill_value=ONE)),
    "structured-uneven": pb.Value(structured_array=pb.StructuredArray(names=["a"])),
    "structured-shape": pb.Value(structured_array=field(shape=[3])),
    "structured-twice": pb.Value(
        structured_array=pb.StructuredArray(
            shape=[4], names=["a", "a"], offsets=[0, 1], columns=[pb.Value(array=FOUR)] * 2, item_size=2
        )
    ),
    "structured-overlap": pb.Value(
        structured_array=pb.StructuredArray(
            shape=[4], names=["a", "b"], offsets=[0, 0], columns=[pb.Value(array=FOUR)] * 2, item_size=2
        )
    ),
    "structured-gaps": pb.Value(structured_array=field(item_size=4)),
    "structured-short": pb.Value(structured_array=field(item_size=0)),
    "structured-far": pb.Value(structured_array=field(offsets=[2**63])),
    "structured-of-lists": pb.Value(structured_array=field(columns=[pb.Value(list=pb.List())])),
    "structured-giant": pb.Value(structured_array=pb.StructuredArray(shape=[2**40])),
    "structured-item-giant": pb.Value(structured_array=pb.StructuredArray(shape=[0], item_size=2**64 - 1)),
    "named-none": pb.Value(named=pb.Named(type="a.B")),
    "named-bool": pb.Value(named=pb.Named(type="a.B", value=pb.Value(boolean=True))),
    "named-long": pb.Value(named=pb.Named(type="a" * 2**17, value=ONE)),
    "named-form": pb.Value(named=pb.Named(type="a.B", form=9, value=ONE)),
    "named-twice": pb.Value(named=pb.Named(type="a.B", value=pb.Value(named=pb.Named(type="a.C", value=ONE)))),
    "tuple-names": named_tuple("x", "y"),
    "tuple-name-twice": named_tuple("x", "x", count=2),
    "tuple-name-hidden": named_tuple("__class__"),
    "tuple-name-evaluated": named_tuple("x: __import__('os')"),
    "record-list": pb.Value(named=pb.Named(type="a.B", form=pb.Named.RECORD, value=ONE)),
}


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
def test_a_value_that_no_sender_writes_is_refused(message: pb.Value) -> None:
    with pytest.raises(EncodingError):
        decode_value(message, SMALL)


def test_keys_chosen_to_collide_take_no_time() -> None:
    modulus = 2**61 - 1
    message = pb.Value()
    for factor in range(50_000):
        encode_value(factor * modulus, message.dict.keys.add(), strict=True, limits=LIMITS)
        message.dict.values.add().boolean = True
    begun = time.thread_time()
    with pytest.raises(EncodingError, match="same hash"):
        decode_value(message, LIMITS)
    assert time.thread_time() - begun < 5


def test_a_small_message_takes_little_memory() -> None:
    """Bounds that travel as one element are what a peer can multiply most."""
    shape = [SMALL.array_bytes // 4]
    one = pb.BoxSpace(dtype=pb.UINT8, shape=shape, low=b"\0", high=b"\1", bounded_below=b"\1", bounded_above=b"\1")
    data = pb.Space(tuple=pb.TupleSpace(spaces=[pb.Space(box=one)] * 50)).SerializeToString()
    tracemalloc.start()
    with pytest.raises(EncodingError):
        decode_space(parse(pb.Space, data), SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * SMALL.array_bytes


def test_gaps_of_structured_arrays_take_little_memory() -> None:
    one = pb.Array(dtype=pb.UINT8, shape=[SMALL.array_bytes // 8], data=bytes(SMALL.array_bytes // 8))
    message = field(shape=one.shape, columns=[pb.Value(array=one)], item_size=3)
    data = pb.Value(list=pb.List(items=[pb.Value(structured_array=message)] * 8)).SerializeToString()
    tracemalloc.start()
    decode_value(parse(pb.Value, data), SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(data)


def test_items_of_a_set_chosen_to_collide_take_no_time() -> None:
    message = pb.Value()
    for factor in range(50_000):
        encode_value(factor * (2**61 - 1), message.frozen_set.items.add(), strict=True, limits=LIMITS)
    begun = time.thread_time()
    with pytest.raises(EncodingError, match="same hash"):
        decode_value(message, LIMITS)
    assert time.thread_time() - begun < 5


def test_the_largest_fractions_take_little_time() -> None:
    message = pb.Value()
    for _ in range(1000):
        encode_value(Fraction(3**5000, 2**8000), message.list.items.add(), strict=True, limits=LIMITS)
    begun = time.thread_time()
    decode_value(message, LIMITS)
    assert time.thread_time() - begun < 1


def test_no_name_makes_a_class_or_loads_a_module() -> None:
    before = set(sys.modules)
    classes = set()
    for name in ("antigravity.fly", "os.system", "builtins.int", "decimal.Decimal"):
        value = decode_value(pb.Value(named=pb.Named(type=name, value=ONE)), LIMITS)
        assert value == 1
        assert remote_type(value) == name
        classes.add(type(value))
    assert len(classes) == 1
    assert set(sys.modules) == before


def test_a_hostile_action_for_a_box_takes_little_memory() -> None:
    layout = compile_layout(spaces.Box(0, 1, (1000,), np.float32))
    message = pb.StepRequest()
    message.value.list.items.add().text = "x" * 60_000
    for _ in range(999):
        message.value.list.items.add().boolean = True
    tracemalloc.start()
    with pytest.raises(InvalidAction):
        decode_action(layout, message, SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_bytes_that_are_no_message_name_it() -> None:
    with pytest.raises(EncodingError, match="Request"):
        parse(pb.Request, b"\xff\xff")
