"""The second socket between a server and a worker: direct connections go one way, word of them the other.

Records of one size, so that the stream needs no framing.
"""

from __future__ import annotations

import enum
import os
import socket
import struct

RECORD = struct.Struct("!BI")
"""(kind, value)"""
_DESCRIPTOR = struct.Struct("i")


class ToWorker(enum.IntEnum):
    """What a server tells."""

    CONNECTION = 1
    """Comes with the descriptor of a connection, whose preamble has been read. The value: which one it is, from 1."""
    TAKEN_OVER = 2
    """The session is used over gRPC now: tell the client of the direct connection, and end that."""
    DROP = 3
    """End the direct connection without a word, so that its client asks the server for the reason."""
    POLL = 4
    """The value: for how many microseconds to look for a request without sleeping."""
    DRAIN = 5
    """The server is stopping: begin no more episodes, and say `DRAINED` when none runs."""
    LIMIT_IDLE = 6
    """The value: after how many milliseconds without a request to say `IDLE`."""


class ToServer(enum.IntEnum):
    """What a worker tells."""

    ATTACHED = 1
    """A client has shown the token and uses a direct connection now, a descriptor of which comes along. The value:
    which one it is, as the server has it."""
    DETACHED = 2
    """It has ended. The value: how many milliseconds before, at least, its client last gave a sign of life."""
    DRAINED = 3
    """No episode runs and none is begun any more; the session may end."""
    IDLE = 4
    """No request came for as long as a client may be silent."""


def receive_descriptors(sock: socket.socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """Receive some bytes, at most `size`, and the descriptors that come along, which no program inherits.

    Received descriptors are inheritable by themselves. What an environment starts would hold on to its clients'
    connections, and keep their ends from being noticed.

    Raises:
        OSError: If the socket fails.
    """
    # At once where the system can, since another thread may be starting a program just now. `socket.recv_fds` takes
    # flags, and ignores them: https://github.com/python/cpython/issues/107898
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, messages, _, _ = sock.recvmsg(size, socket.CMSG_LEN(count * _DESCRIPTOR.size), flags)
    descriptors = [
        descriptor
        for level, kind, content in messages
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (descriptor,) in _DESCRIPTOR.iter_unpack(content[: len(content) - len(content) % _DESCRIPTOR.size])
    ]
    if not flags:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    return data, descriptors


def tell(sock: socket.socket, kind: enum.IntEnum, value: int = 0, descriptor: int | None = None) -> None:
    """Send one record.

    Raises:
        OSError: If the other end is gone, or does not read.
    """
    socket.send_fds(sock, [RECORD.pack(kind, value)], [] if descriptor is None else [descriptor])


def hear(sock: socket.socket) -> tuple[int, int, int | None] | None:
    """Receive one record: kind, value and descriptor. None where the other end is gone.

    A record brings one descriptor at most: those beyond it are closed, since whatever runs in a worker could have the
    server hold more than it may.

    Raises:
        OSError: If the socket fails.
    """
    data, descriptors = b"", []
    try:
        while len(data) < RECORD.size:
            part, received = receive_descriptors(sock, RECORD.size - len(data), 1)
            descriptors += received
            if not part:
                return None
            data += part
        kind, value = RECORD.unpack(data)
        return kind, value, descriptors.pop(0) if descriptors else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
