"""Batched elements, divided among slices and joined again."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from environments import make_spaces
from remote_gym.config import Limits
from remote_gym.errors import EncodingError, InvalidAction
from remote_gym.testing import find_difference
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.batches import Part, compile_batch, join_spaces
from remote_gym.wire.spaces.elements import decode_action, encode_observation
from remote_gym.wire.spaces.layout import compile_layout

LIMITS = Limits()
SIZES = (2, 1, 3)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


def transitions(single, element):
    """What slices of those sizes would send of a batched element."""
    batch = compile_batch(single, batch_space(single, sum(SIZES)))
    start = 0
    for size in SIZES:
        request = pb.StepRequest()
        batch.encode(element, start, start + size, request, LIMITS)
        layout = compile_layout(batch_space(single, size))
        part = decode_action(layout, request, LIMITS)
        transition = pb.Transition()
        encode_observation(layout, part, transition, LIMITS)
        yield Part(size, transition)
        start += size


@pytest.mark.parametrize("name", make_spaces())
def test_what_is_divided_and_joined_again_is_the_same(name):
    single = make_spaces()[name]
    space = batch_space(single, sum(SIZES))
    element = space.sample()
    batch = compile_batch(single, space)
    assert find_difference(element, batch.join(list(transitions(single, element)), LIMITS)) is None
    assert find_difference(element, batch.fit(element, sum(SIZES))) is None


@pytest.mark.parametrize("name", make_spaces())
def test_spaces_of_slices_join_to_the_space_of_all(name):
    single = make_spaces()[name]
    joined = join_spaces(single, [batch_space(single, size) for size in SIZES])
    expected = batch_space(single, sum(SIZES))
    assert joined == expected
    for each in (joined, expected):
        each.seed(3)
    assert repr(joined.sample()) == repr(expected.sample())


def test_bounds_of_slices_are_kept():
    batches = [spaces.Box(0, high, (1, 2), np.int64) for high in (3, 5)]
    joined = join_spaces(spaces.Box(0, 3, (2,), np.int64), batches)
    assert joined.high.tolist() == [[3, 3], [5, 5]]


def test_infinite_bounds_of_integers_stay_infinite():
    single, *batches = (spaces.Box(-np.inf, np.inf, shape, np.int64) for shape in ((2,), (1, 2), (2, 2)))
    joined = join_spaces(single, batches)
    assert joined.shape == (3, 2)
    assert not joined.bounded_below.any()
    assert not joined.bounded_above.any()


@pytest.mark.parametrize(
    ("single", "space"),
    [
        (BOX, spaces.Box(-1.0, 1.0, (3, 5), np.float32)),
        (BOX, spaces.Box(-1.0, 1.0, (3, 2), np.float64)),
        (spaces.Discrete(2), spaces.Tuple([spaces.Discrete(2)])),
        (spaces.Dict(a=BOX), spaces.Dict(b=BOX)),
        (spaces.Tuple([BOX]), spaces.Tuple([])),
        (spaces.Tuple([BOX]), BOX),
    ],
)
def test_what_is_no_batch_is_refused(single, space):
    with pytest.raises(EncodingError, match="no batch of"):
        compile_batch(single, space)


def test_observations_of_another_size_or_kind_are_refused():
    batch = compile_batch(BOX, batch_space(BOX, 3))
    for packed in (b"", b"\0" * 23, b"\0" * 32):
        with pytest.raises(EncodingError, match="has 24 bytes"):
            batch.join([Part(3, pb.Transition(packed=packed))], LIMITS)
    with pytest.raises(EncodingError, match="no observation"):
        batch.join([Part(3, pb.Transition())], LIMITS)
    bits = spaces.Box(0, 1, (2,), np.bool_)
    with pytest.raises(EncodingError, match="neither 0 nor 1"):
        compile_batch(bits, batch_space(bits, 1)).join([Part(1, pb.Transition(packed=b"\1\2"))], LIMITS)


def test_a_packed_and_an_unpacked_slice_are_joined():
    single = spaces.Dict(a=BOX, b=spaces.Discrete(3))
    batch = compile_batch(single, batch_space(single, 3))
    first, second = pb.Transition(), pb.Transition()
    layout = compile_layout(batch_space(single, 1))
    encode_observation(layout, {"a": np.ones((1, 2), np.float32), "b": np.array([2])}, first, LIMITS)
    encode_observation(layout, {"b": np.array([1]), "a": np.zeros((1, 2), np.float32)}, second, LIMITS)
    assert (first.WhichOneof("observation"), second.WhichOneof("observation")) == ("packed", "value")
    joined = batch.join([Part(1, first), Part(1, second)], LIMITS)
    assert joined["a"].tolist() == [[1, 1], [0, 0]]
    assert joined["b"].tolist() == [2, 1]


def test_an_action_for_another_number_of_environments_does_not_fit():
    batch = compile_batch(BOX, batch_space(BOX, 3))
    with pytest.raises(InvalidAction, match=r"shape \(3, 2\)"):
        batch.fit(np.zeros((2, 2), np.float32), 3)
    assert batch.fit(np.zeros((2, 2), np.float32), 2).shape == (2, 2)
