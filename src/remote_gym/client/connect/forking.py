"""What a process closes of gRPC before it forks.

gRPC's threads do not survive a fork, and its state does not survive without them: a child of a process with open
channels aborts in gRPC as soon as it opens one of its own (seen four times of four with two environments, in
``ev_epoll1_linux.cc``). A process whose channels are all closed forks children that can use gRPC. So channels are
closed before each fork, and made again in the parent. No session notices: it attaches anew with its next request, and
what other threads begin in between waits for the channel.

When the last channel is closed, gRPC ends in the background, by threads that hold its locks. A child forked meanwhile
has the locks and not the threads, and waits for them without end once it makes a channel (seen in 4 of 90 tries, and in
none of 90 once those threads were waited for, which took some 2 ms).

A channel over which another thread waits for an answer is waited for, a little, since steps are short. Then it stays
open: to open a session twice would be worse. A child of such a moment has the old trouble. And the parent can have some
where the other thread was connecting: its call was seen to arrive twice, and the session was lost to the second. That
came to pass without the wait after 18 to 84 forks in a row beside a thread that stepped, and with it in none of 5,592;
on a busy machine once more, which is why the wait is longer where it may be connecting.

`subprocess` does not call these functions, as it runs no Python code in its child.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from remote_gym.client.connect.registry import CHANNELS, SESSIONS
from remote_gym.logs import get_logger

logger = get_logger(__name__)

LONGEST_WAIT = 3.0
"""Seconds, of which some milliseconds are needed, and on a machine with a load of twenty more than half a second. The
threads of channels that are not ours do not end."""

WAIT_IN_VAIN = 0.05
"""Seconds, where they did not the last time. gRPC itself makes them anew with each fork, so none can be known again."""

LONGEST_USE = 0.05
"""Seconds that a fork waits for requests of other threads, of all channels together."""

LONGEST_CONNECT = 0.5
"""Seconds more for one that may be connecting, in which no fork may strike."""

LONGEST_FORK = 5.0
"""Seconds after which a fork is no more waited for. It ends by itself, so this is for what nobody has thought of."""

_TASKS = Path("/proc/self/task")
_NAMES = ("grpc", "event_engine", "lifeguard", "default-executo", "resolver-execut")
"""How the names of gRPC's threads begin, of which Linux keeps 15 characters."""

T = TypeVar("T")


class _Forks:
    """What is to be remembered of forks, by one process."""

    def __init__(self) -> None:
        # Two threads may fork at once: the channels that the first makes again must be none while the second forks.
        self.lock = threading.RLock()
        self.threads: dict[int, int] = {}
        """How many forks deep each thread is, by its identifier: a signal's handler may fork amid a fork."""
        self.may_be_ending = False
        """Whether gRPC may end in the background: a channel was closed, whose object may be gone by now."""
        self.longest_wait = LONGEST_WAIT
        self.interrupted = False
        """Whether Ctrl-C is to be raised after the fork."""


_forks = _Forks()


def channel_closed() -> None:
    """Say that a channel is closed, by which gRPC may begin to end."""
    _forks.may_be_ending = True


def is_going_on() -> bool:
    """Whether some thread forks just now."""
    return bool(_forks.threads)


def is_mine() -> bool:
    """Whether this very thread does, so that it must not wait for the fork's end: a signal's handler amid `os.fork`."""
    return threading.get_ident() in _forks.threads


def _safely(function: Callable[[], T]) -> T | None:
    """Call a function so that others can be called, whatever it raises; None if it has raised."""
    for _ in range(2):
        try:
            return function()
        except KeyboardInterrupt:  # CPython lets nothing out of these functions, so it is raised later
            _forks.interrupted = True
        except Exception as error:  # noqa: BLE001 - as above
            logger.debug("amid a fork: %r", error)
            break
    return None


def _before() -> None:
    _safely(_begin)
    deadline = time.monotonic() + LONGEST_USE
    for session in SESSIONS.items():  # streams before the channels that carry them
        _safely(functools.partial(session.before_fork, deadline))
    # Where a channel stays open its threads do not end.
    are_closed = [_safely(functools.partial(channel.before_fork, deadline)) for channel in CHANNELS.items()]
    if _forks.may_be_ending and all(are_closed):
        _safely(_wait_for_grpcs_threads)


def _begin() -> None:
    _forks.lock.acquire(timeout=LONGEST_FORK)
    thread = threading.get_ident()
    _forks.threads[thread] = _forks.threads.get(thread, 0) + 1


def _end() -> bool:
    """Whether the fork that ended was the outermost of its thread."""
    thread = threading.get_ident()
    depth = _forks.threads.pop(thread, 1) - 1
    if depth:
        _forks.threads[thread] = depth
    with contextlib.suppress(RuntimeError):  # it was not had in time
        _forks.lock.release()
    return not depth


def _wait_for_grpcs_threads() -> None:
    """Wait until gRPC has ended, where that can be seen."""
    _forks.may_be_ending = False  # before it is looked at, or a channel closed meanwhile would be forgotten
    deadline = time.monotonic() + _forks.longest_wait
    while has_grpcs_threads():
        if time.monotonic() >= deadline:
            _forks.longest_wait = WAIT_IN_VAIN
            return
        time.sleep(0.0005)
    _forks.longest_wait = LONGEST_WAIT


def has_grpcs_threads() -> bool:
    """Whether gRPC runs, where the system names threads."""
    if not _TASKS.exists():
        return False
    for task in _TASKS.iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            if (task / "comm").read_text().startswith(_NAMES):
                return True
    return False


def _in_parent() -> None:
    if _safely(_end) is False:  # None, if it was interrupted: better once too often than never
        return
    for channel in CHANNELS.items():
        _safely(channel.after_fork)
    if _forks.interrupted:
        _forks.interrupted = False
        over: list[bool] = []
        threading.Thread(target=_interrupt, args=(over,), name="remote_gym-interrupt", daemon=True).start()
        over += [True]  # the last line: what is raised before it CPython ignores


def _interrupt(over: list[bool]) -> None:
    """Raise the Ctrl-C that came amid a fork, once that is over."""
    deadline = time.monotonic() + LONGEST_FORK
    while not over and time.monotonic() < deadline:
        time.sleep(0.001)
    if callable(signal.getsignal(signal.SIGINT)):
        # Not by `interrupt_main`, which wakes nobody who sleeps.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _in_child() -> None:
    global _forks
    _forks = _Forks()
    for channel in CHANNELS.items():
        channel.in_child()
    # They are the parent's. A child that closed one would end a session that is not its own.
    SESSIONS.clear()
    CHANNELS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
