"""The packed form of a space's elements: raw little-endian bytes, nothing else.

Both ends compile the same layout from the same space, so neither names nor shapes travel. The proto file tells
which elements have a packed form, and which bytes it is.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from remote_gym.errors import EncodingError
from remote_gym.wire.values.arrays import from_bytes, scalar_to_bytes, to_bytes

_LITTLE_ENDIAN = sys.byteorder == "little"

_Read = Callable[[bytes | memoryview, int], Any]  # of all the bytes, and where in them the element begins


@dataclass(frozen=True)
class Layout:
    """How elements of a space are packed.

    Attributes:
        space: The space.
        size: Bytes of a packed element; None where the space has no packed form.
        read: The element whose packed form begins at an offset, and ends within the data: its arrays are writable and
            share no memory. Raises an `EncodingError` where a bool is neither 0 nor 1.
        pack: The packed form of an element; None where the space has none, or the element is not canonical, that
            is, of exactly the type, dtype, shape and key order which the space would sample. Bounds do not matter.
    """

    space: gym.Space[Any]
    size: int | None
    pack: Callable[[Any], bytes | None]
    read: _Read

    def adopt(self, data: memoryview) -> Any:
        """As `unpack`, but an array of bytes becomes what `data` is, where that can be written to.

        Raises:
            EncodingError: As `unpack`.
        """
        space = self.space
        is_of_bytes = isinstance(space, spaces.Box) and space.dtype in (np.uint8, np.int8)
        if is_of_bytes and space.shape is not None and len(data) == self.size and not data.readonly:
            return np.ndarray(space.shape, space.dtype, data)
        return self.unpack(data)

    def unpack(self, data: bytes | memoryview) -> Any:
        """The element of a packed form: its arrays are writable and share no memory.

        Raises:
            EncodingError: If there is another number of bytes, or a bool is neither 0 nor 1.
        """
        if self.size is None:
            raise EncodingError(f"an element came packed, and {self.space} has no packed form")
        if len(data) != self.size:
            raise EncodingError(f"a packed element of {self.space} has {self.size} bytes, not {len(data)}")
        return self.read(data, 0)


class _Part(NamedTuple):
    """The layout of a space or of a member of it."""

    size: int
    pack: Callable[[Any], bytes | None]
    read: _Read


def compile_layout(space: gym.Space[Any]) -> Layout:
    """Work out the packed form of a space's elements.

    A space without one has a layout as well, whose `pack` always gives None.
    """
    part = _part(space)
    if part is None:
        return Layout(space, None, lambda _element: None, lambda _data, _offset: None)
    return Layout(space, part.size, part.pack, part.read)


@functools.singledispatch
def _part(_space: gym.Space[Any]) -> _Part | None:
    return None


@_part.register(spaces.Box)
@_part.register(spaces.MultiDiscrete)
@_part.register(spaces.MultiBinary)
def _array_part(space: spaces.Box) -> _Part | None:
    dtype, shape = space.dtype, space.shape
    if not dtype.isnative:
        return None
    size = math.prod(shape) * dtype.itemsize

    def pack(element: Any) -> bytes | None:
        if type(element) is not np.ndarray or element.dtype != dtype or element.shape != shape:
            return None
        return element.tobytes() if _LITTLE_ENDIAN else to_bytes(element)

    def read(data: bytes | memoryview, offset: int) -> Any:
        return from_bytes(data, dtype, shape, offset)

    def read_native(data: bytes | memoryview, offset: int) -> Any:
        return np.ndarray(shape, dtype, data, offset).copy()

    return _Part(size, pack, read_native if _LITTLE_ENDIAN and dtype.kind != "b" else read)


@_part.register(spaces.Discrete)
def _discrete_part(space: spaces.Discrete) -> _Part:
    dtype = np.dtype(space.dtype)
    scalar_type, size, signed = dtype.type, dtype.itemsize, dtype.kind == "i"

    def pack(element: Any) -> bytes | None:
        if type(element) is not scalar_type:
            return None
        return element.tobytes() if _LITTLE_ENDIAN else scalar_to_bytes(element)

    def read(data: bytes | memoryview, offset: int) -> Any:
        # By way of an int, which takes a quarter of the time that an array would.
        return scalar_type(int.from_bytes(data[offset : offset + size], "little", signed=signed))

    return _Part(size, pack, read)


@_part.register(spaces.Dict)
def _dict_part(space: spaces.Dict) -> _Part | None:
    keys = tuple(space.spaces)
    members = _parts(space.spaces.values())
    if members is None:
        return None

    def pack(element: Any) -> bytes | None:
        # An OrderedDict, which Gymnasium sampled before 1.0, would arrive as a dict in any form.
        if type(element) not in (dict, OrderedDict) or tuple(element) != keys:
            return None
        return _join(members, element.values())

    def read(data: bytes | memoryview, offset: int) -> dict[Any, Any]:
        return dict(zip(keys, _read_each(members, data, offset), strict=True))

    return _Part(sum(member.size for member in members), pack, read)


@_part.register(spaces.Tuple)
def _tuple_part(space: spaces.Tuple[Any]) -> _Part | None:
    members = _parts(space.spaces)
    if members is None:
        return None

    def pack(element: Any) -> bytes | None:
        if type(element) is not tuple or len(element) != len(members):
            return None
        return _join(members, element)

    def read(data: bytes | memoryview, offset: int) -> tuple[Any, ...]:
        return tuple(_read_each(members, data, offset))

    return _Part(sum(member.size for member in members), pack, read)


def _parts(members: Any) -> list[_Part] | None:
    parts = [_part(member) for member in members]
    known = [part for part in parts if part is not None]
    return known if len(known) == len(parts) else None


def _join(members: list[_Part], elements: Any) -> bytes | None:
    pieces = []
    for member, element in zip(members, elements, strict=True):
        piece = member.pack(element)
        if piece is None:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _read_each(members: list[_Part], data: bytes | memoryview, offset: int) -> list[Any]:
    elements = []
    for member in members:
        elements.append(member.read(data, offset))
        offset += member.size
    return elements
