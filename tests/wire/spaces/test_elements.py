"""Observations arrive as the environment returned them, actions as its space would have them."""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from hypothesis import given

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, InvalidAction, InvalidObservation
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.elements import decode_action, decode_observation, encode_action, encode_observation
from remote_gym.wire.spaces.encoding import decode_space, encode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import encode_value
from wire.examples import ANY_SPACE, ANY_VALUE, HAS_ONE_OF, LIMITS, SPACES, plain, same


def carry_observation(space: gym.Space[Any], observation: Any) -> Any:
    message = pb.Transition()
    encode_observation(compile_layout(space), observation, message, LIMITS)
    remote = compile_layout(decode_space(encode_space(space, LIMITS), LIMITS))
    return decode_observation(remote, parse(pb.Transition, message.SerializeToString()), LIMITS)


def carry_action(space: gym.Space[Any], action: Any) -> Any:
    message = pb.StepRequest()
    remote = compile_layout(decode_space(encode_space(space, LIMITS), LIMITS))
    encode_action(remote, action, message, LIMITS)
    return decode_action(compile_layout(space), parse(pb.StepRequest, message.SerializeToString()), LIMITS)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_samples_of_every_kind_of_space_arrive_unchanged(space: gym.Space[Any]) -> None:
    for _ in range(4):
        sample = space.sample()
        assert same(plain(carry_observation(space, sample)), plain(sample))
        assert same(carry_action(space, sample), plain(sample))


@given(ANY_SPACE)
def test_samples_of_any_space_arrive_unchanged(space: gym.Space[Any]) -> None:
    sample = space.sample()
    assert same(plain(carry_observation(space, sample)), plain(sample))
    assert same(carry_action(space, sample), plain(sample))


BOX = spaces.Box(-1, 1, (2,), np.float32)
BYTES = spaces.Box(0, 255, (2,), np.uint8)
SCALAR = spaces.Box(-1, 1, (), np.float32)
DISCRETE = spaces.Discrete(3)
DICT = spaces.Dict([("b", DISCRETE), ("a", BOX)])
TUPLE = spaces.Tuple([DISCRETE, BOX])
STACK = spaces.Sequence(spaces.Dict({"x": BOX, "y": spaces.Tuple([DISCRETE])}), stack=True)
GRAPH = spaces.Graph(BOX, DISCRETE)
NODES, EDGES, LINKS = np.zeros((3, 2), np.float32), np.zeros(1, np.int64), np.zeros((1, 2), np.int32)
GOOD = np.array([0.5, 0], np.float32)


class Move(enum.IntEnum):
    LEFT = 1


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (DISCRETE, 2),
        (DISCRETE, True),
        (DISCRETE, np.int8(2)),
        (DISCRETE, np.array(2)),
        (DISCRETE, 10**30),
        (BOX, np.array([0.1, 7.0])),
        (BOX, np.array([1, 2])),
        (BOX, np.array([1, 2], ">f4")),
        (BOX, [0.1, 1]),
        (BOX, (np.float32(1), 2)),
        (BYTES, np.array([1, 255])),
        (SCALAR, 0.25),
        (SCALAR, np.float32(0.25)),
        (SCALAR, np.array(0.25, np.float32)),
        (DICT, {"a": GOOD, "b": 1}),
        (DICT, {"b": np.int64(1), "a": [1.0, 2.0]}),
        (TUPLE, [1, GOOD]),
        (spaces.Tuple([DISCRETE, DISCRETE]), np.array([1, 2])),
        (spaces.Text(3), "longer, and of others: \u00e4"),
        (spaces.Text(3), np.str_("ab")),
        (spaces.Sequence(BOX), []),
        (STACK, {"x": np.zeros((0, 2), np.float32), "y": (np.zeros(0, np.int64),)}),
        (STACK, {"x": [], "y": ([],)}),
        (GRAPH, GraphInstance(NODES, None, None)),
        (GRAPH, GraphInstance(NODES, EDGES, LINKS.astype(np.int64))),
    ],
)
def test_observations_of_another_kind_arrive_as_they_are(space: gym.Space[Any], observation: Any) -> None:
    assert same(carry_observation(space, observation), observation)


