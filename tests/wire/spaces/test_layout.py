"""Which elements are packed, into which bytes, and what comes out."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given

from remote_gym.errors import EncodingError
from remote_gym.wire.spaces.layout import compile_layout
from wire.examples import ANY_SPACE, SPACES, arrays_in, plain, same

FIXED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def has_packed_form(space: gym.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return all(map(has_packed_form, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return all(map(has_packed_form, space.spaces))
    return isinstance(space, FIXED)


PACKED = {name: space for name, space in SPACES.items() if has_packed_form(space)}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_space_has_a_packed_form_if_all_its_members_do(space: gym.Space[Any]) -> None:
    layout = compile_layout(space)
    assert layout.space is space
    assert (layout.size is not None) == has_packed_form(space)


@pytest.mark.parametrize("space", PACKED.values(), ids=PACKED)
def test_what_is_packed_comes_out_unchanged(space: gym.Space[Any]) -> None:
    layout = compile_layout(space)
    for _ in range(4):
        element = plain(space.sample())
        if type(element) is not np.ndarray and isinstance(space, spaces.Box):
            element = np.asarray(element)  # Gymnasium samples a scalar from an integer box of shape ()
        packed = layout.pack(element)
        assert packed is not None
        assert len(packed) == layout.size
        assert same(layout.unpack(packed), element)


@given(ANY_SPACE)
def test_any_sample_is_packed_or_left_alone(space: gym.Space[Any]) -> None:
    layout = compile_layout(space)
    element = plain(space.sample())
    packed = layout.pack(element)
    if packed is None:
        assert layout.size is None or "int" in repr(space) or "bool" in repr(space)
    else:
        assert same(layout.unpack(packed), element)


def test_the_bytes_are_those_of_the_specification() -> None:
    space = spaces.Dict(
        [
            ("image", spaces.Box(0, 255, (2, 2), np.uint16)),
            ("rest", spaces.Tuple([spaces.Discrete(9), spaces.Box(0, 1, (2,), bool), spaces.MultiBinary(1)])),
        ]
    )
    image = np.array([[1, 2], [3, 0x0405]], np.uint16)
    element = {"image": image, "rest": (np.int64(-2), np.array([True, False]), np.array([1], np.int8))}
    packed = bytes.fromhex("0100 0200 0300 0504  feffffffffffffff  01 00  01")
    assert compile_layout(space).pack(element) == packed
    assert same(compile_layout(space).unpack(packed), element)


def test_arrays_come_out_writable_and_share_no_memory() -> None:
    layout = compile_layout(PACKED["tuple"])
    data = layout.pack(PACKED["tuple"].sample())
    assert data is not None
    arrays = arrays_in([layout.unpack(data), layout.unpack(data)])
    assert all(array.flags.writeable and array.flags.aligned and array.flags.owndata for array in arrays)
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(arrays, 2))


def test_arrays_in_any_memory_order_are_packed_in_c_order() -> None:
    layout = compile_layout(spaces.Box(0, 255, (3, 4), np.uint8))
    array = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert layout.pack(array) == bytes(range(12))


BOX, DISCRETE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)
DICT = spaces.Dict([("b", DISCRETE), ("a", BOX)])
TUPLE = spaces.Tuple([DISCRETE, BOX])
GOOD = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("space", "element"),
    [
        (BOX, [0.0, 0.0]),
        (BOX, np.zeros(2)),
        (BOX, np.zeros(2, ">f4")),
        (BOX, np.zeros((2, 1), np.float32)),
        (BOX, np.ma.zeros(2, np.float32)),
        (BOX, None),
        (DISCRETE, 1),
        (DISCRETE, True),
        (DISCRETE, np.int32(1)),
        (DISCRETE, np.array(1)),
        (DICT, {"a": GOOD, "b": np.int64(1)}),
        (spaces.Dict([("b", BOX), ("a", BOX)]), {"a": GOOD, "b": GOOD}),
        (DICT, {"b": np.int64(1)}),
        (DICT, {"b": np.int64(1), "a": [0, 0]}),
        (DICT, [("b", np.int64(1)), ("a", GOOD)]),
        (TUPLE, [np.int64(1), GOOD]),
        (TUPLE, (np.int64(1),)),
        (TUPLE, (1, GOOD)),
        (spaces.Text(3), "a"),
        (spaces.Box(0, 1, (1,), np.dtype(">f8")), np.zeros(1, ">f8")),
    ],
)
def test_what_the_space_would_not_sample_itself_is_not_packed(space: gym.Space[Any], element: Any) -> None:
    assert compile_layout(space).pack(element) is None


def test_an_ordered_dict_is_packed_as_a_dict() -> None:
    layout = compile_layout(DICT)
    packed = layout.pack(OrderedDict(b=np.int64(1), a=GOOD))
    assert packed is not None
    assert same(layout.unpack(packed), {"b": np.int64(1), "a": GOOD})


def test_elements_out_of_bounds_are_packed() -> None:
    assert compile_layout(BOX).pack(np.full(2, 7, np.float32)) is not None
    assert compile_layout(DISCRETE).pack(np.int64(-9)) is not None


@pytest.mark.parametrize("space", PACKED.values(), ids=PACKED)
def test_another_number_of_bytes_is_refused(space: gym.Space[Any]) -> None:
    layout = compile_layout(space)
    assert layout.size is not None
    for size in {0, layout.size - 1, layout.size + 1} - {layout.size, -1}:
        with pytest.raises(EncodingError, match=f"not {size}"):
            layout.unpack(bytes(size))


def test_bools_other_than_0_and_1_are_refused() -> None:
    with pytest.raises(EncodingError, match="bool"):
        compile_layout(SPACES["tuple"]).unpack(bytes(12) + b"\0\2\0")


def test_a_space_without_packed_form_unpacks_nothing() -> None:
    with pytest.raises(EncodingError, match="no packed form"):
        compile_layout(spaces.Text(3)).unpack(b"")
