"""Spaces of OpenEnv's schemas, and elements of what its servers send; any bytes of these."""

from __future__ import annotations

import contextlib
import json
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_gym import EncodingError, Limits
from remote_gym.peers.elements import element_of, flag_of, number_of
from remote_gym.peers.openenv_schema import form_of
from remote_gym.wire.spaces.casting import fit

SMALL = Limits(array_bytes=10_000, depth=8, text_length=1000)


def form(members, what="observation", **more):
    return form_of({"type": "object", "properties": members, **more}, what, SMALL)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 4}, spaces.Discrete(5)),
        ({"type": "integer", "minimum": -2, "maximum": 2}, spaces.Discrete(5, start=-2)),
        ({"enum": [3, 4, 5], "type": "integer"}, spaces.Discrete(3, start=3)),
        ({"const": 3, "type": "integer"}, spaces.Discrete(1, start=3)),
        ({"type": "number"}, spaces.Box(-math.inf, math.inf, (), np.float64)),
        ({"type": "number", "minimum": 0, "maximum": 1}, spaces.Box(0, 1, (), np.float64)),
        ({"type": "integer", "minimum": 0}, spaces.Box(0, 2**63 - 1, (), np.int64)),
        ({"type": "boolean"}, spaces.Box(0, 1, (), np.bool_)),
        (
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 0, "maximum": 9}},
            spaces.Box(0, 9, (2,), np.int64),
        ),
        (
            {
                "type": "array",
                "minItems": 3,
                "maxItems": 3,
                "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
            },
            spaces.Box(-math.inf, math.inf, (3, 2), np.float64),
        ),
        (
            {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 8}},
            spaces.Sequence(spaces.Discrete(9)),
        ),
        (
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "boolean"}},
            spaces.Tuple([spaces.Box(0, 1, (), np.bool_)] * 2),
        ),
        (
            {"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": [0, 1]}]},
            spaces.Tuple([spaces.Box(0, 1, (), np.bool_), spaces.Discrete(2)]),
        ),
        (
            {"type": "object", "properties": {"a": {"enum": [0, 1]}, "b": {"$ref": "#/$defs/B"}}},
            spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(3)}),
        ),
    ],
)
def test_what_has_a_space_has_that(schema, expected):
    made = form({"only": schema, "done": {}, "reward": {}, "metadata": {}}, **{"$defs": {"B": {"enum": [0, 1, 2]}}})
    assert made.space == expected


def test_an_action_consists_of_what_it_must_have():
    members = {"go": {"enum": [0, 1]}, "tone": {"type": "string"}, "metadata": {"type": "object"}}
    assert form(members, "action", required=["go"]).space == spaces.Discrete(2)
    assert set(form(members, "action").space.spaces) == {"go", "tone"}
    assert form(members, "action", required=["go"]).write(1) == {"go": 1}


def test_texts_hold_what_can_be_printed():
    assert form({"only": {"type": "string", "maxLength": 9}}).space.contains("a b, c!")
    assert form({"only": {"enum": ["left", "right"]}}).space.contains("left")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "has no space; give observation_space"),
        ({"type": "object"}, "has no space"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, r"\['only'\] is .*anyOf"),
        ({"enum": [1, 5]}, "make no space"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "makes no space"),
        ({"type": "integer", "minimum": 0, "maximum": 10**30}, "makes no space"),
        ({"type": "integer", "minimum": -(10**30)}, "int64"),
        ({"$ref": "#/$defs/none"}, "not there"),
        ({"$ref": "#/properties/only"}, "nested too deep"),
        ({"$ref": "http://localhost/"}, "not there"),
        ({"type": "array", "minItems": 10**9, "maxItems": 10**9, "items": {"type": "number"}}, "array_bytes"),
        ({"type": "array", "minItems": 10**9, "maxItems": 10**9, "items": {"type": "boolean"}}, "too large"),
        ({"type": "array", "minItems": -1, "maxItems": -1, "items": {"type": "number"}}, "shape"),
        ({"space": "Box", "shape": [10**6, 10**6], "dtype": "float32"}, "array_bytes"),
        ({"space": "Box", "shape": [2], "dtype": "O"}, "no kind of number"),
        ({"space": "Box", "shape": [2], "dtype": "float32", "items": {"minimum": "x"}}, "float32"),
        ({"space": "Box", "shape": "x", "dtype": "float32"}, "shape"),
        ({"space": "Graph"}, "does not describe in full"),
        (3, "no schema"),
    ],
)
def test_what_has_no_space_is_refused_with_its_place(schema, text):
    with pytest.raises(EncodingError, match=text):
        form({"only": schema})


