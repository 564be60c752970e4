"""Messages to spaces."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.casting import OneOf
from remote_gym.wire.spaces.image import ImageSpace
from remote_gym.wire.spaces.text import AnyText
from remote_gym.wire.values import decode_value
from remote_gym.wire.values.arrays import checked_shape, from_bytes
from remote_gym.wire.values.decoding import dict_of
from remote_gym.wire.values.dtypes import number_dtype

S = TypeVar("S")

_DISCRETE_HAS_DTYPE = "dtype" in inspect.signature(spaces.Discrete).parameters
_DICT_HAS_SORT_KEYS = "sort_keys" in inspect.signature(spaces.Dict).parameters

_KEY_DEPTH = 4  # of a Dict space's keys: the space's own nesting comes on top, and parsers stop at 100 levels
_SPACE_COST = 16  # in items: a space takes that much longer to build than a value


def decode_space(message: pb.Space, limits: Limits) -> gym.Space[Any]:
    """Rebuild a space.

    Raises:
        EncodingError: If the message describes none, one over the limits, or one that the installed Gymnasium lacks.
    """
    return _Decoding(limits).read(message)


def key_limits(limits: Limits) -> Limits:
    """Bounds on each key of a Dict space."""
    return replace(limits, depth=min(limits.depth, _KEY_DEPTH))


class _Decoding:
    """One call of `decode_space`: reads each kind of space, and counts what it may still build."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._depth = 0
        self._items = limits.items
        self._bytes = limits.array_bytes
        # Gymnasium keeps copies of what Sequence and Graph hold, and copies of the copies where these are nested.
        self._copies = 1

    def read(self, message: pb.Space) -> gym.Space[Any]:
        kind = message.WhichOneof("kind")
        if kind is None:
            raise EncodingError("a space is of no kind that this release knows; have the same one at both ends")
        if self._depth > self._limits.depth:
            raise EncodingError(f"a space is nested deeper than {self._limits.depth} levels (Limits.depth)")
        self._items -= _SPACE_COST * self._copies
        if self._items < 0:
            raise EncodingError(f"a space has too many members for the limit of {self._limits.items} (Limits.items)")
        self._depth += 1
        space: gym.Space[Any] = getattr(self, f"_read_{kind}")(getattr(message, kind))
        self._depth -= 1
        return space

    def _read_box(self, message: pb.BoxSpace) -> spaces.Box:
        dtype = number_dtype(message.dtype)
        shape = self._charged(message.shape, 2 * dtype.itemsize + 2)
        bool_dtype = np.dtype(np.bool_)
        low = _bounds("low", message.low, dtype, shape)
        high = _bounds("high", message.high, dtype, shape)
        below = _bounds("bounded_below", message.bounded_below, bool_dtype, shape)
        above = _bounds("bounded_above", message.bounded_above, bool_dtype, shape)
        if dtype.kind == "c":
            raise EncodingError(f"a Box of dtype {dtype}")
        space = _build(lambda: spaces.Box(low, high, shape, dtype.type))
        # Infinite bounds of an integer box have become the dtype's own, yet it samples as if they were infinite.
        space.bounded_below, space.bounded_above = below, above
        return space

    def _read_discrete(self, message: pb.DiscreteSpace) -> spaces.Discrete:
        dtype = _integer_dtype("Discrete", message.dtype)
        bits = 2**64 if dtype == np.uint64 else 0
        n, start = (number + bits if number < 0 else number for number in (message.n, message.start))
        info = np.iinfo(dtype)
        if not (0 < n <= info.max and info.min <= start <= info.max):
            raise EncodingError(f"a Discrete space has n {n} and start {start}, which are not both of dtype {dtype}")
        if dtype == np.int64:
            return _build(lambda: spaces.Discrete(n, start=start))
        if not _DISCRETE_HAS_DTYPE:
            raise EncodingError(
                f"Discrete spaces of dtype {dtype} are unknown to gymnasium {gym.__version__}; update it"
            )
        return _build(lambda: spaces.Discrete(n, start=start, dtype=dtype.type))

    def _read_multi_discrete(self, message: pb.MultiDiscreteSpace) -> spaces.MultiDiscrete:
        dtype = _integer_dtype("MultiDiscrete", message.dtype)
        shape = self._charged(message.shape, 2 * dtype.itemsize)
        nvec = _elements("nvec", message.nvec, dtype, shape)
        start = _elements("start", message.start, dtype, shape)
        return _build(lambda: spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start))

    def _read_multi_binary(self, message: pb.MultiBinarySpace) -> spaces.MultiBinary:
        shape = self._charged(message.shape, 1)
        if message.scalar_n and len(shape) != 1:
            raise EncodingError(f"a MultiBinary space with a scalar n has the shape {shape}")
        return _build(lambda: spaces.MultiBinary(shape[0] if message.scalar_n else shape))

    def _read_text(self, message: pb.TextSpace) -> spaces.Text:
        if message.any:
            return AnyText()
        limit = self._limits.text_length
        if message.max_length > limit or len(message.characters) > limit:
            raise EncodingError(f"a Text space's max_length is {message.max_length}; the limit is {limit}")
        self._items -= len(message.characters) * self._copies
        return _build(
            lambda: spaces.Text(message.max_length, min_length=message.min_length, charset=message.characters)
        )

    def _read_dict(self, message: pb.DictSpace) -> spaces.Dict:
        if len(message.keys) != len(message.spaces):
            raise EncodingError(f"a Dict space has {len(message.keys)} keys and {len(message.spaces)} spaces")
        members = [self.read(member) for member in message.spaces]
        bounds = key_limits(self._limits)
        entries = list(dict_of([decode_value(key, bounds) for key in message.keys], members).items())
        if message.sort_keys_off and _DICT_HAS_SORT_KEYS:
            return _build(lambda: spaces.Dict(entries, sort_keys=False))
        return _build(lambda: spaces.Dict(entries))

    def _read_tuple(self, message: pb.TupleSpace) -> spaces.Tuple[Any]:
        members = [self.read(member) for member in message.spaces]
        return _build(lambda: spaces.Tuple(members))

    def _read_sequence(self, message: pb.SequenceSpace) -> spaces.Sequence:
        feature = self._read_copied(message.space) if message.stack else self.read(message.space)
        return _build(lambda: spaces.Sequence(feature, stack=message.stack))

    def _read_graph(self, message: pb.GraphSpace) -> spaces.Graph:
        node = self._read_copied(message.node_space)
        edge = self._read_copied(message.edge_space) if message.HasField("edge_space") else None
        return _build(lambda: spaces.Graph(node, edge))

    def _read_one_of(self, message: pb.OneOfSpace) -> gym.Space[Any]:
        if OneOf is None:
            raise EncodingError(f"OneOf spaces are unknown to gymnasium {gym.__version__}; update it to 1.0 or later")
        make: Callable[[list[gym.Space[Any]]], gym.Space[Any]] = OneOf
        members = [self.read(member) for member in message.spaces]
        return _build(lambda: make(members))

    def _read_image(self, _message: pb.ImageSpace) -> ImageSpace:
        return ImageSpace()

    def _read_copied(self, message: pb.Space) -> gym.Space[Any]:
        self._copies *= 2
        space = self.read(message)
        self._copies //= 2
        return space

    def _charged(self, shape: Any, bytes_per_element: int) -> tuple[int, ...]:
        sizes = checked_shape(shape, bytes_per_element, self._limits)
        self._bytes -= math.prod(sizes) * bytes_per_element * self._copies
        if self._bytes < 0:
            raise EncodingError(f"a space's bounds are over the limit of {self._limits.array_bytes} bytes")
        return sizes


def _build(make: Callable[[], S]) -> S:
    try:
        return make()
    except Exception as error:  # whatever Gymnasium's constructors raise, assertions among them
        raise EncodingError(f"Gymnasium {gym.__version__} refuses a space: {error}") from error


def _integer_dtype(kind: str, code: int) -> np.dtype[Any]:
    dtype = number_dtype(code)
    if dtype.kind not in "iu":
        raise EncodingError(f"a {kind} space has the dtype {dtype}; it has to be an integer")
    return dtype


def _elements(name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise EncodingError(f"{name} has {len(data)} bytes, which does not fit shape {shape} and dtype {dtype}")
    return from_bytes(data, dtype, shape)


def _bounds(name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(data) == dtype.itemsize:
        return np.full(shape, from_bytes(data, dtype, ()), dtype)
    return _elements(name, data, dtype, shape)
