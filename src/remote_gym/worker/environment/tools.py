"""Describes exposed methods to agents that call them as tools: what each does, and its parameters as JSON Schema."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

Schema = dict[str, Any]

MOST_CHARACTERS = 4096
"""Characters of a description."""

_DEEPEST = 8
"""Levels that annotations are followed down to: a TypedDict may hold itself."""

_SIMPLE: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    np.ndarray: {"type": "array"},
}


class Described(NamedTuple):
    """A method, as an agent is told of it."""

    text: str
    """Its docstring."""
    parameters: str
    """A JSON Schema of an object that holds its arguments by name."""


def describe(method: Callable[..., Any]) -> Described:
    """Describe a method by its docstring, signature and annotations."""
    text = inspect.getdoc(method) or ""
    return Described(text[:MOST_CHARACTERS], json.dumps(parameters_of(method)))


def parameters_of(method: Callable[..., Any]) -> Schema:
    """JSON Schema of the arguments that a method takes by name; of what has no signature, any."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # callables written in C may have none
        return {"type": "object"}
    hints = _hints(method)
    properties: dict[str, Schema] = {}
    required, takes_any = [], False
    for name, parameter in signature.parameters.items():
        takes_any |= parameter.kind is inspect.Parameter.VAR_KEYWORD
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            continue
        properties[name] = schema_of(hints.get(name, Any))
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
        elif _is_json(parameter.default):
            properties[name] = {**properties[name], "default": parameter.default}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": takes_any}


def schema_of(annotation: Any, depth: int = 0) -> Schema:
    """JSON Schema of an annotation. What JSON Schema cannot say is anything."""
    if annotation is None:
        return {"type": "null"}
    try:
        if annotation in _SIMPLE:
            return dict(_SIMPLE[annotation])
    except TypeError:  # not hashable
        return {}
    if depth > _DEEPEST:
        return {}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        texts = [each for each in arguments[1:] if isinstance(each, str)]
        said = texts[0] if texts else next(filter(None, (getattr(each, "description", None) for each in arguments)), "")
        return {**schema_of(arguments[0], depth), **({"description": str(said)} if said else {})}
    if origin is typing.Literal:
        return {"enum": list(arguments)} if _is_json(list(arguments)) else {}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(each, depth + 1) for each in arguments]}
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        properties = {name: schema_of(each, depth + 1) for name, each in hints.items()}
        return {"type": "object", "properties": properties, "required": sorted(annotation.__required_keys__)}
    return _of_collection(origin or annotation, arguments, depth)


def _of_collection(kind: Any, arguments: tuple[Any, ...], depth: int) -> Schema:
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, Mapping):
        values = schema_of(arguments[1], depth + 1) if len(arguments) == 2 else {}
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        items = [schema_of(each, depth + 1) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if kind is np.ndarray:
        return {"type": "array"}
    if issubclass(kind, (str, bytes)) or not (issubclass(kind, Collection) or kind is Iterable):
        return {"type": "string"} if issubclass(kind, str) else {}
    item = schema_of(arguments[0], depth + 1) if arguments else {}
    return {"type": "array", **({"items": item} if item else {})}


def _hints(method: Any) -> dict[str, Any]:
    function = inspect.unwrap(method) if callable(method) else method
    try:
        return typing.get_type_hints(getattr(function, "__func__", function), include_extras=True)
    except Exception:  # noqa: BLE001 - names that are not there, or whatever an annotation's text raises
        return {}


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
