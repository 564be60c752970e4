"""Elements of a batched space in slices: what several workers observe, joined; an action, divided among them.

A slice is what one worker holds of a vector environment. The packed form of a batched element is its leaves, arrays of
shape ``(num_envs, ...)``, one after the other. So what a worker sends is copied once, into its rows of the arrays that
the client hands out.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, InvalidAction
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.casting import Mismatch, fit
from remote_gym.wire.spaces.elements import decode_observation
from remote_gym.wire.spaces.layout import Layout, compile_layout
from remote_gym.wire.values import encode_value
from remote_gym.wire.values.arrays import to_bytes
from remote_gym.wire.values.foreign import NoArray, local

_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Part(NamedTuple):
    """A slice's observation, as it came."""

    size: int
    """How many environments it is of."""
    transition: pb.Transition
    packed: memoryview | None = None
    """Bytes that `remote_gym.wire.splice.parse_response` left out of it."""

    def rows(self) -> bytes | memoryview | None:
        """Its packed form; None where it came in another."""
        if self.packed is not None:
            return self.packed
        return self.transition.packed if self.transition.WhichOneof("observation") == "packed" else None


class _Leaf(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of one environment's


@dataclass(frozen=True)
class Batch:
    """How elements of a batched space are joined and divided.

    Attributes:
        single: The space of one environment.
        space: The space of all of them.
    """

    single: gym.Space[Any]
    space: gym.Space[Any]
    _leaves: list[_Leaf] | None  # None where elements have no packed form
    _layouts: dict[int, Layout] = field(default_factory=dict)  # of so many rows, whose bounds do not matter

    def join(self, parts: Sequence[Part], limits: Limits) -> Any:
        """The observation of the environments of several slices, in arrays of its own.

        Args:
            parts: In the order in which they are to be joined.
            limits: Bounds on what is decoded.

        Raises:
            EncodingError: If a slice's observation does not fit.
        """
        sizes = [part.size for part in parts]
        packed = [rows for part in parts if (rows := part.rows()) is not None]
        if self._leaves is None or len(packed) < len(parts):
            return _join(self.single, [self._decode(part, limits) for part in parts])
        arrays = [np.empty((sum(sizes), *leaf.shape), leaf.dtype) for leaf in self._leaves]
        start = 0
        for size, data in zip(sizes, packed, strict=True):
            self._read(data, arrays, start, start + size)
            start += size
        return _build(self.single, self.space, iter(arrays))

    def fit(self, action: Any, count: int) -> Any:
        """An action for that many environments, converted to its space's types.

        Raises:
            InvalidAction: If it does not fit its space, bounds aside.
        """
        try:
            return fit(self._layout(count).space, local(action))
        except Mismatch as mismatch:
            raise InvalidAction(f"action{mismatch}") from None
        except NoArray as reason:
            raise InvalidAction(f"action: {reason}") from reason

    def encode(self, action: Any, start: int, stop: int, into: pb.StepRequest, limits: Limits) -> None:
        """Write the rows from `start` to `stop` of an action that `fit` returned.

        Raises:
            EncodingError: If it exceeds the limits.
        """
        if self._leaves is None:
            part = _divide(self.single, action, start, stop)
            encode_value(part, into.value, strict=True, limits=limits, path="action")
        else:
            flat = _flatten(self.single, self.space, action)
            into.packed = b"".join([to_bytes(array[start:stop]) for array in flat])

    def _decode(self, part: Part, limits: Limits) -> Any:
        return decode_observation(self._layout(part.size), part.transition, limits, part.packed)

    def _layout(self, count: int) -> Layout:
        if count not in self._layouts:
            self._layouts[count] = compile_layout(_first_rows(self.single, self.space, count))
        return self._layouts[count]

    def _read(self, data: bytes | memoryview, arrays: list[NDArray[Any]], start: int, stop: int) -> None:
        assert self._leaves is not None
        count = stop - start
        size = count * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in self._leaves)
        if len(data) != size:
            raise EncodingError(f"a packed observation of {count} environments has {size} bytes, not {len(data)}")
        offset = 0
        for array, leaf in zip(arrays, self._leaves, strict=True):
            dtype = leaf.dtype if sys.byteorder == "little" else leaf.dtype.newbyteorder("<")
            rows: NDArray[Any] = np.ndarray((count, *leaf.shape), dtype, data, offset)
            if dtype.kind == "b" and rows.view(np.uint8).max(initial=0) > 1:
                raise EncodingError("a bool is neither 0 nor 1")
            array[start:stop] = rows
            offset += rows.nbytes


def compile_batch(single: gym.Space[Any], space: gym.Space[Any]) -> Batch:
    """Work out how elements of a batched space are made.

    Args:
        single: The space of one environment.
        space: Its batch, as `gymnasium.vector.utils.batch_space` makes it.

    Raises:
        EncodingError: If the one is no batch of the other.
    """
    try:
        leaves = list(_leaves(single, space))
    except _Unpackable:
        leaves = None
    return Batch(single, space, leaves)


class _Unpackable(Exception):
    """A space without a packed form."""


