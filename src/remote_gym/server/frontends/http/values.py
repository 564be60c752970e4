"""Writes as JSON what environments return, and reads elements of spaces from JSON."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.wire.spaces.casting import OneOf

_FEW = 64
"""Elements of an array up to which Python's own JSON is as fast."""

_AT_ONCE = 4096
"""Elements of an array that are written before another thread may run: `json` writes what it is given in one go."""

_BLOCK = 2**15
"""Elements of an array of bytes that are written in one go, in some 2 ms."""


class JsonWriter:
    """Writes values as JSON.

    Args:
        texts: Whether NaN and the infinities are the texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as JSON
            proper needs; else the words that Python and JavaScript write, and only the former reads.
        base64: Whether arrays are objects of ``dtype``, ``shape`` and ``base64``; else nested lists.
    """

    def __init__(self, *, texts: bool = False, base64: bool = False) -> None:
        self._texts = texts
        self._base64 = base64

    def write(self, value: Any) -> bytes:
        """Write a value. Arrays are nested lists; what JSON does not know is its ``repr``."""
        parts: list[bytes] = []
        self._write(value, parts.append)
        return b"".join(parts)

    def _write(self, value: Any, put: Callable[[bytes], None]) -> None:
        if value is None or isinstance(value, (bool, int, str)):
            put(json.dumps(value).encode())
        elif isinstance(value, float):
            put(self._number(value))
        elif isinstance(value, np.ndarray):
            self._write_array(value, put)
        elif isinstance(value, np.generic):
            self._write_scalar(value, put)
        elif isinstance(value, Written):
            put(value.data)
        elif isinstance(value, Mapping):
            self._write_mapping(value, put)
        elif isinstance(value, GraphInstance):
            self._write_mapping(value._asdict(), put)
        elif isinstance(value, (list, tuple, set, frozenset)):
            self._write_list(value, put)
        else:
            put(json.dumps(_other(value)).encode())

    def _number(self, value: float) -> bytes:
        if self._texts and not math.isfinite(value):
            return b'"%s"' % json.dumps(value).encode()
        return json.dumps(value).encode()

    def _write_scalar(self, value: Any, put: Callable[[bytes], None]) -> None:
        item = value.item()
        self._write(repr(value) if isinstance(item, np.generic) else item, put)

    def _write_mapping(self, value: Mapping[Any, Any], put: Callable[[bytes], None]) -> None:
        put(b"{")
        for position, (key, member) in enumerate(value.items()):
            put((", " if position else "").encode() + json.dumps(str(key)).encode() + b": ")
            self._write(member, put)
        put(b"}")

    def _write_list(self, value: Iterable[Any], put: Callable[[bytes], None]) -> None:
        put(b"[")
        for position, member in enumerate(value):
            if position:
                put(b", ")
            self._write(member, put)
        put(b"]")

    def _write_array(self, array: NDArray[Any], put: Callable[[bytes], None]) -> None:
        if self._base64 and array.ndim and array.dtype.kind in "biuf":
            little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            data = base64_text(little.tobytes())
            self._write({"dtype": str(array.dtype), "shape": list(array.shape), "base64": data}, put)
        elif array.dtype == np.uint8 and array.ndim and array.size > _FEW:
            put(bytes_as_json(array))
        elif array.dtype.kind not in "biuf" or (
            self._texts and array.dtype.kind == "f" and not np.isfinite(array).all()
        ):
            self._write(array.tolist() if array.dtype.kind in "fOUST" else array.astype(str).tolist(), put)
        elif array.size > _AT_ONCE and array.ndim > 1:
            self._write_list(array, put)
        else:
            put(json.dumps(array.tolist()).encode())


