"""Spaces of what an OpenEnv server's JSON Schemas describe: Pydantic's, or those of a server of ours."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.peers.elements import element_of, plain, shown
from remote_gym.wire.spaces.casting import OneOf

ACTION_LENGTH = 4096
"""Longest text of an action whose schema says none, so that its space can be sampled. Longer ones are sent, too."""

MOST_SPACES = 10_000
"""Spaces in one: references could else make any number of a few lines."""

Schema = Mapping[str, Any]


class Schemas:
    """Turns schemas into spaces.

    What ours say beside JSON Schema (``space``, ``shape``, ``dtype``) makes the same space again. Else numbers are
    boxes of float64 or int64 within their bounds, bounded integers and literals `Discrete`, arrays of one length
    boxes or tuples, others sequences, and objects dicts.

    Args:
        root: The whole, which references refer to.
        what: ``"action"`` or ``"observation"``, for errors.
        limits: Bounds on arrays, texts and depth.
    """

    def __init__(self, root: Schema, what: str, limits: Limits) -> None:
        self._root = root
        self._what = what
        self._limits = limits
        self._longest = min(limits.text_length, ACTION_LENGTH) if what == "action" else limits.text_length
        self._left = MOST_SPACES
        self._bytes = limits.array_bytes

    def space(self, schema: Any, path: str = "", depth: int = 0) -> gym.Space[Any]:
        """Space of one schema.

        Raises:
            EncodingError: If there is none, naming the place.
        """
        self._left -= 1
        if depth > self._limits.depth or self._left < 0:
            raise self._error(path, "is nested too deep, or too large")
        if not isinstance(schema, Mapping):
            raise self._error(path, f"is described by {shown(schema)!r:.200}, which is no schema")
        if isinstance(schema.get("$ref"), str):
            return self.space(self._referred(schema["$ref"], path), path, depth + 1)
        try:
            if isinstance(schema.get("space"), str):
                return self._ours(schema, path, depth)
            return self._theirs(schema, path, depth)
        except (TypeError, ValueError, KeyError, OverflowError, AssertionError, AttributeError) as error:
            if isinstance(error, EncodingError):
                raise
            text = f"is described by what makes no space: {type(error).__name__}: {shown(error)}"
            raise self._error(path, text) from error

    def _ours(self, schema: Schema, path: str, depth: int) -> gym.Space[Any]:
        kind = schema["space"]
        if kind in ("Box", "MultiDiscrete", "MultiBinary", "Discrete"):
            return self._array(kind, schema, path)
        if kind == "Text":
            return self._text(schema)
        if kind == "Dict":
            return self._dict(schema["properties"], path, depth)
        if kind == "Tuple":
            return self._tuple(schema["prefixItems"], path, depth)
        if kind == "Sequence":
            return spaces.Sequence(self.space(schema["items"], f"{path}[...]", depth + 1))
        if kind == "OneOf" and OneOf is not None:
            pairs = (each["prefixItems"][1] for each in schema["oneOf"])
            members = [self.space(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(pairs)]
            made: gym.Space[Any] = OneOf(members)  # type: ignore[arg-type]
            return made
        raise self._error(path, f"is of the space {shown(kind)!r:.100}, which its schema does not describe in full")

    def _array(self, kind: str, schema: Schema, path: str) -> gym.Space[Any]:
        shape, dtype = self._shape(schema["shape"], path), np.dtype(str(schema["dtype"]))
        if dtype.kind not in "biuf":
            raise self._error(path, f"is of {dtype}, which is no kind of number")
        self._check_size(shape, dtype, path)
        if kind == "MultiBinary":
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
        if kind == "Discrete":
            least, most = schema["minimum"], schema["maximum"]
            return spaces.Discrete(int(most) - int(least) + 1, start=int(least))
        if kind == "MultiDiscrete":
            whole = _widest(shape, np.dtype(np.int64))
            nvec, start = (element_of(whole, schema[name], f"{self._what}{path}") for name in ("nvec", "start"))
            return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)
        item: Any = schema
        for _ in shape:
            item = item.get("items", {})
        return self._box({**item, **schema}, shape, dtype, path)

    def _box(self, facts: Schema, shape: tuple[int, ...], dtype: np.dtype[Any], path: str) -> gym.Space[Any]:
        whole = _widest(shape, dtype)
        bounds = []
        for names, default in ((("low", "minimum"), whole.low), (("high", "maximum"), whole.high)):
            found = next((facts[name] for name in names if name in facts), None)
            of = whole if isinstance(found, list) else _widest((), dtype)
            bounds.append(
                default if found is None else np.broadcast_to(element_of(of, found, f"{self._what}{path}"), shape)
            )
        return spaces.Box(bounds[0], bounds[1], shape, dtype.type)

    def _theirs(self, schema: Schema, path: str, depth: int) -> gym.Space[Any]:
        kind = schema.get("type")
        literals = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if literals is not None:
            return self._literals(literals, path)
        if kind == "string":
            return self._text(schema)
        if kind == "boolean":
            return spaces.Box(0, 1, (), np.bool_)
        if kind == "integer":
            least, most = schema.get("minimum"), schema.get("maximum")
            if isinstance(least, int) and isinstance(most, int):
                return spaces.Discrete(most - least + 1, start=least)
        if kind in ("integer", "number"):
            return self._numbers(schema, (), path)
        if kind == "array":
            return self._list(schema, path, depth)
        if kind == "object" and isinstance(schema.get("properties"), Mapping):
            return self._dict(schema["properties"], path, depth)
        found = {key: schema[key] for key in ("type", "anyOf", "oneOf", "allOf") if key in schema} or "anything"
        raise self._error(path, f"is {shown(found)!r:.200}, and has no space")

    def _literals(self, literals: Any, path: str) -> gym.Space[Any]:
        if literals and all(isinstance(each, str) for each in literals):
            return spaces.Text(
                min(max(map(len, literals)), self._longest) or 1, min_length=0, charset=_characters(literals)
            )
        if literals and all(type(each) is int for each in literals):
            found = sorted(set(literals))
            if found[-1] - found[0] + 1 == len(found):
                return spaces.Discrete(len(found), start=found[0])
        raise self._error(path, f"is one of {shown(literals)!r:.200}, which make no space")

    def _list(self, schema: Schema, path: str, depth: int) -> gym.Space[Any]:
        if "prefixItems" in schema:
            return self._tuple(schema["prefixItems"], path, depth)
        shape: list[Any] = []
        item = schema
        while item.get("type") == "array" and item.get("minItems") is not None and len(shape) < 32:
            if item["minItems"] != item.get("maxItems"):
                break
            shape.append(item["minItems"])
            item = item["items"]
        if shape and item.get("type") in ("integer", "number") and "enum" not in item:
            return self._numbers(item, self._shape(shape, path), path)
        if shape:
            [length] = self._shape(shape[:1], path)
            return self._tuple([schema["items"]] * min(length, MOST_SPACES + 1), path, depth)
        return spaces.Sequence(self.space(schema.get("items"), f"{path}[...]", depth + 1))

    def _numbers(self, item: Schema, shape: tuple[int, ...], path: str) -> gym.Space[Any]:
        dtype = np.dtype(np.int64 if item["type"] == "integer" else np.float64)
        self._check_size(shape, dtype, path)
        bounds = {name: item[name] for name in ("minimum", "maximum") if name in item}
        return self._box(bounds, shape, dtype, path)

    def _text(self, schema: Schema) -> gym.Space[Any]:
        longest = min(int(schema.get("maxLength", self._longest)), self._limits.text_length)
        least = min(int(schema.get("minLength", 0)), longest)
        if "space" in schema:  # whose characters are Gymnasium's own, as far as ours tell
            return spaces.Text(longest, min_length=least)
        return spaces.Text(longest, min_length=least, charset=string.printable)

    def _dict(self, properties: Any, path: str, depth: int) -> spaces.Dict:
        members = {name: self.space(each, f"{path}[{shown(name)!r}]", depth + 1) for name, each in properties.items()}
        return spaces.Dict(members)

    def _tuple(self, items: Any, path: str, depth: int) -> gym.Space[Any]:
        return spaces.Tuple([self.space(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(items)])

    def _shape(self, shape: Any, path: str) -> tuple[int, ...]:
        if len(shape) > 32 or not all(type(length) is int and length >= 0 for length in shape):
            raise self._error(path, f"has the shape {shown(shape)!r:.100}")
        return tuple(shape)

    def _check_size(self, shape: tuple[int, ...], dtype: np.dtype[Any], path: str) -> None:
        self._bytes -= math.prod(shape) * dtype.itemsize
        if self._bytes < 0:
            raise self._error(path, f"has the shape {shape}; Limits.array_bytes allows {self._limits.array_bytes:,}")

    def _referred(self, reference: str, path: str) -> Any:
        found: Any = self._root
        head, *names = reference.split("/")
        for name in names if head == "#" else [""]:
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is None:
            raise self._error(path, f"refers to {shown(reference)!r:.200}, which is not there")
        return found

    def _error(self, path: str, text: str) -> EncodingError:
        return EncodingError(f"the server's {self._what}{path} {text}; give {self._what}_space")


class Form:
    """How elements of a space travel: as the members of an object.

    Args:
        space: Of the elements.
        name: Of the one member that the object has; None where the space is a `Dict`, whose members are the object's.
        what: ``"action"`` or ``"observation"``, for errors.
    """

    def __init__(self, space: gym.Space[Any], name: str | None, what: str) -> None:
        self.space = space
        self._name = name
        self._what = what

    def write(self, action: Any) -> Any:
        """Object of an action, as JSON holds it.

        Raises:
            InvalidAction: If it does not fit.
        """
        value = plain(self.space, action)
        return value if self._name is None else {self._name: value}

    def read(self, data: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Element that an object holds, and the object's other members.

        Raises:
            EncodingError: If it does not fit, or is missing.
        """
        if self._name is None:
            assert isinstance(self.space, spaces.Dict)
            names = {str(key) for key in self.space.spaces}
            element = element_of(self.space, {name: data[name] for name in data if name in names}, self._what)
            return element, {name: each for name, each in data.items() if name not in names}
        if self._name not in data:
            text = f"the server sent no {self._name!r}, but {shown(sorted(data)):.300}"
            raise EncodingError(f"{text}; give {self._what}_space, a Dict")
        rest = {name: value for name, value in data.items() if name != self._name}
        return element_of(self.space, data[self._name], self._what), rest


