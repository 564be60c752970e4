"""Closing sessions that nobody closed: dropped ones by a thread, and those that are left when the interpreter ends."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable

from remote_gym.client.registry import SESSIONS, Session
from remote_gym.logs import get_logger

logger = get_logger(__name__)

LONGEST_EXIT = 10.0
"""Seconds that an interpreter's end waits, at most, for servers to close what is left."""

Close = Callable[[float], None]
"""Closes a session at its server within so many seconds. It holds no reference to who uses the session."""


class _Closer:
    """A thread that closes what was dropped.

    An object is dropped wherever the garbage collector happens to run: amid gRPC's code, or while `threading` holds one
    of its locks. So nothing is done there but to put a function into a queue, which `queue.SimpleQueue` is made for.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._dropped: queue.SimpleQueue[tuple[Close, float]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="remote_gym-dropped", daemon=True).start()

    def put(self, close: Close, timeout: float) -> None:
        self._dropped.put((close, timeout))

    def finish(self, deadline: float) -> None:
        """Wait until all that was dropped by now is closed."""
        done = threading.Event()
        self._dropped.put((lambda _: done.set(), 0.0))
        done.wait(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            close, timeout = self._dropped.get()
            try:
                close(timeout)
            except Exception as error:  # noqa: BLE001 - nobody is there to be told, and the next one is to be closed
                logger.debug("closing a session that was dropped: %s", error)
            del close


_closer: _Closer | None = None
_starting = threading.Lock()


def see_to(session: Session, close: Close, timeout: float) -> Callable[[], object]:
    """Close a session once it is dropped, or the interpreter ends. In a forked child nothing is done.

    Args:
        session: Which.
        close: What closes it after it was dropped.
        timeout: Seconds that closing may take.

    Returns:
        What is to be called when it has been closed otherwise.
    """
    global _closer
    with _starting:
        if _closer is None or _closer.process != os.getpid():
            _closer = _Closer()
        closer = _closer
    SESSIONS.add(session)
    finalizer = weakref.finalize(session, closer.put, close, timeout)
    finalizer.atexit = False  # `_at_exit` closes it with the references that are still there
    return finalizer.detach


def _at_exit() -> None:
    deadline = time.monotonic() + LONGEST_EXIT
    for session in SESSIONS.items():
        session.close_at_exit(max(0.1, deadline - time.monotonic()))
    if _closer is not None and _closer.process == os.getpid():
        _closer.finish(deadline)


def _in_child() -> None:
    global _starting
    _starting = threading.Lock()  # another thread of the parent may have held it


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
