"""Records between a server and its forkserver: of one size, in both directions."""

from __future__ import annotations

import enum
import struct

RECORD = struct.Struct("!BQq")
"""(command or event, worker number, value)"""


class Command(enum.IntEnum):
    """Requests of the server."""

    LAUNCH = 1
    """Comes with four descriptors: the worker's two sockets, its page of counters, and where its output goes."""
    KILL = 2
    STACKS = 3
    """Let the worker write where its Python threads are, behind its page."""


class Event(enum.IntEnum):
    """Reports of the forkserver."""

    STARTED = 1
    """The value is the process id."""
    EXITED = 2
    """The value is the exit code, or minus the number of the signal that ended it."""