@pytest.mark.parametrize(
    ("space", "action", "arrives"),
    [
        (DISCRETE, 2, 2),
        (DISCRETE, True, True),
        (DISCRETE, Move.LEFT, 1),
        (DISCRETE, np.int32(2), np.int64(2)),
        (DISCRETE, np.uint64(2), np.int64(2)),
        (DISCRETE, np.bool_(True), np.int64(1)),
        (DISCRETE, np.array(2, np.int32), np.array(2)),
        (DISCRETE, 99, 99),
        (BOX, [0.5, 0], GOOD),
        (BOX, (np.float64(0.5), 0), GOOD),
        (BOX, np.array([0.5, 0.0]), GOOD),
        (BOX, np.array([0.5, 0.0], ">f4"), GOOD),
        (BOX, np.array([1, 2]), np.array([1, 2], np.float32)),
        (BOX, np.array([True, False]), np.array([1, 0], np.float32)),
        (BOX, np.array([50.0, -50.0]), np.array([50, -50], np.float32)),
        (BOX, np.array([1e300, 0]), np.array([np.inf, 0], np.float32)),
        (BYTES, [1, 255], np.array([1, 255], np.uint8)),
        (BYTES, np.array([1, 255], np.int32), np.array([1, 255], np.uint8)),
        (SCALAR, 0.5, np.array(0.5, np.float32)),
        (SCALAR, np.float64(0.5), np.float32(0.5)),
        (spaces.MultiDiscrete([3, 3]), [1, 2], np.array([1, 2])),
        (spaces.MultiBinary((1, 2)), [[True, False]], np.array([[1, 0]], np.int8)),
        (spaces.MultiBinary(2), np.array([0.0, 1.0], np.float32), np.array([0, 1], np.int8)),
        (spaces.Box(0, 1, (2, 0), np.float32), [[], []], np.zeros((2, 0), np.float32)),
        (spaces.Box(0, 1, (0, 2), np.uint8), [], np.zeros((0, 2), np.uint8)),
        (DICT, OrderedDict(a=[0.5, 0], b=np.int64(1)), {"b": np.int64(1), "a": GOOD}),
        (DICT, {"a": [0.5, 0], "b": 1}, {"b": 1, "a": GOOD}),
        (TUPLE, [np.int8(1), [0.5, 0]], (np.int64(1), GOOD)),
        (spaces.Tuple([DISCRETE, DISCRETE]), np.array([1, 2], np.int32), (np.int64(1), np.int64(2))),
        (spaces.Text(3), "abcdef", "abcdef"),
        (spaces.Sequence(DISCRETE), [1, np.int8(2)], (1, np.int64(2))),
        (STACK, {"y": [[1, 2]], "x": [[0.5, 0]]}, {"x": GOOD[None], "y": (np.array([1, 2]),)}),
        (spaces.Sequence(spaces.Text(2), stack=True), ["a", "b"], ("a", "b")),
        (GRAPH, GraphInstance(NODES.tolist(), [0], LINKS), GraphInstance(NODES, EDGES, LINKS)),
    ],
)
def test_actions_are_converted_as_numpy_would(space: gym.Space[Any], action: Any, arrives: Any) -> None:
    assert same(carry_action(space, action), arrives)


