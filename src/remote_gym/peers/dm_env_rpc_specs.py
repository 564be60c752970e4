"""Specs of dm_env_rpc as Gymnasium's spaces, and elements of these as tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
from dm_env_rpc.v1 import tensor_utils
from gymnasium import spaces

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, InvalidAction

SEPARATOR = "."
"""Between the levels of a name, as `dm_env_rpc.v1.dm_env_adaptor` has it."""


class Tensors:
    """Actions or observations of a server: the tensors that they consist of, and the space that they are elements of.

    Names with dots are levels of nested dicts. Where there is a single tensor, its space is all there is.

    Args:
        specs: By their unique ids.
        left_out: Names that are not part of it.
        what: ``"action"`` or ``"observation"``, for errors.
        limits: Bounds on arrays and texts.

    Raises:
        EncodingError: If a spec has no space: of a shape that varies, of protocol messages, or over the limits.
    """

    def __init__(self, specs: Mapping[int, Any], *, left_out: Iterable[str], what: str, limits: Limits) -> None:
        self._what = what
        self._limits = limits
        without = frozenset(left_out)
        self._specs = {uid: spec for uid, spec in specs.items() if spec.name not in without}
        names = [spec.name for spec in self._specs.values()]
        if len(set(names)) != len(names) or not all(names):
            raise EncodingError(f"the server's {what}s are called {sorted(names)}; each needs a name of its own")
        self._is_single = len(self._specs) == 1
        self.space = self._space()

    @property
    def uids(self) -> list[int]:
        """Unique ids of all of them."""
        return sorted(self._specs)

    def pack(self, element: Any) -> dict[int, Any]:
        """Tensors of an element, by their unique ids.

        Raises:
            InvalidAction: If it does not fit.
        """
        packed = {}
        for uid, spec in self._specs.items():
            value = element if self._is_single else self._member(element, spec.name)
            try:
                tensor = tensor_utils.pack_tensor(value, dtype=spec.dtype)
            except (TypeError, ValueError, OverflowError) as error:
                raise InvalidAction(f"{self._what} {spec.name!r}: {error}") from error
            if list(tensor.shape) != list(spec.shape):
                raise InvalidAction(
                    f"{self._what} {spec.name!r}: expected shape {tuple(spec.shape)}, found {tuple(tensor.shape)}"
                )
            packed[uid] = tensor
        return packed

    def unpack(self, tensors: Mapping[int, Any]) -> Any:
        """Element of the space that came as tensors, in arrays of its own.

        Raises:
            EncodingError: If one is missing, or is not what its spec says.
        """
        if self._is_single:
            [(uid, spec)] = self._specs.items()
            return unpack(tensors, uid, spec)
        found: dict[str, Any] = {}
        for uid, spec in self._specs.items():
            *levels, last = spec.name.split(SEPARATOR)
            into = found
            for level in levels:
                into = into.setdefault(level, {})
            into[last] = unpack(tensors, uid, spec)
        return found

    def _member(self, element: Any, name: str) -> Any:
        for level in name.split(SEPARATOR):
            if not isinstance(element, Mapping) or level not in element:
                raise InvalidAction(f"{self._what} has no {name!r}; expected an element of {self.space}")
            element = element[level]
        return element

    def _space(self) -> gym.Space[Any]:
        if self._is_single:
            [spec] = self._specs.values()
            return space_of(spec, self._limits)
        found: dict[str, Any] = {}
        for spec in self._specs.values():
            *levels, last = spec.name.split(SEPARATOR)
            into = found
            for level in levels:
                into = into.setdefault(level, {})
                if not isinstance(into, dict):
                    raise EncodingError(f"the server's {self._what} {spec.name!r} is within another one")
            if last in into:
                raise EncodingError(f"the server's {self._what} {spec.name!r} holds another one")
            into[last] = space_of(spec, self._limits)
        return _nested(found)


def space_of(spec: Any, limits: Limits) -> gym.Space[Any]:
    """Space of what a spec describes.

    Integers with bounds and without a shape are `Discrete`; texts are `Text`; all else is a `Box` of the spec's dtype,
    within its bounds.

    Raises:
        EncodingError: If there is none.
    """
    shape = tuple(spec.shape)
    if any(length < 0 for length in shape):
        raise EncodingError(f"{spec.name!r} has the shape {shape}, which varies; Gymnasium's boxes have one shape")
    try:
        dtype = np.dtype(tensor_utils.data_type_to_np_type(spec.dtype))
    except TypeError as error:
        raise EncodingError(f"{spec.name!r}: {error}") from error
    if dtype.kind == "U" and not shape:
        return spaces.Text(max_length=limits.text_length, min_length=0)
    if dtype.kind not in "fiub":
        raise EncodingError(f"{spec.name!r} is of {dm.DataType.Name(spec.dtype)} and shape {shape}, and has no space")
    if math.prod(shape) * dtype.itemsize > limits.array_bytes:
        raise EncodingError(f"{spec.name!r} has the shape {shape}; Limits.array_bytes allows {limits.array_bytes:,}")
    if dtype.kind == "b":
        return spaces.Box(0, 1, shape, np.bool_)
    low, high = _bound(spec, "min", dtype), _bound(spec, "max", dtype)
    if np.any(low > high):
        raise EncodingError(f"{spec.name!r} is bounded by {low} and {high}, which leave nothing between")
    if _is_discrete(spec, dtype):
        return spaces.Discrete(int(high) - int(low) + 1, start=int(low))
    return spaces.Box(low, high, shape, dtype.type)


def unpack(tensors: Mapping[int, Any], uid: int, spec: Any) -> Any:
    """Value of one tensor: an array of the spec's shape and dtype, a NumPy scalar where it has none, or a text.

    Raises:
        EncodingError: If it is missing, or is not what its spec says.
    """
    if uid not in tensors:
        raise EncodingError(f"the server sent no {spec.name!r}")
    tensor = tensors[uid]
    # Before it is unpacked: one number and a shape are enough for an array of any size.
    if list(tensor.shape) != list(spec.shape):
        raise EncodingError(f"{spec.name!r}: expected shape {tuple(spec.shape)}, found {tuple(tensor.shape)}")
    try:
        value = tensor_utils.unpack_tensor(tensor)
    except (TypeError, ValueError) as error:
        raise EncodingError(f"{spec.name!r}: {error}") from error
    dtype = np.dtype(tensor_utils.data_type_to_np_type(spec.dtype))
    if dtype.kind == "U" and not spec.shape:
        return str(value)
    if np.asarray(value).dtype != dtype:
        raise EncodingError(f"{spec.name!r}: expected {dtype}, found {np.asarray(value).dtype}")
    if spec.shape:
        return np.array(value)  # a copy: some of its arrays cannot be written to
    return np.int64(value) if _is_discrete(spec, dtype) else dtype.type(value)


def _bound(spec: Any, name: str, dtype: np.dtype[Any]) -> Any:
    """The least or the greatest of each element: those of the dtype where the spec has none.

    Not by `dm_env_rpc.v1.tensor_spec_utils`, which refuses its own defaults under NumPy 2.
    """
    if spec.HasField(name):
        try:
            found = tensor_utils.unpack_proto(getattr(spec, name))
        except TypeError as error:
            raise EncodingError(f"{spec.name!r}.{name}: {error}") from error
        if found.dtype != dtype or found.size not in (1, math.prod(spec.shape)):
            raise EncodingError(f"{spec.name!r}.{name} is {found.size} of {found.dtype}, and the spec is of {dtype}")
    elif dtype.kind == "f":
        found = np.array([-np.inf if name == "min" else np.inf], dtype)
    else:
        info = np.iinfo(dtype)
        found = np.array([info.min if name == "min" else info.max], dtype)
    shape = tuple(spec.shape)
    return np.full(shape, found[0]) if found.size == 1 else found.reshape(shape)


def _is_discrete(spec: Any, dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and not spec.shape and spec.HasField("min") and spec.HasField("max")


def _nested(members: Mapping[str, Any]) -> spaces.Dict:
    return spaces.Dict({key: _nested(each) if isinstance(each, Mapping) else each for key, each in members.items()})
