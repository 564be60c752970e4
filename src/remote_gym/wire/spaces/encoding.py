"""Spaces to messages, from which they are rebuilt: equal, and sampling alike from the same seed."""

from __future__ import annotations

import copy
import functools
import string
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.casting import Mismatch, OneOf, fit, is_textual
from remote_gym.wire.spaces.decoding import decode_space, key_limits
from remote_gym.wire.spaces.image import ImageSpace
from remote_gym.wire.spaces.text import AnyText
from remote_gym.wire.values import encode_value
from remote_gym.wire.values.arrays import to_bytes
from remote_gym.wire.values.dtypes import dtype_code
from remote_gym.wire.values.unencodable import short_repr, type_name

__all__ = ["check_samples", "decode_space", "encode_space"]

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


@_write_kind.register(AnyText)
def _write_any_text(space: AnyText, into: pb.Space, limits: Limits, depth: int) -> None:
    _write_text(space, into, limits, depth)
    into.text.any = True


@_write_kind.register(spaces.Dict)
def _write_dict(space: spaces.Dict, into: pb.Space, limits: Limits, depth: int) -> None:
    into.dict.SetInParent()
    into.dict.sort_keys_off = not getattr(space, "sort_keys", True)
    bounds = key_limits(limits)
    for key, member in space.spaces.items():
        try:
            encode_value(key, into.dict.keys.add(), strict=True, limits=bounds, path="a Dict space's key")
        except EncodingError as error:
            raise ConfigError(str(error)) from error
        _write(member, into.dict.spaces.add(), limits, depth + 1)


@_write_kind.register(spaces.Tuple)
def _write_tuple(space: spaces.Tuple[Any], into: pb.Space, limits: Limits, depth: int) -> None:
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


@_write_kind.register(ImageSpace)
def _write_image(_space: ImageSpace, into: pb.Space, _limits: Limits, _depth: int) -> None:
    into.image.SetInParent()


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
    check_samples(type_name(space), _samples(space), stand_in)


def check_samples(name: str, samples: Iterable[Any], stand_in: gym.Space[Any]) -> None:
    """Check that samples of a space of an unknown class are elements of the one that it travels as.

    Raises:
        ConfigError: Naming the first that is none, and `name`, the class.
    """
    for sample in samples:
        try:
            fit(stand_in, sample)
            fits = stand_in.contains(sample)
        except (Mismatch, TypeError, ValueError):
            fits = False
        if not fits:
            raise ConfigError(
                f"a space of type {name} cannot travel as {short_repr(stand_in)}: its sample "
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
