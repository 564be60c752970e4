"""What a process closes of gRPC before it forks.

gRPC's threads do not survive a fork, and its state does not survive without them: a child of a process with open
channels aborts in gRPC as soon as it opens one of its own (seen four times of four with two environments, in
``ev_epoll1_linux.cc``). A process whose channels are all closed forks children that can use gRPC. So channels are
closed before each fork, and made again in the parent. No session notices: it attaches anew with its next request.

When the last channel is closed, gRPC ends in the background, by threads that hold its locks. A child forked meanwhile
has the locks and not the threads, and waits for them without end once it makes a channel (seen in 4 of 90 tries, and in
none of 90 once those threads were waited for, which took some 2 ms).

A channel over which another thread waits for an answer stays open: to open a session twice would be worse. A child of
such a moment has the old trouble.

`subprocess` does not call these functions, as it runs no Python code in its child.
"""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path
from typing import Protocol

_LONGEST_WAIT = 0.5
"""Seconds. The threads of channels that are not ours, or are in use, do not end."""

_TASKS = Path("/proc/self/task")
_NAMES = ("grpc", "event_engine", "lifeguard", "default-executo", "resolver-execut")
"""How the names of gRPC's threads begin, of which Linux keeps 15 characters."""


class Forkable(Protocol):
    """Something that uses gRPC."""

    def before_fork(self) -> None:
        """Close what uses gRPC. Waits for nothing."""

    def after_fork(self) -> None:
        """Have it again, in the parent."""


# Streams before the channels that carry them: an order, which a set has not.
_sessions: weakref.WeakSet[Forkable] = weakref.WeakSet()
_channels: weakref.WeakSet[Forkable] = weakref.WeakSet()
_may_be_ending = False  # gRPC, since there was a channel at the last fork, or has been one since


def add_session(session: Forkable) -> None:
    """Close the streams of a session before forks, as long as it exists."""
    _sessions.add(session)


def add_channel(channel: Forkable) -> None:
    """Close a channel before forks, as long as it exists."""
    global _may_be_ending
    _channels.add(channel)
    _may_be_ending = True


def _before() -> None:
    global _may_be_ending
    for each in (*_sessions, *_channels):
        each.before_fork()
    if _may_be_ending:  # else gRPC is somebody else's
        _wait_for_grpcs_threads()
        _may_be_ending = bool(_channels)


def _wait_for_grpcs_threads() -> None:
    """Wait until gRPC has ended, where that can be seen."""
    deadline = time.monotonic() + _LONGEST_WAIT
    while _has_grpcs_threads() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _has_grpcs_threads() -> bool:
    if not _TASKS.exists():
        return False
    for task in _TASKS.iterdir():
        try:
            if (task / "comm").read_text().startswith(_NAMES):
                return True
        except OSError:  # it has just ended
            continue
    return False


def _in_parent() -> None:
    for each in (*_channels, *_sessions):
        each.after_fork()


def _in_child() -> None:
    # They are the parent's. A child that closed one would end a session that is not its own.
    _sessions.clear()
    _channels.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