UNFIT = [
    (BOX, np.zeros(3, np.float32), ": expected float32 array of shape (2,), found float32 array of shape (3,)"),
    (BOX, np.zeros((2, 1), np.float32), "found float32 array of shape (2, 1)"),
    (BOX, [1.0], "found list of length 1"),
    (BOX, [[1.0], [2.0]], "[0]: expected a number, found list of length 1"),
    (BOX, [1.0, "x"], "[1]: expected a number, found builtins.str 'x'"),
    (BOX, 1.0, "found builtins.float 1.0"),
    (BOX, None, "found builtins.NoneType None"),
    (BOX, "ab", "found builtins.str 'ab'"),
    (BOX, np.array(["a", "b"]), "<U1 array"),
    (BOX, np.array([1j, 2]), "complex128"),
    (BOX, np.array([None, 1.0], object), "object array"),
    (BYTES, [0.5, 1.0], "float64"),
    (BYTES, [1, 300], "expected integers that uint8 can hold, found 300"),
    (BYTES, np.array([-1, 3]), "found -1"),
    (BYTES, [2**70, 1], "object"),
    (spaces.Box(0, 1, (2,), bool), np.array([0, 1]), "int64"),
    (spaces.MultiBinary(2), np.array([0.0, 0.5]), "float64"),
    (spaces.MultiBinary(2), np.array([np.nan, 1.0]), "float64"),
    (spaces.MultiDiscrete([3, 3]), np.array([1.0, 2.0]), "float64"),
    (spaces.Box(0, 1, (2, 2), np.float32), [[1, 2], 3], "[1]: expected list of length 2"),
    (SCALAR, [1.0], "list of length 1"),
    (DISCRETE, 1.0, "expected an integer, such as numpy.int64, found builtins.float 1.0"),
    (DISCRETE, np.float64(1), "float64"),
    (DISCRETE, np.array([1]), "int64 array of shape (1,)"),
    (DISCRETE, "1", "str"),
    (DISCRETE, None, "NoneType"),
    (DISCRETE, np.uint64(2**63), "int64 can hold"),
    (DICT, {"b": 1}, "expected the keys ['b', 'a'], found the keys ['b']"),
    (DICT, {"b": 1, "a": GOOD, "c": 1}, "found the keys"),
    (DICT, [1, 2], "expected a dict"),
    (DICT, {"b": 1, "a": np.zeros(3)}, "['a']: expected float32 array of shape (2,)"),
    (TUPLE, (1,), "expected tuple of length 2, found tuple of length 1"),
    (TUPLE, (1, None), "[1]: expected float32 array"),
    (TUPLE, {"a": 1}, "tuple"),
    (TUPLE, np.array(1), "tuple"),
    (spaces.Tuple([DICT]), ({"b": "x", "a": GOOD},), "[0]['b']: expected an integer"),
    (spaces.Text(3), b"a", "expected a str"),
    (spaces.Sequence(BOX), [GOOD, 1], "[1]: expected float32 array"),
    (spaces.Sequence(BOX), {0: GOOD}, "expected a tuple"),
    (spaces.Sequence(BOX, stack=True), np.zeros((4, 3), np.float32), "(4, 3)"),
    (spaces.Sequence(BOX, stack=True), np.array(1.0, np.float32), "('any', 2)"),
    (STACK, {"x": GOOD[None], "y": ([0.5],)}, "['y'][0]: expected int64 array of shape (1,)"),
    (GRAPH, (NODES, None, None), "expected a GraphInstance"),
    (GRAPH, GraphInstance(None, None, None), "['nodes']"),
    (GRAPH, GraphInstance(NODES, EDGES + 0.5, LINKS), "['edges']"),
    (GRAPH, GraphInstance(NODES, EDGES, LINKS[0]), "['edge_links']"),
    (GRAPH, GraphInstance(NODES, EDGES, [[0, 1]]), "['edge_links']"),
    (spaces.Graph(BOX, None), GraphInstance(NODES, EDGES, LINKS), "no edge space"),
]
if HAS_ONE_OF:
    ONE_OF = spaces.OneOf([DISCRETE, BOX])
    UNFIT += [
        (ONE_OF, (2, GOOD), "[0]: expected an index from 0 to 1, found builtins.int 2"),
        (ONE_OF, (-1, GOOD), "found builtins.int -1"),
        (ONE_OF, (0.0, 1), "index"),
        (ONE_OF, (0, GOOD), "[1]: expected an integer"),
        (ONE_OF, 1, "a tuple of an index and an element"),
        (ONE_OF, (1,), "length 1"),
    ]


