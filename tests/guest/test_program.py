"""What is written and read by hand in a guest beside what protobuf writes and reads here, for anything at all."""

from __future__ import annotations

import ast
import sys
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import GraphInstance
from hypothesis import example, given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.guest import program
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.encoding import encode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import Unencodable, decode_value, encode_value, remote_type
from remote_gym.worker.environment.stacks import STACKS_SIGNAL
from wire.examples import (
    ANY_SPACE,
    ARRAYS,
    HASHABLE,
    LIMITS,
    OURS,
    SCALARS,
    SIMPLE,
    SPACES,
    STANDARD,
    SURROGATES,
    VOIDS,
    masked,
    plain,
    same,
    structured,
)

SMALL = Limits(depth=4, items=50, text_length=20, array_bytes=100)
LEAVES = st.one_of(
    VOIDS,
    VOIDS.map(lambda array: array[0]),
    SIMPLE,
    ARRAYS,
    SCALARS,
    st.binary().map(bytearray),
    structured(),
    masked(),
)
# In a place's time zone arrives the offset that it had, and a guest knows no zone of another name.
STANDARDS = STANDARD.filter(lambda value: getattr(value, "tzinfo", None) is None)
VALUES = st.recursive(
    LEAVES | STANDARDS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(SURROGATES, inner, max_size=4),
        st.dictionaries(SIMPLE, inner, max_size=4),
        st.sets(SIMPLE, max_size=4),
        st.frozensets(SIMPLE, max_size=4),
        st.builds(GraphInstance, ARRAYS, st.none() | ARRAYS, st.none() | ARRAYS),
        st.lists(inner, max_size=3).map(lambda items: np.fromiter(items, dtype=object, count=len(items))),
    ),
    max_leaves=8,
)


def written(value: Any, limits: Limits = LIMITS) -> Any:
    """A value as it arrives from a guest."""
    data = program.Writer(asdict(limits)).write(value)
    return decode_value(pb.Value.FromString(data), limits)


@given(VALUES)
def test_what_a_guest_writes_arrives_as_it_was(value):
    assert same(written(value), value)


@given(VALUES)
def test_what_a_guest_is_sent_arrives_as_it_was(value):
    message = pb.Value()
    encode_value(value, message, strict=True, limits=LIMITS)
    assert same(program.read_value(message.SerializeToString()), value)


@given(HASHABLE)
def test_keys_and_members_of_any_kind_can_be_read(value):
    data = program.Writer(asdict(LIMITS)).write({value: 1})
    decode_value(pb.Value.FromString(data), LIMITS)


@given(VALUES)
@example(Decimal("1" * 21))
@example(PurePosixPath("a" * 21))
@example(2**168)
@example(b"a" * 101)
@example(bytearray(101))
@example(np.str_("a" * 21))
def test_what_a_guest_writes_is_within_the_limits_that_it_was_told(value):
    written(value, SMALL)


def test_what_contains_itself_has_no_wire_form():
    inner: dict[str, Any] = {"a": 1}
    inner["again"] = [inner, 2]
    found = written(inner)
    assert found["a"] == 1
    assert isinstance(found["again"][0], Unencodable)
    assert found["again"][1] == 2


def test_where_it_is_strict_what_has_no_wire_form_raises_and_the_next_is_written_as_ever():
    writer = program.Writer(asdict(LIMITS))
    for value in ({"a": [object()]}, {"a": object(), "b": 1}, [np.zeros(2, "O"), lambda: 3]):
        with pytest.raises(program.NoWireForm):
            writer.write(value, True)
        assert decode_value(pb.Value.FromString(writer.write([1, {"a": 2}], True)), LIMITS) == [1, {"a": 2}]
    with pytest.raises(program.NoWireForm):
        program.Writer(asdict(SMALL)).write("x" * 30, True)


def test_a_class_that_raises_when_it_is_read_does_not_take_the_rest_with_it():
    class Odd(dict):
        def items(self):
            raise OSError("no")

        def __repr__(self):
            raise SystemExit(3)

    found = written({"odd": Odd(a=1), "b": [1, {"c": 2}]})
    assert found["odd"] == Unencodable(f"{__name__}.{Odd.__qualname__}", "<SystemExit in repr>")
    assert found["b"] == [1, {"c": 2}]


def test_an_instance_of_a_class_arrives_by_its_name_and_what_it_is_like():
    import enum
    from collections import OrderedDict, namedtuple
    from dataclasses import dataclass

    class Colour(enum.Enum):
        RED = 3

    class Level(enum.IntEnum):
        HIGH = 7

    @dataclass
    class Car:
        speed: float

    point = namedtuple("point", "x y")
    for value in (Colour.RED, Level.HIGH, Car(3.5), point(1, 2), OrderedDict(b=1, a=2)):
        message = pb.Value()
        encode_value(value, message, strict=True, limits=LIMITS)
        ours = decode_value(message, LIMITS)
        assert same(written(value), ours)
        assert remote_type(written(value)) == remote_type(ours)


@pytest.mark.parametrize("space", [space for name, space in SPACES.items() if name not in OURS])
def test_a_guest_writes_each_space_as_we_do(space):
    check_space(space)


@given(ANY_SPACE)
def test_a_guest_writes_any_space_as_we_do(space):
    check_space(space)


def check_space(space: gym.Space[Any]) -> None:
    message = pb.Space.FromString(program.write_space(space, program.Writer(asdict(LIMITS))))
    assert message == encode_space(space, LIMITS)
    layout, packing = compile_layout(space), program.packing(space)
    assert layout.size == (None if packing is None else packing[0])
    if packing is not None:
        _size, pack, read = packing
        space.seed(3)
        for sample in [plain(space.sample()) for _ in range(3)]:
            packed = pack(sample)
            assert packed == layout.pack(sample)
            if packed is not None:  # as a scalar of an integer box is not
                assert same(read(b"--" + packed, 2), sample)


def test_elements_that_are_not_canonical_are_not_packed():
    space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,)), "b": gym.spaces.Discrete(3)})
    packing = program.packing(space)
    assert packing is not None
    good = {"a": np.zeros(2, np.float32), "b": np.int64(1)}
    assert packing[1](good) is not None
    for change in ({"a": np.zeros(2)}, {"a": np.zeros(3, np.float32)}, {"b": 1}, {"a": [0.0, 0.0]}):
        assert packing[1]({**good, **change}) is None
    assert packing[1]({"b": good["b"], "a": good["a"]}) is None
    assert packing[1](("a", "b")) is None


def test_numbers_of_fields_are_those_of_the_protocol():
    fields = pb.Value.DESCRIPTOR.fields_by_name
    assert set(program.READERS) == {field.number for field in fields.values()}
    assert (
        program.DTYPES.items()
        <= {
            np.dtype(name.lower() if name != "BOOL" else "bool").str[1:]: number
            for name, number in pb.DType.items()
            if 1 <= number <= 14
        }.items()
    )
    kinds = pb.Space.DESCRIPTOR.fields_by_name
    names = {name: f"{name.lower()}" for name in program.SPACES}
    assert {names[name].replace("_", ""): field for name, (field, _) in program.SPACES.items()} == {
        name.replace("_", ""): field.number
        for name, field in kinds.items()
        if name != "image"  # a space of ours, which no other Python has
    }


def test_it_is_asked_for_its_stacks_as_a_worker_is():
    assert program.STACKS_SIGNAL == STACKS_SIGNAL


def test_it_is_written_for_python_3_6_and_imports_the_standard_library_and_numpy():
    source = Path(program.__file__).read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - {"numpy"} <= sys.stdlib_module_names
