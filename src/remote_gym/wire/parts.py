"""Requests that are larger than one message of gRPC's may be, cut into parts and put together again.

What the protocol says about `Part`, without a socket: the client cuts, the server joins.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.varint import VarintError, read_varint, varint

LARGEST_MESSAGE = 4 * 2**20
"""Bytes of one message that a server reads over gRPC, at most: what a peer can have it hold by half-sent ones."""

PART_BYTES = 2**20
"""Bytes of a request that go in one part: enough that its frame costs nothing, and little to wait for."""

_LENGTH = 2  # the wire type of bytes and messages
_FRAME_BYTES = 32  # what surrounds a part's bytes, at most
_PART = pb.Request.PART_FIELD_NUMBER << 3 | _LENGTH
_SIZE = pb.Part.SIZE_FIELD_NUMBER << 3
_DATA = pb.Part.DATA_FIELD_NUMBER << 3 | _LENGTH


def cut(data: bytes, message_bytes: int) -> Iterator[bytes]:
    """Cut a request into messages.

    Args:
        data: The encoded request.
        message_bytes: Size of the largest message that the server takes; 0 where it takes any.

    Yields:
        The request itself if it is small enough, else its parts, each in a message of its own.
    """
    if not message_bytes or len(data) <= message_bytes:
        yield data
        return
    step = max(1, min(PART_BYTES, message_bytes - _FRAME_BYTES))
    size = varint(_SIZE) + varint(len(data))
    for begin in range(0, len(data), step):
        piece = data[begin : begin + step]
        frame = size + varint(_DATA) + varint(len(piece))
        yield b"".join((varint(_PART), varint(len(frame) + len(piece)), frame, piece))
        size = b""


def is_part(message: bytes) -> bool:
    """Whether a message is a part of one, as far as its first byte tells: no other request begins so."""
    return message[:1] == b"%c" % _PART


def announced(message: bytes) -> int:
    """The size of the whole request, of which this is the first part.

    Raises:
        EncodingError: If it is no first part.
    """
    size, _ = _open(message)
    if size is None:
        raise EncodingError("the first part of a request does not tell the size of the whole")
    return size


class Joining:
    """A request that comes in parts.

    Args:
        size: What the first part announces.
    """

    def __init__(self, size: int) -> None:
        # Not zeroed, and so no memory before something arrives to fill it: an announced size costs nothing by itself.
        self._request = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]
        self._filled = 0

    @property
    def request(self) -> memoryview | None:
        """The whole request, once it is there."""
        return self._request if self._filled == len(self._request) else None

    def add(self, message: bytes) -> None:
        """Take the next part, the first one included.

        Raises:
            EncodingError: If it is none, or holds nothing, or more than was announced.
        """
        size, piece = _open(message)
        if (size is None) is not (self._filled > 0):
            raise EncodingError("a request comes in parts, and another one begins before its end")
        end = self._filled + len(piece)
        if end > len(self._request):
            raise EncodingError(f"the parts of a request hold {end:,} bytes, and {len(self._request):,} were announced")
        self._request[self._filled : end] = piece
        self._filled = end


def _open(message: bytes) -> tuple[int | None, memoryview]:
    """The size that a part tells, if it does, and its bytes. Read by hand: nothing but a part is taken for one."""
    view = memoryview(message)
    size = None
    try:
        tag, position = read_varint(view, 0)
        length, position = read_varint(view, position)
        if tag != _PART or position + length != len(view):
            raise EncodingError("a request comes in parts, and what follows is something else")
        tag, position = read_varint(view, position)
        if tag == _SIZE:
            size, position = read_varint(view, position)
            tag, position = read_varint(view, position)
        length, position = read_varint(view, position)
    except VarintError as error:
        raise EncodingError(f"a part of a request is damaged: {error}") from error
    if tag != _DATA or position + length != len(view) or not length or size == 0:
        raise EncodingError("a part of a request has another form than the protocol's")
    return size, view[position:]