@pytest.mark.parametrize(("space", "element", "says"), UNFIT)
def test_what_does_not_fit_is_named(space: gym.Space[Any], element: Any, says: str) -> None:
    layout = compile_layout(space)
    with pytest.raises(InvalidAction) as action:
        encode_action(layout, element, pb.StepRequest(), LIMITS)
    with pytest.raises(InvalidObservation) as observation:
        encode_observation(layout, element, pb.Transition(), LIMITS)
    assert says in str(action.value)
    assert str(action.value).removeprefix("action") == str(observation.value).removeprefix("observation")


@pytest.mark.parametrize(("space", "element", "_says"), UNFIT)
def test_what_does_not_fit_is_refused_by_the_receiver_too(space: gym.Space[Any], element: Any, _says: str) -> None:
    step, transition = pb.StepRequest(), pb.Transition()
    encode_value(element, step.value, strict=True, limits=LIMITS)
    encode_value(element, transition.value, strict=True, limits=LIMITS)
    with pytest.raises(InvalidAction):
        decode_action(compile_layout(space), step, LIMITS)
    with pytest.raises(EncodingError):
        decode_observation(compile_layout(space), transition, LIMITS)


@pytest.mark.skipif(not HAS_ONE_OF, reason="Gymnasium has OneOf since 1.0")
def test_an_index_may_be_of_any_integer_type() -> None:
    space = spaces.OneOf([DISCRETE, BOX])
    assert same(carry_action(space, [1, [0.5, 0]]), (1, GOOD))
    assert same(carry_action(space, (np.int8(0), 2)), (np.int64(0), 2))


@given(ANY_SPACE, ANY_VALUE)
def test_any_value_as_an_action_is_refused_or_fits(space: gym.Space[Any], value: Any) -> None:
    layout, message = compile_layout(space), pb.StepRequest()
    try:
        encode_action(layout, value, message, LIMITS)
    except InvalidAction:
        return
    decode_action(layout, message, LIMITS)


def test_giant_texts_in_a_long_list_take_no_memory() -> None:
    space = spaces.Box(-1, 1, (10**5,), np.float32)
    with pytest.raises(InvalidAction):
        encode_action(compile_layout(space), ["x" * 10**7] + [0.0] * (10**5 - 1), pb.StepRequest(), LIMITS)


def test_nothing_in_place_of_an_element_is_refused() -> None:
    layout = compile_layout(BOX)
    with pytest.raises(EncodingError, match="no action"):
        decode_action(layout, pb.StepRequest(), LIMITS)
    with pytest.raises(EncodingError, match="no observation"):
        decode_observation(layout, pb.Transition(), LIMITS)


def test_an_observation_without_a_wire_form_is_refused_by_name() -> None:
    own = np.ma.array(GOOD).view(type("Own", (np.ma.MaskedArray,), {}))
    with pytest.raises(EncodingError, match=r"observation\['a'\]: .*numpy\.ma\.array"):
        encode_observation(compile_layout(DICT), {"b": 1, "a": own}, pb.Transition(), LIMITS)


def test_an_element_over_the_limits_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"action: .*Limits\.text_length"):
        encode_action(compile_layout(spaces.Text(9)), "abc", pb.StepRequest(), Limits(text_length=2))


def test_texts_of_a_space_of_an_unknown_class_pass() -> None:
    class Phrases(gym.Space[str]):
        def __init__(self) -> None:
            super().__init__(dtype=str)

    class Unknown(gym.Space[Any]):
        pass

    message = pb.Transition()
    encode_observation(compile_layout(Phrases()), "go", message, LIMITS)
    assert message.value.text == "go"
    with pytest.raises(ConfigError, match="Unknown"):
        encode_observation(compile_layout(Unknown()), "go", pb.Transition(), LIMITS)
