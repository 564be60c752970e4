"""NumPy arrays and scalars to messages and back."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.dtypes import describe_dtype, has_wire_form, read_dtype, wire_item_size
from remote_gym.wire.values.extended import long_from_bytes, long_to_bytes

MAX_DIMENSIONS = 32  # NumPy 1's own bound; NumPy 2 would go to 64

_LITTLE_ENDIAN = sys.byteorder == "little"


def to_bytes(array: NDArray[Any]) -> bytes:
    """The elements in C order, little-endian."""
    if array.dtype.char in "gG":
        return long_to_bytes(array)
    if _LITTLE_ENDIAN and array.dtype.byteorder != ">":
        return array.tobytes()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def from_bytes(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0) -> NDArray[Any]:
    """A writable array of its own memory, from little-endian elements in C order.

    Args:
        data: Holds at least as many bytes from `offset` on as the array needs.
        dtype: A native dtype with a fixed size above 0.
        shape: Its product fits memory.
        offset: Where in `data` the elements begin, in bytes.

    Raises:
        EncodingError: If a bool is neither 0 nor 1.
    """
    wire_dtype = dtype if _LITTLE_ENDIAN else dtype.newbyteorder("<")
    array: NDArray[Any] = np.ndarray(shape, wire_dtype, data, offset).astype(dtype, order="C")
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise EncodingError("a bool is neither 0 nor 1")
    return array


def scalar_to_bytes(value: np.generic) -> bytes:
    """A NumPy number, bool or time, little-endian."""
    return value.tobytes() if _LITTLE_ENDIAN or value.dtype.kind == "V" else value.tobytes()[::-1]


def array_obstacle(array: NDArray[Any], limits: Limits) -> str | None:
    """Why an array has no wire form; None where it has one. Arrays of objects are not looked into."""
    if not has_wire_form(array.dtype) and array.dtype.kind != "O":
        return f"dtype {array.dtype} has no wire form"
    if array.ndim > MAX_DIMENSIONS:
        return f"an array has {array.ndim} dimensions; at most {MAX_DIMENSIONS} can travel"
    size = _room(array.shape, array.dtype.itemsize)
    if size > limits.array_bytes:
        return f"an array of {size} bytes is over the limit of {limits.array_bytes} (Limits.array_bytes)"
    return None


def encode_array(array: NDArray[Any], into: pb.Array) -> None:
    """Write an array of bools, numbers or fixed-width texts.

    Raises:
        EncodingError: If its dtype has no wire form.
    """
    describe_array(array, into)
    into.data = to_bytes(array)


def describe_array(array: NDArray[Any], into: pb.Array) -> None:
    """Write all of an array but its `data`.

    Raises:
        EncodingError: If its dtype has no wire form.
    """
    describe_dtype(array.dtype, into)
    if array.ndim:
        into.shape.extend(array.shape)


def decode_array(message: pb.Array, limits: Limits, data: bytes | memoryview | None = None) -> NDArray[Any]:
    """Read an array: writable, aligned, of its own memory.

    Args:
        message: What holds it.
        limits: Bounds on its size.
        data: Its elements, where they are not those in the message.

    Raises:
        EncodingError: If dtype, shape and data do not fit each other, or are over the limits.
    """
    dtype = read_dtype(message, limits)
    size = wire_item_size(message, dtype)
    shape = checked_shape(message.shape, max(size, dtype.itemsize), limits)
    if data is None:
        data = message.data
    if math.prod(shape) * size != len(data):
        raise EncodingError(f"{len(data)} bytes do not make an array of shape {shape} and dtype {dtype}")
    if message.dtype == pb.TEXT:
        _check_code_points(data)
    array: NDArray[Any]
    if message.dtype in (pb.LONG_FLOAT, pb.LONG_COMPLEX):
        array = long_from_bytes(data, message.item_length).view(dtype).reshape(shape).copy()
    else:
        array = from_bytes(data, dtype, shape) if dtype.itemsize else np.ndarray(shape, dtype)
    return array.astype(dtype.newbyteorder(">")) if message.big_endian else array


def told_size(message: pb.Array, limits: Limits) -> int:
    """Bytes that the elements of an array take, by its dtype and shape.

    Raises:
        EncodingError: If these are none, or are over the limits.
    """
    dtype = read_dtype(message, limits)
    size = wire_item_size(message, dtype)
    return math.prod(checked_shape(message.shape, max(size, dtype.itemsize), limits)) * size


def view_row(message: pb.Array, size: int) -> NDArray[Any] | None:
    """A read-only look at an array of shape ``(size,)`` of float64 or bool, as rewards and flags are; None for others.

    It takes a tenth of the time of `decode_array`, which counts where many workers answer at once.
    """
    data = message.data
    if not _LITTLE_ENDIAN or message.big_endian or message.item_length or list(message.shape) != [size]:
        return None
    if message.dtype == pb.FLOAT64 and len(data) == 8 * size:
        return np.frombuffer(data, np.float64)
    if message.dtype == pb.BOOL and len(data) == size and not data.translate(None, b"\0\1"):
        return np.frombuffer(data, np.bool_)
    return None


def encode_scalar(value: np.generic, into: pb.Array) -> None:
    """Write a NumPy scalar.

    Raises:
        EncodingError: If its dtype has no wire form.
    """
    if isinstance(value, np.str_):
        # Not by way of an array, which would drop NUL characters at the end.
        into.dtype, into.item_length = pb.TEXT, len(value)
        into.data = value.encode("utf-32-le", "surrogatepass")
    elif isinstance(value, np.bytes_):
        into.dtype, into.item_length, into.data = pb.BYTES, len(value), bytes(value)
    else:
        describe_dtype(value.dtype, into)
        into.data = long_to_bytes(np.asarray(value)) if value.dtype.char in "gG" else scalar_to_bytes(value)


def decode_scalar(message: pb.Array, limits: Limits) -> np.generic:
    """Read a NumPy scalar.

    Raises:
        EncodingError: If it has a shape, or dtype and data do not fit each other.
    """
    if message.shape:
        raise EncodingError(f"a scalar has the shape {tuple(message.shape)}; it has to be ()")
    array = decode_array(message, limits)
    scalar: np.generic
    if message.dtype == pb.TEXT:
        scalar = np.str_(message.data.decode("utf-32-le", "surrogatepass"))
    elif message.dtype == pb.BYTES:
        scalar = np.bytes_(message.data)
    elif message.dtype >= pb.VOID:
        scalar = array[()]  # type: ignore[assignment]  # which is of the array's unit
    else:
        scalar = array.dtype.type(array[()])
    return scalar


def checked_shape(shape: Any, itemsize: int, limits: Limits) -> tuple[int, ...]:
    """A shape that a peer sent, as a tuple.

    Args:
        shape: Sizes of the dimensions.
        itemsize: Bytes per element.
        limits: Bounds; `array_bytes` counts a dimension of size 0 as 1, so that no dimension can be giant.

    Raises:
        EncodingError: If there are too many dimensions, or too many elements.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise EncodingError(f"a shape has {len(shape)} dimensions; at most {MAX_DIMENSIONS} can travel")
    sizes = tuple(shape)
    if _room(sizes, itemsize) > limits.array_bytes:
        raise EncodingError(f"shape {sizes} is over the limit of {limits.array_bytes} bytes (Limits.array_bytes)")
    return sizes


def _room(shape: tuple[int, ...], itemsize: int) -> int:
    return math.prod(size or 1 for size in shape) * (itemsize or 1)


def _check_code_points(data: bytes | memoryview) -> None:
    if np.frombuffer(data, "<u4").max(initial=0) > sys.maxunicode:
        raise EncodingError("a text holds a code point beyond U+10FFFF")
