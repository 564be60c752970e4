"""Spaces to messages and back: rebuilt, a space is equal, and samples alike from the same seed."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import string
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.arrays import checked_shape, dtype_code, from_bytes, number_dtype, to_bytes
from remote_gym.wire.conform import Mismatch, OneOf, fit, is_textual
from remote_gym.wire.decoding import dict_of
from remote_gym.wire.unencodable import short_repr, type_name
from remote_gym.wire.values import decode_value, encode_value

S = TypeVar("S")

_DISCRETE_HAS_DTYPE = "dtype" in inspect.signature(spaces.Discrete).parameters
_DICT_HAS_SORT_KEYS = "sort_keys" in inspect.signature(spaces.Dict).parameters

_KEY_DEPTH = 4  # of a Dict space's keys: the space's own nesting comes on top, and parsers stop at 100 levels
_SPACE_COST = 16  # in items: a space takes that much longer to build than a value
_TRIALS = 32  # samples that a stand-in has to contain
_TEXT_ROOM = 4096  # characters that a text of unknown length may have, at least


def encode_space(space: gym.Space[Any], limits: Limits) -> pb.Space:
    """Write a space.

    A subclass of one of Gymnasium's spaces travels as that, if samples of the one are elements of the other. A space
    of texts of an unknown class travels as a Text space with room for any printable text.

    Raises:
        ConfigError: If the space has no wire form, or is over the limits.
    """
    message = pb.Space()
    _write(space, message, limits, 0)
    try:
        decode_space(message, limits)
    except EncodingError as error:
        raise ConfigError(f"the space {short_repr(space)} cannot travel: {error}") from error
    return message


def decode_space(message: pb.Space, limits: Limits) -> gym.Space[Any]:
    """Rebuild a space.

    Raises:
        EncodingError: If the message describes none, one over the limits, or one that the installed Gymnasium lacks.
    """
    return _Decoding(limits).read(message)


# Encoding -------------------------------------------------------------------------------------------------


def _write(space: gym.Space[Any], into: pb.Space, limits: Limits, depth: int) -> None:
    if depth > limits.depth:
        raise ConfigError(f"a space is nested deeper than {limits.depth} levels (Limits.depth)")
    _write_kind(space, into, limits, depth)
    if type(space) not in _KINDS:
        _check_stand_in(space, into, limits)


@functools.singledispatch
def _write_kind(space: gym.Space[Any], into: pb.Space, limits: Limits, _depth: int) -> None:
    if not is_textual(space):
        raise ConfigError(f"a space of type {type_name(space)} has no wire form; use one of Gymnasium's own spaces")
    samples = _samples(space)
    if not all(isinstance(sample, str) for sample in samples):
        raise ConfigError(f"a space of type {type_name(space)} has no wire form: its samples are not all texts")
    longest = max(map(len, samples))
    into.text.max_length = min(max(_TEXT_ROOM, 4 * longest), limits.text_length)
    usual = string.digits + string.ascii_letters + string.punctuation + " \n\t"
    _set_characters(into.text, usual + "".join(sorted(set().union(*samples) - set(usual))))


@_write_kind.register(spaces.Box)
def _write_box(space: spaces.Box, into: pb.Space, _limits: Limits, _depth: int) -> None:
    into.box.dtype = _code(space)
    into.box.shape.extend(space.shape)
    into.box.low = _uniform(space.low)
    into.box.high = _uniform(space.high)
    into.box.bounded_below = _uniform(space.bounded_below)
    into.box.bounded_above = _uniform(space.bounded_above)


@_write_kind.register(spaces.Discrete)
def _write_discrete(space: spaces.Discrete, into: pb.Space, _limits: Limits, _depth: int) -> None:
    into.discrete.dtype = _code(space)
    into.discrete.n = _wrapped(int(space.n))
    into.discrete.start = _wrapped(int(space.start))


@_write_kind.register(spaces.MultiDiscrete)
def _write_multi_discrete(space: spaces.MultiDiscrete, into: pb.Space, _limits: Limits, _depth: int) -> None:
    into.multi_discrete.dtype = _code(space)
    into.multi_discrete.shape.extend(space.nvec.shape)
    into.multi_discrete.nvec = to_bytes(space.nvec)
    into.multi_discrete.start = to_bytes(space.start)


@_write_kind.register(spaces.MultiBinary)
def _write_multi_binary(space: spaces.MultiBinary, into: pb.Space, _limits: Limits, _depth: int) -> None:
    into.multi_binary.shape.extend(space.shape)
    into.multi_binary.scalar_n = not isinstance(space.n, tuple)


@_write_kind.register(spaces.Text)
def _write_text(space: spaces.Text, into: pb.Space, _limits: Limits, _depth: int) -> None:
    into.text.min_length = space.min_length
    into.text.max_length = space.max_length
    if any(len(character) != 1 for character in space.character_list):
        raise ConfigError(f"a Text space has the characters {short_repr(space.character_list)}; each has to be one")
    _set_characters(into.text, "".join(space.character_list))


@_write_kind.register(spaces.Dict)
def _write_dict(space: spaces.Dict, into: pb.Space, limits: Limits, depth: int) -> None:
    into.dict.SetInParent()
    into.dict.sort_keys_off = not getattr(space, "sort_keys", True)
    key_limits = _key_limits(limits)
    for key, member in space.spaces.items():
        try:
            encode_value(key, into.dict.keys.add(), strict=True, limits=key_limits, path="a Dict space's key")
        except EncodingError as error:
            raise ConfigError(str(error)) from error
        _write(member, into.dict.spaces.add(), limits, depth + 1)


@_write_kind.register(spaces.Tuple)
def _write_tuple(space: spaces.Tuple, into: pb.Space, limits: Limits, depth: int) -> None:
    into.tuple.SetInParent()
    _write_members(space.spaces, into.tuple, limits, depth)


@_write_kind.register(spaces.Sequence)
def _write_sequence(space: spaces.Sequence, into: pb.Space, limits: Limits, depth: int) -> None:
    into.sequence.stack = space.stack
    _write(space.feature_space, into.sequence.space, limits, depth + 1)


@_write_kind.register(spaces.Graph)
def _write_graph(space: spaces.Graph, into: pb.Space, limits: Limits, depth: int) -> None:
    _write(space.node_space, into.graph.node_space, limits, depth + 1)
    if space.edge_space is not None:
        _write(space.edge_space, into.graph.edge_space, limits, depth + 1)


def _write_one_of(space: Any, into: pb.Space, limits: Limits, depth: int) -> None:
    _write_members(space.spaces, into.one_of, limits, depth)


if OneOf is not None:
    _write_kind.register(OneOf, _write_one_of)

_KINDS = frozenset(_write_kind.registry) - {object}


def _write_members(
    members: Iterable[gym.Space[Any]], into: pb.TupleSpace | pb.OneOfSpace, limits: Limits, depth: int
) -> None:
    for member in members:
        _write(member, into.spaces.add(), limits, depth + 1)


def _check_stand_in(space: gym.Space[Any], message: pb.Space, limits: Limits) -> None:
    try:
        stand_in = decode_space(message, limits)
    except EncodingError as error:
        raise ConfigError(f"a space of type {type_name(space)} has no wire form: {error}") from error
    for sample in _samples(space):
        try:
            fit(stand_in, sample)
            fits = stand_in.contains(sample)
        except (Mismatch, TypeError, ValueError):
            fits = False
        if not fits:
            raise ConfigError(
                f"a space of type {type_name(space)} cannot travel as {short_repr(stand_in)}: its sample "
                f"{short_repr(sample)} is no element of that; use one of Gymnasium's own spaces"
            )


def _samples(space: gym.Space[Any]) -> list[Any]:
    """Elements drawn from a copy, so that the space's own generator does not move."""
    try:
        twin = copy.deepcopy(space)
        twin.seed(0)
        return [twin.sample() for _ in range(_TRIALS)]
    except Exception as error:
        raise ConfigError(f"a space of type {type_name(space)} cannot be copied and sampled: {error!r}") from error


