from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from remote_gym.auth.argument_schema import check_arguments, check_schema
from remote_gym.errors import ConfigError, NotPermitted

pytest.importorskip("jsonschema", reason="the extra policy is not installed")

LEVEL = {"properties": {"level": {"maximum": 3}, "name": {"pattern": "^a"}, "tags": {"items": {"enum": ["x", "y"]}}}}


def refused(schema: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_schema("here", json.dumps(schema))
    return str(caught.value)


def test_a_schema_that_is_one():
    check_schema("here", json.dumps(LEVEL))
    check_schema(
        "here", json.dumps({"$defs": {"x": {"type": "integer"}}, "properties": {"level": {"$ref": "#/$defs/x"}}})
    )
    check_schema("here", "true")


def test_a_schema_that_is_none_is_refused_with_the_place():
    assert refused({"properties": {"level": {"type": "int"}}}).startswith("here, at $.properties.level.type: ")
    assert "pattern" in refused({"properties": {"name": {"pattern": "("}}})
    assert refused(3).startswith("here, at $: ")


@pytest.mark.parametrize("reference", ["https://example.com/x", "file:///etc/passwd", "other.json", "/x"])
def test_a_schema_that_refers_to_another_document_is_refused(reference):
    assert f"it refers to {reference!r}" in refused({"properties": {"level": {"$ref": reference}}})
    assert f"it refers to {reference!r}" in refused({"allOf": [{"$dynamicRef": reference}]})


@pytest.mark.parametrize("reference", ["#/$defs/x", "#x", "#/allOf/x", "#/allOf/0/maximum/x", "#/allOf/1"])
def test_a_schema_that_refers_to_what_it_does_not_have_is_refused(reference):
    schema = {"allOf": [{"maximum": 3}], "properties": {"level": {"$ref": reference}}}
    assert "which it does not have" in refused(schema)


def test_a_schema_without_end_is_refused_or_refuses():
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"properties": {"level": deep}}
    assert "nests too deep" in refused(deep)
    with pytest.raises(NotPermitted, match="refers to itself without end"):
        check_arguments({}, None, json.dumps({"$ref": "#"}))


def test_only_arguments_on_the_list_may_be_set():
    check_arguments({}, [], "")
    check_arguments({"level": object()}, None, "")
    check_arguments({"level": 1}, ["level"], "")
    with pytest.raises(NotPermitted, match="'id'; it may set: level, name"):
        check_arguments({"level": 1, "id": 1}, ["name", "level"], "")
    with pytest.raises(NotPermitted, match="may set: none"):
        check_arguments({"level": 1}, [], "")


@pytest.mark.parametrize(
    "arguments", [{}, {"level": 3, "other": None}, {"name": "a"}, {"tags": ("x",)}, {"tags": ["y"]}]
)
def test_arguments_that_fit_the_schema(arguments):
    check_arguments(arguments, None, json.dumps(LEVEL))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 4}, r"\$\.level: 4 is greater than the maximum of 3; the server's policy"),
        ({"level": 3.5}, "greater"),
        ({"name": "b"}, r"\$\.name: 'b' does not match"),
        ({"tags": ["x", "z"]}, r"\$\.tags\[1\]"),
        ({"tags": ("z",)}, r"\$\.tags\[0\]"),
    ],
)
def test_arguments_that_do_not_fit_the_schema(arguments, message):
    with pytest.raises(NotPermitted, match=message):
        check_arguments(arguments, None, json.dumps(LEVEL))


@pytest.mark.parametrize(
    "value",
    [
        np.int64(4), np.float64(4), np.array(4), np.array([4]), math.nan, math.inf, b"b", {"x"}, {1: 2}, 4j,
        np.str_("b"), [np.int64(4)], {"x": math.nan}, ({"y": b""},),
    ],
    ids=repr,
)  # fmt: skip
def test_what_a_schema_would_pass_by_is_refused(value):
    with pytest.raises(NotPermitted, match=r"entrypoint_kwargs\['level'\].*has a schema for it"):
        check_arguments({"level": value}, None, json.dumps(LEVEL))