class Written:
    """JSON that is written already, within what is to be written.

    Args:
        data: That.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data


def bytes_as_json(array: NDArray[np.uint8]) -> bytes:
    """Write an array of bytes as nested lists, six to ten times as fast as from Python's integers.

    Each element takes four characters, of which JSON ignores the blank ones. Of a large one some rows are written at a
    time, so that other threads have their turns in between.

    Args:
        array: Of one dimension at least, and not empty.
    """
    if not array.size:
        return json.dumps(array.tolist()).encode()
    if array.ndim == 1 or array.size <= _BLOCK:
        return _written_at_once(array)
    rows = max(1, _BLOCK * len(array) // array.size)
    blocks = (_written_at_once(array[start : start + rows])[1:-1] for start in range(0, len(array), rows))
    return b"[" + b",".join(blocks) + b"]"


def _written_at_once(array: NDArray[np.uint8]) -> bytes:
    rows = _DIGITS[array.reshape(-1)]
    for length in reversed(array.shape):
        width = length * rows.shape[1]
        whole = np.empty((rows.size // width, width + 2), np.uint8)
        whole[:, 0] = ord("[")
        whole[:, 1:-1] = rows.reshape(-1, width)
        whole[:, -2] = ord("]")  # in the place of the last comma
        whole[:, -1] = ord(",")
        rows = whole
    return rows[:, :-1].tobytes()


_DIGITS = np.frombuffer("".join(f"{number:3d}," for number in range(256)).encode(), np.uint8).reshape(256, 4)


def base64_text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()


def _other(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64_text(bytes(value))
    return str(value) if hasattr(value, "isoformat") else repr(value)


# --------------------------------------------------------------------------------------------------------------
# From JSON


@functools.singledispatch
def element_of(space: gym.Space[Any], value: Any) -> Any:
    """Turn what JSON holds into an element of a space, as far as that can be told.

    What has another form stays as it is, for whoever encodes it to refuse, naming the place.

    Args:
        space: Of the element.
        value: As `json.loads` returns it.
    """
    return value


@element_of.register(spaces.Box)
@element_of.register(spaces.MultiDiscrete)
@element_of.register(spaces.MultiBinary)
def _array(space: gym.Space[Any], value: Any) -> Any:
    array = _to_array(value, space.dtype)
    if isinstance(array, np.ndarray) and not array.size and 0 in (space.shape or ()):  # lists do not say all lengths
        return np.empty(space.shape or (), space.dtype)
    return array


@element_of.register(spaces.Discrete)
def _integer(space: spaces.Discrete, value: Any) -> Any:
    """As the space samples it, where JSON's integers are Python's."""
    if isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return space.dtype.type(value)
    return value


@element_of.register(spaces.Dict)
def _dict(space: spaces.Dict, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    names = {str(key): key for key in space.spaces}  # JSON's keys are texts
    return {
        names.get(key, key): element_of(space.spaces[names[key]], member) if key in names else member
        for key, member in value.items()
    }


@element_of.register(spaces.Tuple)
def _tuple(space: Any, value: Any) -> Any:
    if not isinstance(value, list) or len(value) != len(space.spaces):
        return value
    return tuple(element_of(member, each) for member, each in zip(space.spaces, value, strict=True))


@element_of.register(spaces.Sequence)
def _sequence(space: spaces.Sequence, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if getattr(space, "stack", False) and isinstance(space.feature_space, spaces.Box):
        return _to_array(value, space.feature_space.dtype)
    return tuple(element_of(space.feature_space, each) for each in value)


@element_of.register(spaces.Graph)
def _graph(space: spaces.Graph, value: Any) -> Any:
    if not isinstance(value, dict) or not {"nodes"} <= value.keys() <= {"nodes", "edges", "edge_links"}:
        return value
    links, edges = value.get("edge_links"), value.get("edges")
    return GraphInstance(
        nodes=_to_array(value["nodes"], space.node_space.dtype),
        edges=None if edges is None or space.edge_space is None else _to_array(edges, space.edge_space.dtype),
        edge_links=None if links is None else _links(links),
    )


def _links(value: Any) -> Any:
    array = _to_array(value, np.int32)
    return array.astype(np.int32) if isinstance(array, np.ndarray) and array.dtype.kind == "i" else array


if OneOf is not None:

    @element_of.register(OneOf)
    def _one_of(space: Any, value: Any) -> Any:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], int):
            return value
        if not 0 <= value[0] < len(space.spaces):
            return value
        return np.int64(value[0]), element_of(space.spaces[value[0]], value[1])


_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _to_array(value: Any, dtype: Any) -> Any:
    """An array of numbers; what is none stays as it is."""
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "base64"}:
        return _from_base64(value)
    if isinstance(value, str):
        value = _WORDS.get(value, value)
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return value
    if array.dtype.kind == "U" and array.ndim:  # of texts that stand for numbers, with numbers beside them
        array = np.asarray(_numbers(value))
    if not array.size and array.dtype.kind == "f":  # an empty list, of no kind
        array = array.astype(dtype)
    return array if array.dtype.kind in "biuf" else value


def _from_base64(value: dict[str, Any]) -> Any:
    """An array that came as base64; what is none stays as it is."""
    try:
        dtype = np.dtype(str(value["dtype"])).newbyteorder("<")
        if dtype.kind not in "biuf":
            return value
        data = base64.b64decode(value["base64"], validate=True)
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape([int(n) for n in value["shape"]])
    except (TypeError, ValueError):
        return value


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return _WORDS.get(value, value) if isinstance(value, str) else value
