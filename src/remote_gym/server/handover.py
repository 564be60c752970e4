"""The second socket between a server and a worker: direct connections go one way, word of them the other.

Records of one size, so that the stream needs no framing.
"""

from __future__ import annotations

import enum
import socket
import struct

RECORD = struct.Struct("!BI")
"""(kind, value)"""


class ToWorker(enum.IntEnum):
    """What a server tells."""

    CONNECTION = 1
    """Comes with the descriptor of a connection, whose preamble has been read. The value: which one it is, from 1."""
    CUT = 2
    """The session is used over gRPC now: end the direct connection."""
    POLL = 3
    """The value: for how many microseconds to look for a request without sleeping."""


class ToServer(enum.IntEnum):
    """What a worker tells."""

    ATTACHED = 1
    """A client has shown the token and uses a direct connection now. The value: which one, as the server has it."""
    DETACHED = 2
    """It has ended."""


def tell(sock: socket.socket, kind: enum.IntEnum, value: int = 0, descriptor: int | None = None) -> None:
    """Send one record.

    Raises:
        OSError: If the other end is gone, or does not read.
    """
    socket.send_fds(sock, [RECORD.pack(kind, value)], [] if descriptor is None else [descriptor])


def hear(sock: socket.socket) -> tuple[int, int, int | None] | None:
    """Receive one record: kind, value and descriptor. None where the other end is gone.

    Raises:
        OSError: If the socket fails.
    """
    data, descriptors = b"", []
    while len(data) < RECORD.size:
        part, received, _, _ = socket.recv_fds(sock, RECORD.size - len(data), 1)
        if not part:
            return None
        data += part
        descriptors += received
    kind, value = RECORD.unpack(data)
    return kind, value, descriptors[0] if descriptors else None