def test_references_that_multiply_are_refused():
    defs = {
        f"d{n}": {"type": "object", "properties": {str(each): {"$ref": f"#/$defs/d{n + 1}"} for each in range(20)}}
        for n in range(7)
    }
    defs["d7"] = {"enum": [0, 1]}
    with pytest.raises(EncodingError, match=r"too large|too deep"):
        form_of(
            {"properties": {"only": {"$ref": "#/$defs/d0"}}, "$defs": defs},
            "observation",
            Limits(depth=40, items=10**6),
        )


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
WORDS = st.sampled_from(
    [
        *("integer", "number", "string", "boolean", "array", "object", "Box", "Discrete", "MultiDiscrete", "Text"),
        *("Dict", "Tuple", "Sequence", "OneOf", "float32", "uint8", "int64", "bool", "#/properties/a", "#/$defs/a"),
    ]
)
KEYS = st.sampled_from(
    [
        *("type", "space", "shape", "dtype", "minimum", "maximum", "minItems", "maxItems", "items", "prefixItems"),
        *("enum", "const", "properties", "low", "high", "nvec", "start", "$ref", "maxLength", "minLength", "oneOf"),
    ]
)
SCHEMAS = st.recursive(
    SCALARS | WORDS | st.integers(-1, 3),
    lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=25,
)


@given(schema=SCHEMAS, defs=SCHEMAS, what=st.sampled_from(["action", "observation"]))
@settings(max_examples=100, deadline=None)
def test_any_schema_has_a_space_or_is_refused(schema, defs, what):
    try:
        made = form_of({"properties": {"a": schema}, "$defs": {"a": defs}}, what, SMALL)
    except EncodingError as error:
        assert len(str(error)) < 10_000  # noqa: PT017
    else:
        assert isinstance(made.space, gym.Space)


ALL_KINDS: list[gym.Space] = [
    spaces.Box(-1, 1, (2, 2), np.float32),
    spaces.Box(0, 255, (2, 2, 3), np.uint8),
    spaces.Box(0, 1, (), bool),
    spaces.Box(0, 9, (0,), np.int64),
    spaces.Discrete(4, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(2),
    spaces.Text(5),
    spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Text(3)}),
    spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (1,))]),
    spaces.Sequence(spaces.Discrete(3)),
    spaces.Sequence(spaces.Box(0, 1, (2,)), stack=True),
    spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3)),
    *([spaces.OneOf([spaces.Discrete(2), spaces.Text(3)])] if hasattr(spaces, "OneOf") else []),
]


@given(space=st.sampled_from(ALL_KINDS), value=JSON)
@settings(max_examples=150, deadline=None)
def test_any_value_is_an_element_or_is_refused_with_its_place(space, value):
    pytest.importorskip("PIL", reason="the extra jpeg is not installed")
    try:
        element = element_of(space, value, "observation")
    except EncodingError as error:
        assert str(error).startswith("the server's observation")  # noqa: PT017
        assert len(str(error)) < 10_000  # noqa: PT017
    else:
        fit(space, element)


@pytest.mark.parametrize("space", ALL_KINDS, ids=repr)
def test_what_json_holds_of_an_element_is_that_again(space):
    from remote_gym.peers.elements import plain

    space.seed(1)
    for _ in range(5):
        element = space.sample()
        sent = plain(space, element)
        again = element_of(space, json.loads(json.dumps(sent)), "observation")
        assert plain(space, again) == sent


@given(value=JSON)
@settings(max_examples=100, deadline=None)
def test_rewards_and_flags_are_such_or_refused(value):
    for read, kind in ((number_of, float), (flag_of, bool)):
        with contextlib.suppress(EncodingError):
            assert type(read(value, "reward")) is kind
