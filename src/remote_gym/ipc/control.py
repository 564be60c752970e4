"""The second socket between a server and a worker: direct connections go one way, word of them the other."""

from __future__ import annotations

import enum
import socket
import struct

from remote_gym.ipc import records

RECORD = struct.Struct("!BI")
"""(kind, value)"""


class WorkerCommand(enum.IntEnum):
    """Records that a server sends."""

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
    LEAVE = 7
    """The session has ended: forget it, say `LEFT`, and wait for the next one with the same environment."""


class WorkerEvent(enum.IntEnum):
    """Records that a worker sends."""

    ATTACHED = 1
    """A client has shown the token and uses a direct connection now, a descriptor of which comes along. The value:
    which one it is, as the server has it."""
    DETACHED = 2
    """It has ended. The value: how many milliseconds before, at least, its client last gave a sign of life."""
    DRAINED = 3
    """No episode runs and none is begun any more; the session may end."""
    IDLE = 4
    """No request came for as long as a client may be silent."""
    LEFT = 5
    """Nothing of the session is left. The value: 1 where the environment is kept, 0 where it is being closed."""


def send_record(sock: socket.socket, kind: enum.IntEnum, value: int = 0, descriptor: int | None = None) -> None:
    """Send one record.

    Raises:
        OSError: If the other end is gone, or does not read.
    """
    socket.send_fds(sock, [RECORD.pack(kind, value)], [] if descriptor is None else [descriptor])


def receive_record(sock: socket.socket) -> tuple[int, int, int | None] | None:
    """Receive one record: kind, value and descriptor. None where the other end is gone.

    A record brings one descriptor at most: those beyond it are closed, since whatever runs in a worker could have the
    server hold more than it may.

    Raises:
        OSError: If the socket fails.
    """
    if (found := records.receive_record(sock, RECORD, 1)) is None:
        return None
    (kind, value), descriptors = found
    return kind, value, descriptors[0] if descriptors else None
