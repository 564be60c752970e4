"""Simple values of Python's standard library, dates and times aside, to messages and back."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.budget import Budget, NoWireForm

FRACTION_BYTES = 1024
"""Bytes of a fraction's numerator or denominator; to compare and check larger ones takes quadratic time."""

_DECIMAL = re.compile(r"-?(\d+(\.\d+)?(E[+-]\d{1,20})?|Infinity|s?NaN\d*)", re.ASCII)


def encode_complex(value: complex, into: pb.Value, _budget: Budget) -> None:
    """Write a complex number."""
    into.complex.real, into.complex.imaginary = value.real, value.imag
    into.complex.SetInParent()


def encode_bytearray(value: bytearray, into: pb.Value, budget: Budget) -> None:
    """Write bytes that can be changed."""
    budget.check_bytes(len(value))
    into.byte_array = bytes(value)


def encode_decimal(value: Decimal, into: pb.Value, budget: Budget) -> None:
    """Write a decimal number, each of its digits."""
    text = Decimal.__str__(value)
    budget.check_length("a Decimal", len(text), "digits")
    into.decimal = text.upper() if "e" in text else text


def encode_fraction(value: Fraction, into: pb.Value, _budget: Budget) -> None:
    """Write a fraction."""
    into.fraction.numerator = _integer_bytes(value.numerator)
    into.fraction.denominator = _integer_bytes(value.denominator)


def _integer_bytes(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    if size > FRACTION_BYTES:
        raise NoWireForm(f"a Fraction with an integer of {size} bytes; at most {FRACTION_BYTES} can travel")
    return number.to_bytes(size, "little", signed=True)


def encode_path(value: PurePath, into: pb.Value, budget: Budget) -> None:
    """Write a path."""
    text = str(value)
    budget.check_length("a path", len(text), "characters")
    into.path.text = text.encode("utf-8", "surrogatepass")
    into.path.windows = isinstance(value, PureWindowsPath)
    into.path.pure = not isinstance(value, Path)


def encode_range(value: range, into: pb.Value, _budget: Budget) -> None:
    """Write a range of integers of 64 bits."""
    if any(not -(2**63) <= number < 2**63 for number in (value.start, value.stop, value.step)):
        raise NoWireForm("a range beyond integers of 64 bits")
    into.range.start, into.range.stop, into.range.step = value.start, value.stop, value.step


def decode_complex(message: pb.Value, _limits: Limits) -> complex:
    """Read a complex number."""
    return complex(message.complex.real, message.complex.imaginary)


def decode_bytearray(message: pb.Value, _limits: Limits) -> bytearray:
    """Read bytes that can be changed."""
    return bytearray(message.byte_array)


def decode_decimal(message: pb.Value, limits: Limits) -> Decimal:
    """Read a decimal number.

    Raises:
        EncodingError: If it is none, or over the limits.
    """
    text = message.decimal
    if len(text) > limits.text_length or not _DECIMAL.fullmatch(text):
        raise EncodingError(f"a text of {len(text)} characters is no Decimal, or one over the limits: {text!r:.60}")
    try:
        return Decimal(text)
    except InvalidOperation as error:  # an exponent that no Decimal has
        raise EncodingError(f"{text!r:.60} is no Decimal that Python has") from error


def decode_fraction(message: pb.Value, _limits: Limits) -> Fraction:
    """Read a fraction.

    Raises:
        EncodingError: If it is none, or not in lowest terms.
    """
    parts = message.fraction.numerator, message.fraction.denominator
    if max(map(len, parts)) > FRACTION_BYTES:
        raise EncodingError(f"a fraction has integers of more than {FRACTION_BYTES} bytes")
    numerator, denominator = (int.from_bytes(part, "little", signed=True) for part in parts)
    if denominator <= 0 or math.gcd(numerator, denominator) != 1:
        raise EncodingError("a fraction is not in lowest terms, with a denominator above 0")
    return Fraction(numerator, denominator)


def decode_path(message: pb.Value, limits: Limits) -> PurePath:
    """Read a path: of this system where it is one of such a system, else a pure one.

    Raises:
        EncodingError: If it is no text, or over the limits.
    """
    source = message.path
    try:
        text = source.text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise EncodingError(f"a path is no UTF-8: {error.reason} at byte {error.start}") from error
    if len(text) > limits.text_length:
        raise EncodingError(f"a path of length {len(text)} is over the limit (Limits.text_length)")
    if not source.pure and source.windows == (os.name == "nt"):
        return Path(text)
    return PureWindowsPath(text) if source.windows else PurePosixPath(text)


def decode_range(message: pb.Value, _limits: Limits) -> range:
    """Read a range.

    Raises:
        EncodingError: If its step is 0.
    """
    if not message.range.step:
        raise EncodingError("a range has the step 0")
    return range(message.range.start, message.range.stop, message.range.step)


ENCODERS: dict[type, Callable[[Any, pb.Value, Budget], None]] = {
    complex: encode_complex,
    bytearray: encode_bytearray,
    Decimal: encode_decimal,
    Fraction: encode_fraction,
    range: encode_range,
    **dict.fromkeys((PosixPath, WindowsPath, PurePosixPath, PureWindowsPath), encode_path),
}

DECODERS: dict[str, Callable[[pb.Value, Limits], Any]] = {
    "complex": decode_complex,
    "byte_array": decode_bytearray,
    "decimal": decode_decimal,
    "fraction": decode_fraction,
    "path": decode_path,
    "range": decode_range,
}
