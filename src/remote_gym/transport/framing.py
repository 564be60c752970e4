"""Messages on a socket, each preceded by its length: four bytes, big-endian.

All that writes or reads such a length does it by the functions of this module, or by its constants.
`MessageSocket` knows a socket's ``recv``, ``sendall`` and ``settimeout`` only, which an ``ssl.SSLSocket`` has as well.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Literal

from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost, DeadlineExceeded, EncodingError

HEADER_BYTES = 4
BYTE_ORDER: Literal["big"] = "big"
LONGEST = 2 ** (8 * HEADER_BYTES) - 1
"""Bytes of the longest message whose length can be written."""

_CHUNK = 2**16


def write_length(size: int, limit: int = LONGEST) -> bytes:
    """Header of a message of `size` bytes.

    Raises:
        EncodingError: If it is over the limit.
    """
    if size > limit:
        raise EncodingError(f"a message of {size:,} bytes is over the limit of {limit:,}")
    return size.to_bytes(HEADER_BYTES, BYTE_ORDER)


def read_length(header: bytes | bytearray | memoryview, limit: int) -> int:
    """Size of the message that a header of `HEADER_BYTES` announces.

    Raises:
        EncodingError: If it is over the limit.
    """
    size = int.from_bytes(header, BYTE_ORDER)
    if size > limit:
        raise EncodingError(f"a message of {size:,} bytes is announced; the limit is {limit:,}")
    return size


def frame(message: bytes, limit: int = LONGEST) -> bytes:
    """A message behind its header.

    Raises:
        EncodingError: If it is over the limit.
    """
    return write_length(len(message), limit) + message


class MessageSocket:
    """One end of a connected, blocking stream socket, which it owns.

    Not for use by several threads at once, but one may send while another receives. After any error but an
    `EncodingError` raised by `send` the stream is out of step, and all that is left is to close it.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._socket = sock
        self._limit = min(limits.message_bytes, LONGEST)

    def send(self, data: bytes | Sequence[bytes]) -> None:
        """Send one message.

        Args:
            data: The message, or its parts.

        Raises:
            EncodingError: If it is over the limit; nothing was sent.
            ConnectionLost: If the other end is gone.
            DeadlineExceeded: If the socket has a timeout and the other end did not read.
        """
        parts = (data,) if isinstance(data, bytes) else data
        size = sum(map(len, parts))
        begin = write_length(size, self._limit)
        try:
            # What is small goes with what comes before, or Nagle's algorithm holds it back. Large parts are not copied.
            for part in parts:
                taken = part if len(part) <= _CHUNK else part[:_CHUNK]
                self._socket.sendall(begin + taken)
                begin = b""
                if len(taken) < len(part):
                    self._socket.sendall(memoryview(part)[len(taken) :])
        except TimeoutError as error:
            raise DeadlineExceeded(f"a message of {size} bytes was not read in time") from error
        except OSError as error:
            raise ConnectionLost(f"sending failed: {error}") from error

    def receive(self, deadline: float | None = None) -> bytes | None:
        """Wait for the next message; None where the other end closed after the last one.

        Nothing is read ahead, so that between messages the socket may be handed to another process, or waited for.

        Args:
            deadline: On `time.monotonic`, for all of it; it sets the socket's timeout. None for that which the socket
                has, which counts from each part that comes: who sends a byte now and then can go on for ever.

        Raises:
            EncodingError: If its length is over the limit.
            ConnectionLost: If the connection breaks, or ends within a message.
            DeadlineExceeded: If it did not come whole by the deadline, or nothing came within the socket's timeout.
        """
        header = self.read(HEADER_BYTES, deadline)
        if not header:
            return None
        if len(header) < HEADER_BYTES:
            header += self._read_exactly(HEADER_BYTES - len(header), deadline)
        return self._read_exactly(read_length(header, self._limit), deadline)

    def _read_exactly(self, size: int, deadline: float | None) -> bytes:
        parts, received = [], 0
        while received < size:
            # No more than has come already is asked for, so that an announced length costs nothing by itself.
            part = self.read(min(size - received, max(_CHUNK, received)), deadline)
            if not part:
                raise ConnectionLost(f"the connection ended within a message, after {received} of {size} bytes")
            if len(part) == size:
                return part
            parts.append(part)
            received += len(part)
        return b"".join(parts)

    def read(self, size: int, deadline: float | None = None) -> bytes:
        """Wait for some bytes, at most `size`; none at the end of the stream. The deadline is as for `receive`."""
        if deadline is not None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise DeadlineExceeded("no message came in time")
            self._socket.settimeout(remaining)
        try:
            return self._socket.recv(size)
        except TimeoutError as error:
            raise DeadlineExceeded("no message came in time") from error
        except OSError as error:
            raise ConnectionLost(f"receiving failed: {error}") from error

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
