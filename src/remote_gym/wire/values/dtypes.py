"""NumPy's dtypes to the wire's and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.extended import OWN

_MAX_ITEM_BYTES = 2**31 - 1  # NumPy's; larger ones it takes for others, rather than refuse them

_NUMBERS: dict[type[np.generic], pb.DType] = {
    np.bool_: pb.BOOL,
    np.int8: pb.INT8,
    np.int16: pb.INT16,
    np.int32: pb.INT32,
    np.int64: pb.INT64,
    np.uint8: pb.UINT8,
    np.uint16: pb.UINT16,
    np.uint32: pb.UINT32,
    np.uint64: pb.UINT64,
    np.float16: pb.FLOAT16,
    np.float32: pb.FLOAT32,
    np.float64: pb.FLOAT64,
    np.complex64: pb.COMPLEX64,
    np.complex128: pb.COMPLEX128,
}

_DTYPES: dict[int, np.dtype[Any]] = {code: np.dtype(scalar) for scalar, code in _NUMBERS.items()}

# C's `long long` is a type of its own in NumPy, next to the int64 that it equals; so is `int` on some platforms.
_NUMBER_CODES: dict[type[np.generic], pb.DType] = {
    dtype.type: _NUMBERS[np.dtype(dtype.str).type] for dtype in map(np.dtype, "?bhilqBHILQefdFD")
}

_WIDE: dict[type[np.generic], pb.DType] = {np.longdouble: pb.LONG_FLOAT, np.clongdouble: pb.LONG_COMPLEX}
_LONG = {code: np.dtype(scalar) for scalar, code in _WIDE.items()}
_CODES: dict[type[np.generic], pb.DType] = {
    **({} if OWN is None else _WIDE),
    **_NUMBER_CODES,  # after these, since where a long double is a double it may be the same type
    np.str_: pb.TEXT,
    np.bytes_: pb.BYTES,
    np.void: pb.VOID,
    np.datetime64: pb.DATETIME64,
    np.timedelta64: pb.TIMEDELTA64,
}
# NumPy's letter, and bytes of a unit of the length.
_OF_ANY_LENGTH: dict[int, tuple[str, int]] = {pb.TEXT: ("U", 4), pb.BYTES: ("S", 1), pb.VOID: ("V", 1)}
_OF_TIME: dict[int, str] = {pb.DATETIME64: "M8", pb.TIMEDELTA64: "m8"}
_UNITS = frozenset({"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"})

SCALAR_TYPES = frozenset(_CODES)
"""The NumPy scalar types that have a wire form, though not in every dtype: a ``numpy.void`` may have fields."""


def dtype_code(dtype: np.dtype[Any]) -> pb.DType | None:
    """The wire's name of a number's dtype, whatever its byte order; None where it has none."""
    return _NUMBER_CODES.get(dtype.type)


def has_wire_form(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a dtype can travel as one piece of bytes."""
    return dtype.type in _CODES and dtype.names is None and dtype.subdtype is None


def number_dtype(code: int) -> np.dtype[Any]:
    """The native dtype of a BOOL, an integer, a float or a complex.

    Raises:
        EncodingError: If the code is another or unknown.
    """
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise EncodingError(f"dtype {_name(code)} where that of a number is needed")
    return dtype


def describe_dtype(dtype: np.dtype[Any], into: pb.Array) -> None:
    """Write a dtype, byte order included.

    Raises:
        EncodingError: If it has no wire form.
    """
    code = _CODES.get(dtype.type)
    if code is None or dtype.names is not None:
        raise EncodingError(f"an array of dtype {dtype} has no wire form")
    into.dtype = code
    if code >= pb.TEXT:
        _describe_size(dtype, code, into)
    if dtype.byteorder == ">":
        into.big_endian = True


def _describe_size(dtype: np.dtype[Any], code: int, into: pb.Array) -> None:
    if code in _OF_ANY_LENGTH:
        into.item_length = dtype.itemsize // _OF_ANY_LENGTH[code][1]
    elif code in _OF_TIME:
        unit, count = np.datetime_data(dtype)
        if unit != "generic":
            into.unit = unit
        if count != 1:
            into.unit_count = count
    else:
        assert OWN is not None
        into.item_length = OWN


def read_dtype(message: pb.Array, limits: Limits) -> np.dtype[Any]:
    """The native dtype of an array that a peer sent.

    Raises:
        EncodingError: If it is unknown or contradicts itself, or an item is over the limits.
    """
    code = message.dtype
    dtype = _DTYPES.get(code)
    if dtype is None and code in _OF_TIME:
        dtype = _time_dtype(message)
    elif message.unit or message.unit_count:
        raise EncodingError(f"a unit is there for {_name(code)}; it has to be absent")
    if dtype is not None:
        if message.item_length:
            raise EncodingError(f"item_length is {message.item_length} for {_name(code)}; it has to be absent")
        return dtype
    if code in _LONG:
        return _LONG[code]
    if code not in _OF_ANY_LENGTH:
        raise EncodingError(f"dtype {_name(code)} is unknown")
    letter, unit = _OF_ANY_LENGTH[code]
    size = message.item_length * unit
    if size > min(limits.array_bytes, _MAX_ITEM_BYTES):
        raise EncodingError(f"an item of {size} bytes is over the limit of {limits.array_bytes} (Limits.array_bytes)")
    return np.dtype(f"{letter}{message.item_length}")


def _time_dtype(message: pb.Array) -> np.dtype[Any]:
    unit, count, name = message.unit, message.unit_count or 1, _OF_TIME[message.dtype]
    if not unit and count == 1:
        return np.dtype(name)
    if unit not in _UNITS or count >= 2**31:
        raise EncodingError(f"a time's unit is {count} {unit!r:.20}; NumPy has none such")
    return np.dtype(f"{name}[{count}{unit}]")


def wire_item_size(message: pb.Array, dtype: np.dtype[Any]) -> int:
    """Bytes that an element takes on the wire, where its native dtype is that."""
    if message.dtype == pb.LONG_FLOAT:
        return message.item_length
    return 2 * message.item_length if message.dtype == pb.LONG_COMPLEX else dtype.itemsize


def _name(code: int) -> str:
    return pb.DType.Name(code) if code in pb.DType.values() else str(code)
