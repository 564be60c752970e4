"""Spaces as JSON Schema, with what JSON Schema cannot say beside it: classes, shapes and dtypes."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from remote_gym.wire.spaces.casting import OneOf
from remote_gym.wire.spaces.image import ImageSpace
from remote_gym.wire.spaces.text import AnyText

Schema = dict[str, Any]


@functools.singledispatch
def schema_of(space: gym.Space[Any]) -> Schema:
    """Describe the elements of a space.

    Returns:
        A schema whose ``space``, ``shape`` and ``dtype`` name those of Gymnasium.
    """
    return {"space": type(space).__name__}


@schema_of.register
def _(space: spaces.Box) -> Schema:
    kind = np.dtype(space.dtype).kind
    if kind == "b" or not space.low.size:
        return _nested(space.shape, {"type": "boolean" if kind == "b" else "number"}) | _facts(space)
    item: Schema = {"type": "integer" if kind in "iu" else "number"}
    low, high = np.min(space.low), np.max(space.high)
    if math.isfinite(low):
        item["minimum"] = low.item()
    if math.isfinite(high):
        item["maximum"] = high.item()
    schema = _nested(space.shape, item)
    if space.low.size <= 64 and not (np.all(space.low == low) and np.all(space.high == high)):
        schema |= {"low": _bounds(space.low), "high": _bounds(space.high)}
    return schema | _facts(space)


@schema_of.register
def _(space: spaces.Discrete) -> Schema:
    start = int(space.start)
    return {"type": "integer", "minimum": start, "maximum": start + int(space.n) - 1, **_facts(space)}


@schema_of.register
def _(space: spaces.MultiDiscrete) -> Schema:
    start = np.broadcast_to(getattr(space, "start", 0), space.shape)
    highest = int(np.max(start + space.nvec)) - 1
    item = {"type": "integer", "minimum": int(np.min(start)), "maximum": highest}
    return {**_nested(space.shape, item), "nvec": space.nvec.tolist(), "start": start.tolist(), **_facts(space)}


@schema_of.register
def _(space: spaces.MultiBinary) -> Schema:
    return _nested(space.shape, {"type": "integer", "minimum": 0, "maximum": 1}) | _facts(space)


@schema_of.register
def _(space: spaces.Text) -> Schema:
    return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length, "space": "Text"}


@schema_of.register
def _(_space: AnyText) -> Schema:
    return {"type": "string", "space": "AnyText"}


@schema_of.register
def _(space: spaces.Dict) -> Schema:
    members = {str(key): schema_of(member) for key, member in space.spaces.items()}
    return {
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
        "space": "Dict",
    }


@schema_of.register(spaces.Tuple)
def _tuple(space: Any) -> Schema:
    members = [schema_of(member) for member in space.spaces]
    return {"type": "array", "prefixItems": members, **_length(len(members)), "space": "Tuple"}


@schema_of.register
def _(space: spaces.Sequence) -> Schema:
    return {"type": "array", "items": schema_of(space.feature_space), "space": "Sequence"}


@schema_of.register
def _(space: spaces.Graph) -> Schema:
    edges = {} if space.edge_space is None else {"edges": {"type": ["array", "null"]}}
    links = {"type": ["array", "null"], "items": _nested((2,), {"type": "integer", "minimum": 0})}
    members = {"nodes": {"type": "array", "items": schema_of(space.node_space)}, **edges, "edge_links": links}
    return {"type": "object", "properties": members, "required": ["nodes"], "space": "Graph"}


@schema_of.register
def _(space: ImageSpace) -> Schema:
    byte: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
    pixel = {"anyOf": [byte, {"type": "array", "items": byte, "minItems": 1, "maxItems": 4}]}
    rows = {"type": "array", "items": {"type": "array", "items": pixel, "minItems": 1}, "minItems": 1}
    return {**rows, "space": "ImageSpace", "dtype": str(space.dtype)}


if OneOf is not None:

    @schema_of.register(OneOf)
    def _one_of(space: Any) -> Schema:
        pairs = [
            {"type": "array", "prefixItems": [{"const": index}, schema_of(member)], **_length(2)}
            for index, member in enumerate(space.spaces)
        ]
        return {"oneOf": pairs, "space": "OneOf"}


def _nested(shape: tuple[int, ...], item: Schema) -> Schema:
    for length in reversed(shape):
        item = {"type": "array", "items": item, **_length(length)}
    return item


def _length(length: int) -> Schema:
    return {"minItems": length, "maxItems": length}


def _facts(space: gym.Space[Any]) -> Schema:
    return {"space": type(space).__name__, "shape": list(space.shape or ()), "dtype": str(np.dtype(space.dtype))}


def _bounds(bounds: Any) -> Any:
    """Bounds as nested lists, infinite ones as texts."""
    if np.isfinite(bounds).all():
        return bounds.tolist()
    texts = np.where(np.isposinf(bounds), "Infinity", "-Infinity").astype(object)
    return np.where(np.isfinite(bounds), bounds.astype(object), texts).tolist()
