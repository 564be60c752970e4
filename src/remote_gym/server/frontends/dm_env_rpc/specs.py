"""Gymnasium's spaces as specs of dm_env_rpc, and elements of these as tensors and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
from dm_env_rpc.v1 import tensor_utils
from gymnasium import spaces

from remote_gym.errors import ConfigError, InvalidAction

SEPARATOR = "."
"""Between the levels of a name, as `dm_env_rpc.v1.dm_env_adaptor` has it."""

_WIDER: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.int16): np.dtype(np.int32),
    np.dtype(np.uint16): np.dtype(np.uint32),
    np.dtype(np.float16): np.dtype(np.float32),
}
"""Dtypes that dm_env_rpc does not have, and those that hold all of their values."""


@dataclass(frozen=True)
class Leaf:
    """A part of an element that is one tensor.

    Attributes:
        path: Where it is in the element: keys of dicts, indices of tuples.
        space: Its own.
        dtype: As it travels.
        spec: As a client is told.
    """

    path: tuple[Any, ...]
    space: gym.Space[Any]
    dtype: np.dtype[Any]
    spec: Any

    def pack(self, value: Any) -> Any:
        """Tensor of its value."""
        if isinstance(self.space, spaces.Text):
            return tensor_utils.pack_tensor(value, dtype=dm.DataType.STRING)
        return tensor_utils.pack_tensor(np.asarray(value).astype(self.dtype, copy=False))

    def unpack(self, tensor: Any) -> Any:
        """Value of a tensor, within the spec's bounds.

        Of its shape one length may be -1, which the others tell; and one number may stand for all.

        Raises:
            InvalidAction: If dtype, shape or bounds are others.
        """
        name = self.spec.name
        try:
            values = tensor_utils.unpack_proto(tensor)
        except TypeError as error:
            raise InvalidAction(f"action {name!r}: {error}") from error
        if isinstance(self.space, spaces.Text):
            if values.dtype.kind != "U" or values.size != 1 or len(tensor.shape):
                raise InvalidAction(f"action {name!r}: expected one text, found {_found(values, tensor)}")
            return str(values[0])
        shape = _resolve(tuple(tensor.shape), values.size)
        if values.dtype != self.dtype or shape is None or shape != self.space.shape:
            expected = f"{self.dtype} of shape {self.space.shape}"
            raise InvalidAction(f"action {name!r}: expected {expected}, found {_found(values, tensor)}")
        array = np.full(shape, values[0]) if values.size == 1 else values.reshape(shape)
        low, high = _bounds(self.space)
        if low is not None and high is not None and not ((array >= low) & (array <= high)).all():
            raise InvalidAction(f"action {name!r}: {array} is not within its bounds")
        own = np.dtype(self.space.dtype)
        return array.astype(own) if shape else own.type(array[()])


class Leaves:
    """All parts of a space's elements.

    Args:
        space: The space.
        root: Name of the one tensor where the space has no parts.
        what: For errors: ``"action"`` or ``"observation"``.

    Attributes:
        by_uid: Parts by their unique ids, which count from 1.

    Raises:
        ConfigError: If a space has no spec.
    """

    def __init__(self, space: gym.Space[Any], root: str, what: str) -> None:
        self._root = space
        parts = list(_leaves(space, (), root, what))
        self.by_uid = dict(enumerate(parts, 1))
        names = [leaf.spec.name for leaf in parts]
        if len(set(names)) != len(names):
            raise ConfigError(
                f"the {what} space's parts would be called {sorted(names)}; dm_env_rpc needs one name each"
            )

    def specs(self) -> dict[int, Any]:
        """Specs by their unique ids."""
        return {uid: leaf.spec for uid, leaf in self.by_uid.items()}

    def pack(self, element: Any, uids: Iterator[int] | None = None) -> dict[int, Any]:
        """Tensors of an element, all or some."""
        wanted = self.by_uid if uids is None else uids
        return {uid: self.by_uid[uid].pack(_at(element, self.by_uid[uid].path)) for uid in wanted}

    def unpack(self, tensors: Mapping[int, Any]) -> Any:
        """Element that these tensors are.

        Raises:
            InvalidAction: If one of them does not fit, is unknown, or is missing.
        """
        for uid in tensors:
            if uid not in self.by_uid:
                raise InvalidAction(f"there is no action of the unique id {uid}; there are {sorted(self.by_uid)}")
        values = {}
        for uid, leaf in self.by_uid.items():
            if uid not in tensors:
                raise InvalidAction(f"the action {leaf.spec.name!r} is missing")
            values[leaf.path] = leaf.unpack(tensors[uid])
        return _element(self._root, (), values)


@functools.singledispatch
def _bounds(space: gym.Space[Any]) -> tuple[Any, Any]:
    """The least and the greatest of each number; None for those that have none."""
    return None, None


@_bounds.register(spaces.Box)
def _bounds_of_box(space: spaces.Box) -> tuple[Any, Any]:
    # Infinite ones, too: clients of remote-gym 0.7 know no arrays without.
    return (None, None) if space.dtype == np.bool_ else (space.low, space.high)


@_bounds.register(spaces.Discrete)
def _bounds_of_discrete(space: spaces.Discrete) -> tuple[Any, Any]:
    return space.start, space.start + space.n - 1


@_bounds.register(spaces.MultiDiscrete)
def _bounds_of_multi_discrete(space: spaces.MultiDiscrete) -> tuple[Any, Any]:
    start = getattr(space, "start", np.zeros_like(space.nvec))
    return start, start + space.nvec - 1


@_bounds.register(spaces.MultiBinary)
def _bounds_of_multi_binary(space: spaces.MultiBinary) -> tuple[Any, Any]:
    return np.zeros(space.shape, np.int8), np.ones(space.shape, np.int8)


def _leaves(space: gym.Space[Any], path: tuple[Any, ...], root: str, what: str) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, member in space.spaces.items():
            yield from _leaves(member, (*path, key), root, what)
        return
    if isinstance(space, spaces.Tuple):
        for index, member in enumerate(space.spaces):
            yield from _leaves(member, (*path, index), root, what)
        return
    name = SEPARATOR.join(map(str, path)) or root
    if isinstance(space, spaces.Text):
        yield Leaf(path, space, np.dtype(str), dm.TensorSpec(name=name, dtype=dm.DataType.STRING))
        return
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ConfigError(
            f"the {what} space has {type(space).__name__} at {name!r}, for which dm_env_rpc has no spec; it has those "
            "of Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple"
        )
    own: np.dtype[Any] = np.dtype(space.dtype)  # which none of these lacks
    dtype = _WIDER.get(own, own)
    spec = dm.TensorSpec(name=name, shape=space.shape, dtype=tensor_utils.np_type_to_data_type(dtype))
    packer = tensor_utils.get_packer(dtype)
    for field, bound in zip((spec.min, spec.max), _bounds(space), strict=True):
        if bound is not None:
            packer.pack(field, np.broadcast_to(np.asarray(bound), space.shape or ()).astype(dtype).reshape(-1))
    yield Leaf(path, space, dtype, spec)


def _at(element: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        element = element[key]
    return element


def _element(space: gym.Space[Any], path: tuple[Any, ...], values: Mapping[tuple[Any, ...], Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _element(member, (*path, key), values) for key, member in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_element(member, (*path, index), values) for index, member in enumerate(space.spaces))
    return values[path]


def _resolve(shape: tuple[int, ...], size: int) -> tuple[int, ...] | None:
    """A shape whose one length of -1 is told by the number of elements; None where it is none."""
    unknown = [index for index, length in enumerate(shape) if length < 0]
    known = math.prod(length for length in shape if length >= 0)
    if len(unknown) > 1 or (unknown and (not known or size % known)):
        return None
    if unknown:
        return tuple(size // known if length < 0 else length for length in shape)
    return shape if size in (1, known) else None


def _found(values: Any, tensor: Any) -> str:
    return f"{values.size} of {values.dtype} in the shape {tuple(tensor.shape)}"