def _leaves(single: gym.Space[Any], space: gym.Space[Any]) -> Iterator[_Leaf]:
    if isinstance(single, _LEAVES):
        shape = single.shape or ()
        if not isinstance(space, _LEAVES) or (space.shape or ())[1:] != shape or space.dtype != single.dtype:
            raise EncodingError(f"{space} is no batch of {single}")
        if not np.dtype(space.dtype).isnative:
            raise _Unpackable
        yield _Leaf(np.dtype(space.dtype), shape)
    elif isinstance(single, spaces.Dict | spaces.Tuple):
        for _, member, batched in _members(single, space):
            yield from _leaves(member, batched)
    else:
        raise _Unpackable


def _members(single: Any, space: gym.Space[Any]) -> list[tuple[Any, gym.Space[Any], gym.Space[Any]]]:
    """Key, space and batched space of each member, in the order in which they are packed."""
    if isinstance(single, spaces.Dict) and isinstance(space, spaces.Dict):
        if single.spaces.keys() == space.spaces.keys():
            return [(key, single.spaces[key], member) for key, member in space.spaces.items()]
    elif isinstance(space, spaces.Tuple) and len(space.spaces) == len(single.spaces):
        return [(index, single.spaces[index], member) for index, member in enumerate(space.spaces)]
    raise EncodingError(f"{space} is no batch of {single}")


def _build(single: gym.Space[Any], space: gym.Space[Any], arrays: Iterator[NDArray[Any]]) -> Any:
    if isinstance(single, _LEAVES):
        return next(arrays)
    members = _members(single, space)
    if isinstance(single, spaces.Dict):
        return {key: _build(member, batched, arrays) for key, member, batched in members}
    return tuple(_build(member, batched, arrays) for _, member, batched in members)


def _flatten(single: gym.Space[Any], space: gym.Space[Any], element: Any) -> list[NDArray[Any]]:
    if isinstance(single, _LEAVES):
        return [element]
    members = _members(single, space)
    return [array for key, member, batched in members for array in _flatten(member, batched, element[key])]


def _join(single: gym.Space[Any], elements: Sequence[Any]) -> Any:
    if isinstance(single, _LEAVES):
        return np.concatenate(elements)
    if isinstance(single, spaces.Dict):
        return {key: _join(single.spaces[key], [element[key] for element in elements]) for key in elements[0]}
    if isinstance(single, spaces.Tuple):
        return tuple(_join(member, [element[n] for element in elements]) for n, member in enumerate(single.spaces))
    return tuple(itertools.chain.from_iterable(elements))


def _divide(single: gym.Space[Any], element: Any, start: int, stop: int) -> Any:
    if isinstance(single, spaces.Dict):
        return {key: _divide(single.spaces[key], member, start, stop) for key, member in element.items()}
    if isinstance(single, spaces.Tuple):
        return tuple(_divide(member, item, start, stop) for member, item in zip(single.spaces, element, strict=True))
    return element[start:stop]


# --------------------------------------------------------------------------------------------------------------
# Spaces themselves


def join_spaces(single: gym.Space[Any], batches: Sequence[gym.Space[Any]]) -> gym.Space[Any]:
    """The batched space of all environments, of those of their slices.

    Raises:
        EncodingError: If one is no batch of the single space.
    """
    if isinstance(single, spaces.Dict):
        found = [{key: (member, batch) for key, member, batch in _members(single, space)} for space in batches]
        entries = [
            (key, join_spaces(member, [members[key][1] for members in found])) for key, (member, _) in found[0].items()
        ]
        sort_keys = getattr(batches[0], "sort_keys", True)
        return spaces.Dict(entries) if sort_keys else spaces.Dict(entries, sort_keys=False)
    if isinstance(single, spaces.Tuple):
        columns = zip(*[_members(single, space) for space in batches], strict=True)
        return spaces.Tuple([join_spaces(column[0][1], [batch for _, _, batch in column]) for column in columns])
    return _join_rows(single, batches)


def _first_rows(single: gym.Space[Any], space: gym.Space[Any], count: int) -> gym.Space[Any]:
    if isinstance(single, spaces.Dict | spaces.Tuple):
        found = [(key, _first_rows(member, batched, count)) for key, member, batched in _members(single, space)]
        return spaces.Dict(found) if isinstance(single, spaces.Dict) else spaces.Tuple([part for _, part in found])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(space.spaces[:count])
    return _of_rows(space, lambda name: getattr(space, name)[:count])


def _join_rows(single: gym.Space[Any], batches: Sequence[Any]) -> gym.Space[Any]:
    if len({type(batch) for batch in batches}) > 1:
        raise EncodingError(f"{batches[0]} and {batches[-1]} are no batches of {single}")
    if isinstance(batches[0], spaces.Tuple):
        return spaces.Tuple([member for batch in batches for member in batch.spaces])
    return _of_rows(batches[0], lambda name: np.concatenate([getattr(batch, name) for batch in batches]))


def _of_rows(like: Any, rows_of: Callable[[str], NDArray[Any]]) -> gym.Space[Any]:
    """A space of the same kind, with those rows of each attribute."""
    if isinstance(like, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(rows_of("nvec"), dtype=like.dtype.type, start=rows_of("start"))
    if not isinstance(like, spaces.Box):
        raise EncodingError(f"{like} is no batch of a space")
    box = spaces.Box(rows_of("low"), rows_of("high"), dtype=like.dtype.type)
    # Infinite bounds of an integer box have become the dtype's own, yet it samples as if they were infinite.
    box.bounded_below, box.bounded_above = rows_of("bounded_below"), rows_of("bounded_above")
    return box
