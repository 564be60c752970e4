"""What agents are told of exposed methods."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import numpy as np
import pytest

from remote_gym.worker.environment.tools import MOST_CHARACTERS, describe, parameters_of, schema_of

INTEGER = {"type": "integer"}
PAIR = {"prefixItems": [INTEGER, {"type": "string"}], "minItems": 2, "maxItems": 2}


class Point(TypedDict, total=False):
    x: int
    inner: list["Point"]


class Field:
    description = "of Pydantic's kind"


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (bytes, {}),
        (np.ndarray, {"type": "array"}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Iterable[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array", **PAIR}),
        (dict, {"type": "object"}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Optional[int], {"anyOf": [INTEGER, {"type": "null"}]}),  # noqa: UP045
        (Union[int, str], {"anyOf": [INTEGER, {"type": "string"}]}),  # noqa: UP007
        (Literal["a", 2], {"enum": ["a", 2]}),
        (Literal[b"a"], {}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Annotated[int, Field()], {"type": "integer", "description": "of Pydantic's kind"}),
        (Annotated[int, 5], {"type": "integer"}),
    ],
)  # fmt: skip
def test_annotations_are_schemas(annotation, schema):
    assert schema_of(annotation) == schema
    json.dumps(schema)


def test_a_dict_that_holds_itself_ends_somewhere():
    schema = schema_of(Point)
    assert schema["properties"]["x"] == {"type": "integer"}
    assert schema["required"] == []
    assert len(json.dumps(schema)) < 2000


class Environment:
    def look(self, place: str, /, far: "bool" = False, *others: int, seconds: float = 1.5, **more: Any) -> str:
        """Look somewhere.

        Args:
            place: Where.
        """
        return place

    def unknown(self, thing: "NoSuchName", value=float("nan")):  # noqa: F821
        pass

    @staticmethod
    def plain():
        pass

    async def later(self, a: int) -> int:
        return a


def test_parameters_are_those_that_can_be_given_by_name():
    assert parameters_of(Environment().look) == {
        "type": "object",
        "properties": {"far": {"type": "boolean", "default": False}, "seconds": {"type": "number", "default": 1.5}},
        "required": [],
        "additionalProperties": True,
    }
    assert parameters_of(Environment().later)["required"] == ["a"]
    assert parameters_of(Environment.plain)["properties"] == {}


def test_what_cannot_be_told_is_anything():
    assert parameters_of(Environment().unknown)["properties"] == {"thing": {}, "value": {}}
    assert parameters_of(dict.fromkeys)["type"] == "object"
    assert parameters_of(type("C", (), {"__call__": None}))["type"] == "object"


def test_the_docstring_is_the_description():
    text, parameters = describe(Environment().look)
    assert text.startswith("Look somewhere.\n\nArgs:\n    place: Where.")
    assert json.loads(parameters)["type"] == "object"
    assert describe(Environment.plain).text == ""
    Environment.plain.__doc__ = "x" * 10_000
    assert len(describe(Environment.plain).text) == MOST_CHARACTERS
