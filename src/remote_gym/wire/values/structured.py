"""NumPy's structured and masked arrays to messages and back, column by column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.arrays import checked_shape

_PADDING = 3  # times the fields' own bytes that an item may have; C's alignment needs less


def without_gaps(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or one of the same fields without what is between them, where that is much, or where they overlap."""
    dtype = array.dtype
    spans = _spans([(offset, field.itemsize) for _, field, offset in _fields(dtype)])
    if spans is not None and dtype.itemsize <= _PADDING * spans:
        return array
    from numpy.lib import recfunctions  # here, since it loads numpy.ma, which takes 5 MiB of a process

    packed: NDArray[Any] = recfunctions.repack_fields(array)
    return packed


def _fields(dtype: np.dtype[Any]) -> list[tuple[str, np.dtype[Any], int]]:
    assert dtype.fields is not None
    return [(name, dtype.fields[name][0], dtype.fields[name][1]) for name in dtype.names or ()]


def _spans(places: list[tuple[int, int]]) -> int | None:
    """Bytes of fields at such offsets and of such sizes; None where they overlap."""
    end = total = 0
    for offset, size in sorted(places):
        if offset < end:
            return None
        end = offset + size
        total += size
    return total


def describe_structured(array: NDArray[Any], into: pb.StructuredArray) -> None:
    """Write all of a structured array but its columns."""
    into.SetInParent()
    into.shape.extend(array.shape)
    into.item_size = array.dtype.itemsize
    for name, _, offset in _fields(array.dtype):
        into.names.append(name)
        into.offsets.append(offset)


def build_structured(message: pb.StructuredArray, columns: list[Any], limits: Limits) -> Any:
    """A structured array, or scalar, of its columns.

    Raises:
        EncodingError: If they do not make one.
    """
    if not len(message.names) == len(message.offsets) == len(columns):
        raise EncodingError(
            f"a structured array has {len(message.names)} names, {len(message.offsets)} offsets and {len(columns)} "
            "columns; it has to have as many of each"
        )
    shape = checked_shape(message.shape, min(message.item_size, 2**62), limits)
    formats = [_format(column, shape) for column in columns]
    spans = _spans([(offset, field.itemsize) for offset, field in zip(message.offsets, formats, strict=True)])
    if spans is None or message.item_size > _PADDING * spans:
        raise EncodingError("fields of a structured array overlap, or have more between them than they take")
    names, offsets, size = list(message.names), list(message.offsets), message.item_size
    description = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    try:
        dtype = np.dtype(description)  # type: ignore[call-overload]
        array = np.zeros(shape, dtype)
        for name, column in zip(names, columns, strict=True):
            array[name] = column
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodingError(f"a structured array cannot be made: {error}") from error
    return array[()] if message.scalar else array


def _format(column: Any, shape: tuple[int, ...]) -> np.dtype[Any]:
    if type(column) is not np.ndarray or column.shape[: len(shape)] != shape:
        raise EncodingError(f"a structured array of shape {shape} has a column that is no array of that shape")
    if column.dtype.names is None and column.dtype.itemsize == 0 and math.prod(column.shape[len(shape) :]) > 2**20:
        raise EncodingError("a structured array has a giant field without content")
    return np.dtype((column.dtype, column.shape[len(shape) :]))


def fill_value_of(array: Any) -> NDArray[Any] | None:
    """A masked array's fill value, as an array of shape (); None where it is the usual one."""
    if array.dtype.hasobject:
        return None
    # Which may be of another dtype than the array: 999999 is the usual one of an int8 array, too.
    filling, usual = (np.asarray(each.fill_value) for each in (array, np.ma.MaskedArray(np.empty(0, array.dtype))))
    is_usual = filling.dtype == usual.dtype and filling.tobytes() == usual.tobytes()
    return None if is_usual else filling


def build_masked(data: Any, mask: Any, fill_value: Any, hard_mask: bool) -> Any:
    """A masked array.

    Raises:
        EncodingError: If the parts do not fit each other.
    """
    if type(data) is not np.ndarray:
        raise EncodingError("a masked array's data are no array")
    if mask is not None and (
        type(mask) is not np.ndarray or mask.shape != data.shape or mask.dtype != np.ma.make_mask_descr(data.dtype)
    ):
        raise EncodingError("a masked array's mask is no array of bools of its shape")
    if fill_value is not None and (type(fill_value) is not np.ndarray or fill_value.shape or data.dtype.hasobject):
        raise EncodingError("a masked array's fill value is no array of shape ()")
    filling: Any = None if fill_value is None else fill_value[()]
    try:
        return np.ma.MaskedArray(
            data,
            mask=np.ma.nomask if mask is None else mask,
            fill_value=filling,
            hard_mask=hard_mask,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodingError(f"a masked array cannot be made: {error}") from error
