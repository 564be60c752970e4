"""Protobuf's variable-length integers: seven bits a byte, the lowest first."""

from __future__ import annotations

LONGEST = 10
"""Bytes that 64 bits take."""


class VarintError(ValueError):
    """The bytes end within a varint, or it is longer than any may be."""


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Read one.

    Args:
        data: What holds it.
        position: Where it begins.

    Returns:
        Its value, and where it ends.

    Raises:
        VarintError: If there is none.
    """
    value = shift = 0
    end = len(data)
    while position < end and shift < 7 * LONGEST:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise VarintError(f"no varint ends before byte {position}")


def varint(value: int) -> bytes:
    """Write one."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