_NO_OBSERVATION = frozenset({"done", "reward", "metadata"})
"""Members of every one of their observations, which travel beside it."""


def form_of(schema: Any, what: str, limits: Limits) -> Form:
    """Describe how actions or observations travel that a schema is for.

    Args:
        schema: As the server's ``/schema`` has it.
        what: ``"action"`` or ``"observation"``.
        limits: Bounds on arrays, texts and depth.

    Raises:
        EncodingError: If it has no space.
    """
    members = members_of(schema, what)
    made = Schemas(schema, what, limits)
    if schema.get("space") == "Dict":
        return Form(made.space(schema), None, what)
    if len(members) == 1:
        [(name, member)] = members.items()
        return Form(made.space(member, f"[{shown(name)!r}]"), name, what)
    return Form(made.space({"type": "object", "properties": members}), None, what)


def members_of(schema: Any, what: str) -> Mapping[str, Any]:
    """Members that an action or an observation consists of: of an action those that it must have, where it has any.

    Raises:
        EncodingError: If it is no schema of an object.
    """
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
        raise EncodingError(f"the server describes no {what} in its /schema; give {what}_space")
    if what == "observation":
        found = {name: each for name, each in properties.items() if name not in _NO_OBSERVATION}
        return found if schema.get("space") is None else properties
    required = schema.get("required")
    needed = [name for name in required if name in properties] if isinstance(required, list) else []
    return {name: properties[name] for name in needed or properties if name != "metadata" or name in needed}


def _characters(texts: list[str]) -> str:
    return "".join(sorted(set("".join(texts)))) or string.printable


def _widest(shape: tuple[int, ...], dtype: np.dtype[Any]) -> spaces.Box:
    """Box of all that a dtype can hold."""
    if dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, shape, dtype.type)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return spaces.Box(low, high, shape, dtype.type)
