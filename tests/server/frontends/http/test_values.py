"""Values and spaces as JSON, and back."""

from __future__ import annotations

import io
import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("uvicorn", reason="the extra http is not installed")

from environments import make_spaces
from remote_gym.config import Limits
from remote_gym.server.frontends.http.images import is_image, png_of
from remote_gym.server.frontends.http.schemas import schema_of
from remote_gym.server.frontends.http.values import JsonWriter, bytes_as_json, element_of
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import decode_action, encode_action
from remote_gym.wire.spaces.layout import compile_layout

SPACES = make_spaces()


@pytest.mark.parametrize("name", SPACES)
def test_a_sample_that_went_through_json_is_the_action_that_it_was(name):
    space = SPACES[name]
    space.seed(3)
    layout = compile_layout(space)
    for _ in range(5):
        sample = space.sample()
        expected, message = pb.StepRequest(), pb.StepRequest()
        encode_action(layout, sample, expected, Limits())
        element = element_of(space, json.loads(JsonWriter().write(sample)))
        encode_action(layout, element, message, Limits())
        assert repr(decode_action(layout, message, Limits())) == repr(decode_action(layout, expected, Limits()))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_a_schema_that_is_json(name):
    schema = json.loads(json.dumps(schema_of(SPACES[name]), allow_nan=False))
    assert schema["space"]


@pytest.mark.parametrize("name", SPACES)
def test_samples_are_valid_by_their_schemas(name):
    jsonschema = pytest.importorskip("jsonschema", reason="the extra policy is not installed")
    space = SPACES[name]
    space.seed(5)
    validator = jsonschema.Draft202012Validator(schema_of(space))
    for _ in range(5):
        validator.validate(json.loads(JsonWriter(texts=True).write(space.sample())))


@pytest.mark.parametrize(
    "shape", [(1,), (300,), (7, 9), (84, 84, 3), (2, 3, 4, 5), (0,), (3, 0, 2), (250, 200, 3), (70_000,), (2, 40_000)]
)
def test_bytes_are_written_as_pythons_json_has_them(shape):
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert json.loads(bytes_as_json(array)) == array.tolist()


def test_values_that_json_does_not_know_are_told_in_its_words():
    value = {
        "array": np.array([[1.5, -0.0], [2.0, 3.0]], np.float32),
        "many": np.arange(20000, dtype=np.int64).reshape(2, 10000),
        "flag": np.True_,
        "number": np.float32(0.1),
        "tuple": (1, None, "é\n"),
        "bytes": b"ab",
        "words": np.array(["a", "b"]),
        "when": np.datetime64("2020-01-02"),
        3: {4},
        "object": object,
    }
    found = json.loads(JsonWriter().write(value))
    assert found["array"] == [[1.5, -0.0], [2.0, 3.0]]
    assert found["many"] == value["many"].tolist()
    assert found["flag"] is True
    assert found["number"] == float(np.float32(0.1))
    assert found["tuple"] == [1, None, "é\n"]
    assert found["bytes"] == "YWI="
    assert found["words"] == ["a", "b"]
    assert found["when"] == "2020-01-02"
    assert found["3"] == [4]
    assert found["object"] == "<class 'object'>"


def test_numbers_that_are_none_are_words_or_texts():
    value = {"a": np.array([np.nan, np.inf]), "b": -np.inf, "c": np.float32("nan")}
    assert JsonWriter().write(value) == b'{"a": [NaN, Infinity], "b": -Infinity, "c": NaN}'
    assert JsonWriter(texts=True).write(value) == b'{"a": ["NaN", "Infinity"], "b": "-Infinity", "c": "NaN"}'
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert element_of(box, ["Infinity", 1.5]).tolist() == [np.inf, 1.5]


@pytest.mark.parametrize("value", [None, "a", [[1], [2, 3]], {"x": 1}, [None, 1.0], ["a", "b"], [[]]])
def test_what_is_no_element_is_refused_where_it_is_encoded(value):
    from remote_gym.errors import InvalidAction

    for name in ("box_float64", "discrete_start"):
        with pytest.raises(InvalidAction, match="expected"):
            encode_action(compile_layout(SPACES[name]), element_of(SPACES[name], value), pb.StepRequest(), Limits())


@pytest.mark.parametrize(("shape", "mode"), [((6, 4, 3), "RGB"), ((6, 4), "L"), ((6, 4, 1), "L"), ((6, 4, 4), "RGBA")])
def test_images_come_back_from_their_png(shape, mode):
    image_module = pytest.importorskip("PIL.Image", reason="the extra jpeg is not installed")
    space: gym.Space = spaces.Box(0, 255, shape, np.uint8)
    assert is_image(space)
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    found = image_module.open(io.BytesIO(png_of(image)))
    assert found.mode == mode
    np.testing.assert_array_equal(np.asarray(found).reshape(shape), image)


def test_other_boxes_are_no_images():
    for space in (spaces.Box(0, 255, (4, 4, 2), np.uint8), spaces.Box(0, 1, (4, 4, 3)), spaces.Discrete(3)):
        assert not is_image(space)
