"""Closing of gRPC's channels before the process forks, which gRPC's threads do not survive.

gRPC's threads do not survive a fork, and its state does not survive without them: a child of a process with open
channels aborts in gRPC as soon as it opens one of its own (seen four times of four with two environments, in
``ev_epoll1_linux.cc``). A process whose channels are all closed forks children that can use gRPC. So channels are
closed before each fork, and made again in the parent. No session notices: it attaches anew with its next request, and
what other threads begin in between waits for the channel.

When the last channel is closed, gRPC ends in the background, by threads that hold its locks. A child forked meanwhile
has the locks and not the threads, and waits for them without end once it makes a channel, with Python's own lock, so
that not even another thread of it goes on. So those threads are waited for, which takes some 2 ms.

A channel over which another thread waits for an answer is waited for, a little, since steps are short. Then it stays
open: to open a session twice would be worse. Of children of such a moment one in three was seen to abort or to hang in
gRPC, and the same goes for those of one in which gRPC had not ended in time, or was busy for others. So a child is told
by its parent how gRPC was, and where it may hang it refuses to make channels, with an error, rather than to try its
luck. What does without gRPC goes on in it.

A fork while another thread is connecting can harm the parent, too: that thread's call was seen to arrive twice, and the
session was lost to the second, after 18 to 84 forks in a row beside a thread that stepped; where that was waited for in
none of 5,592, and on a busy machine once more, which is why the wait is longer where it may be connecting.

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
from typing import TypeVar

from remote_gym.client.connect import grpc_threads
from remote_gym.client.connect.grpc_threads import Seen
from remote_gym.client.connect.registry import CHANNELS, SESSIONS
from remote_gym.errors import ConnectError
from remote_gym.logs import get_logger

logger = get_logger(__name__)

LONGEST_WAIT = 3.0
"""Seconds that a fork waits for gRPC's end, of which some milliseconds are needed, and on a machine with a load of
twenty more than half a second. gRPC does not end while something holds it that is not ours."""

LONGEST_WAIT_FOR_REST = 0.5
"""Seconds after that, and only those if it did not end the last time, until it is at rest: then its own preparations
for a fork are enough as a rule. Beside calls of others 8 of 30 children failed; beside an idle channel none of 616, but
4 of 12 on a machine that was busy with much else."""

LONGEST_USE = 0.5
"""Seconds that a fork waits for requests of other threads, of all channels together."""

LONGEST_CONNECT = 0.5
"""Seconds more for one that may be connecting, in which no fork may strike."""

LONGEST_FORK = 5.0
"""Seconds after which a fork is no more waited for. It ends by itself, so this is for what nobody has thought of."""

T = TypeVar("T")


class _Forks:
    """Record of the forks of one process."""

    def __init__(self) -> None:
        # Two threads may fork at once: the channels that the first makes again must be none while the second forks.
        self.lock = threading.RLock()
        self.threads: dict[int, int] = {}
        """How many forks deep each thread is, by its identifier: a signal's handler may fork amid a fork."""
        self.may_be_ending = False
        """Whether gRPC may end in the background: a channel was closed, whose object may be gone by now."""
        self.is_kept = False
        """Whether gRPC did not end the last time, though all channels of ours were closed."""
        self.unusable = ""
        """How gRPC was when this process was forked, if it cannot be used here."""
        self.childs = ""
        """The same of the child that is forked now."""
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


def check_usable() -> None:
    """See that gRPC can be used in this process.

    Raises:
        ConnectError: If it may wait without end, or abort: in a child of a process that had not done with it.
    """
    if _forks.unusable:
        raise ConnectError(
            f"gRPC cannot be used in this process, {os.getpid()}, which was forked while {_forks.unusable}; fork while "
            "no other thread uses gRPC, or start processes by 'forkserver' or 'spawn'"
        )


def used_amid() -> None:
    """Say that gRPC is used although a fork is going on, whose child then cannot."""
    _forks.childs = "a signal's handler used an environment over it"


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
    begin = time.monotonic()
    deadline = begin + LONGEST_USE
    _forks.childs = _forks.unusable
    for session in SESSIONS.items():  # streams before the channels that carry them
        _safely(functools.partial(session.before_fork, deadline))
    are_closed = [_safely(functools.partial(channel.before_fork, deadline)) for channel in CHANNELS.items()]
    closed = time.monotonic()
    seen = None
    if not all(are_closed):  # then its threads do not end
        _forks.childs = "a request of another thread had not been answered"
    elif _forks.may_be_ending:
        seen = _safely(_wait_for_grpcs_end)
    _safely(functools.partial(_tell, are_closed, closed - begin, seen, time.monotonic() - closed))


def _tell(are_closed: list[bool | None], closing: float, seen: Seen | None, waiting: float) -> None:
    """Log what a fork found."""
    logger.debug(
        "before a fork: %d of %d channels closed within %.4f s; gRPC %s, %.4f s later; the child can%s use it",
        are_closed.count(True),
        len(are_closed),
        closing,
        "was not waited for" if seen is None else seen.value,
        waiting,
        f"not: it is forked while {_forks.childs}" if _forks.childs else "",
    )


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


def _wait_for_grpcs_end() -> Seen:
    """Wait until gRPC has ended, where that can be seen, or is at rest, where others keep it."""
    _forks.may_be_ending = False  # before it is looked at, or a channel closed meanwhile would be forgotten
    seen = grpc_threads.wait_for_end(0.0 if _forks.is_kept else LONGEST_WAIT, LONGEST_WAIT_FOR_REST)
    _forks.is_kept = seen is not Seen.NONE
    if seen is Seen.BUSY:
        _forks.may_be_ending = True
        _forks.childs = "gRPC was busy, for others or with its own end"
    return seen


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
    unusable, _forks = _forks.childs, _Forks()
    _forks.unusable = unusable
    for channel in CHANNELS.items():
        channel.in_child()
    # They are the parent's. A child that closed one would end a session that is not its own.
    SESSIONS.clear()
    CHANNELS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