def _code(space: gym.Space[Any]) -> pb.DType:
    dtype = np.dtype(space.dtype)
    code = dtype_code(dtype)
    if code is None or not dtype.isnative:
        raise ConfigError(f"a {type(space).__name__} space has the dtype {dtype!r}; use a native one, such as float32")
    return code


def _uniform(bounds: NDArray[Any]) -> bytes:
    """One element where all have the same bits, all of them otherwise."""
    data = to_bytes(bounds)
    first = data[: bounds.itemsize]
    return first if data == first * bounds.size else data


def _set_characters(into: pb.TextSpace, characters: str) -> None:
    try:
        into.characters = characters
    except UnicodeEncodeError as error:
        raise ConfigError(f"a Text space has a lone surrogate among its characters: {error}") from error


def _wrapped(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _key_limits(limits: Limits) -> Limits:
    return replace(limits, depth=min(limits.depth, _KEY_DEPTH))


# Decoding -------------------------------------------------------------------------------------------------


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
            raise EncodingError("a space is of no kind that this version knows")
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
        key_limits = _key_limits(self._limits)
        entries = dict_of([decode_value(key, key_limits) for key in message.keys], members)
        options = {"sort_keys": not message.sort_keys_off} if _DICT_HAS_SORT_KEYS else {}
        return _build(lambda: spaces.Dict(list(entries.items()), **options))

    def _read_tuple(self, message: pb.TupleSpace) -> spaces.Tuple:
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
