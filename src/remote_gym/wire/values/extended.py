"""NumPy's long double, whose width is the machine's, as bytes that any other machine can read.

A machine that has the sender's format reads exactly what was sent; another gets the nearest number of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote_gym.errors import EncodingError

BINARY64, X87, BINARY128 = 8, 10, 16
"""Formats of IEEE 754 and of Intel's coprocessor, each by the bytes that a number takes; padding does not travel."""

_EXPONENT_BITS, _BIAS = 0x7FFF, 16383  # of both wide formats
_ITEM_SIZE = np.dtype(np.longdouble).itemsize

_BY_MANTISSA = {52: BINARY64, 63: X87, 112: BINARY128}
OWN: int | None = _BY_MANTISSA.get(np.finfo(np.longdouble).nmant) if sys.byteorder == "little" else None
"""This machine's format; None for one that has no wire form, such as the pairs of doubles of older POWER machines."""


def long_to_bytes(array: NDArray[Any]) -> bytes:
    """The numbers of a long float or long complex array in C order, real parts before imaginary ones."""
    native = np.ascontiguousarray(array, np.clongdouble if array.dtype.kind == "c" else np.longdouble)
    rows = native.reshape(-1).view(np.uint8).reshape(-1, _ITEM_SIZE)
    return rows[:, :OWN].tobytes()


def long_from_bytes(data: bytes | memoryview, width: int) -> NDArray[Any]:
    """An array of long floats, of its own memory.

    Args:
        data: As many bytes as a whole number of numbers takes.
        width: The sender's format.

    Raises:
        EncodingError: If the format is unknown, or a number is none that a machine computes.
    """
    if width not in _BY_MANTISSA.values():
        raise EncodingError(f"a long float of {width} bytes is of no known format; it has to have 8, 10 or 16")
    rows: NDArray[Any] = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == X87:
        _check_integer_bit(rows)
    if width == OWN:
        found = np.zeros(len(rows), np.longdouble)
        found.view(np.uint8).reshape(-1, _ITEM_SIZE)[:, :width] = rows
        return found
    return convert(rows, width)


def convert(rows: NDArray[Any], width: int) -> NDArray[Any]:
    """The numbers of any of the formats, rounded to this machine's.

    Args:
        rows: uint8 of shape ``(numbers, width)``.
        width: Their format.
    """
    if width == BINARY64:
        return rows.reshape(-1).view("<f8").astype(np.longdouble)
    top = rows[:, -2:].copy().view("<u2").reshape(-1).astype(np.int64)
    exponent = top & _EXPONENT_BITS
    scale = np.maximum(exponent, 1) - _BIAS
    low = rows[:, :8].copy().view("<u8").reshape(-1)
    with np.errstate(over="ignore", under="ignore"):
        if width == X87:
            fraction = low << np.uint64(1)
            found = np.ldexp(low.astype(np.longdouble), scale - 63)
        else:
            high = rows[:, 8:].copy().view("<u8").reshape(-1) & np.uint64(2**48 - 1)
            fraction = low | high
            whole = np.where(exponent > 0, np.uint64(2**48), np.uint64(0)) | high
            found = np.ldexp(whole.astype(np.longdouble), scale - 48)
            found += np.ldexp(low.astype(np.longdouble), scale - 112)
    special = np.where(fraction == 0, np.longdouble(np.inf), np.longdouble(np.nan))
    found = np.where(exponent == _EXPONENT_BITS, special, found)
    signed: NDArray[Any] = np.copysign(found, np.where(top >> 15, np.longdouble(-1), np.longdouble(1)))
    return signed


def _check_integer_bit(rows: NDArray[Any]) -> None:
    """Refuse forms that the coprocessor gave up in 1987, which NumPy does not expect either."""
    exponent = rows[:, 8:].copy().view("<u2").reshape(-1) & _EXPONENT_BITS
    if np.any((rows[:, 7] >> 7 == 1) != (exponent != 0)):
        raise EncodingError("a long float has an integer bit that does not fit its exponent")
