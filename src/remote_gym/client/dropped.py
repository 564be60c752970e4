"""Closing sessions that nobody closed: dropped ones by threads, and those that are left when the process ends."""

from __future__ import annotations

import atexit
import functools
import math
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable

from remote_gym.address import Place
from remote_gym.client.carrier import Line
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.registry import SESSIONS, Session
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Exchange

logger = get_logger(__name__)

LONGEST_EXIT = 10.0
"""Seconds that a process's end waits, at most, for servers to close what is left."""

_MARGIN = 0.5
"""Seconds before that after which no call goes on: a thread amid gRPC's code would meet the interpreter's end."""

THREADS = 16
"""How many close at one server at a time, at most: each waits for an environment's own `close`."""

Close = Callable[[float], None]
"""Closes a session at its server within so many seconds. It holds no reference to who uses the session."""


class _Server:
    """Sessions open at one server, and the threads that close them: a silent server holds up no other.

    An object is dropped wherever the garbage collector happens to run: amid gRPC's code, or while `threading` holds one
    of its locks. So nothing is done there but to put a function into a queue, which `queue.SimpleQueue` is made for.
    And CPython from 3.12 on starts no thread at exit. So the threads are there as long as something is open.
    """

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[Close | None, float]] = queue.SimpleQueue()
        """Sessions to close, each with its timeout in seconds; None for one that is. Each counts in `open`."""
        self.open = 0
        self.threads = 0


class _Closing:
    """All that is open in one process."""

    def __init__(self) -> None:
        self._until = math.inf  # on time.monotonic, what calls may take at exit
        self._servers: dict[Place, _Server] = {}
        self._changed = threading.Condition()  # whose lock is reentrant, for a signal's handler that opens a session
        self._ends_with_multiprocessing = False

    def expect(self, place: Place) -> _Server:
        """Count one more session that is open at a server."""
        with self._changed:
            if not self._ends_with_multiprocessing:
                self._ends_with_multiprocessing = _end_with_multiprocessing()
            server = self._servers.setdefault(place, _Server())
            server.open += 1
            if server.threads < min(THREADS, server.open):
                thread = threading.Thread(
                    target=self._run, args=(place, server), name="remote_gym-dropped", daemon=True
                )
                try:
                    thread.start()
                    server.threads += 1
                except RuntimeError as error:  # the interpreter is about to end, or there is room for no more
                    logger.debug("what is dropped at %s is closed by %d threads: %s", place, server.threads, error)
            return server

    def close_all(self) -> None:
        """Close what is left at all servers at once, and wait for that, and for what was dropped before."""
        deadline = time.monotonic() + LONGEST_EXIT
        self._until = deadline - _MARGIN
        for session in SESSIONS.items():
            if not self._hand_over(session):
                self._close(session.close_at_exit, math.inf)
        with self._changed:
            self._changed.wait_for(self._is_done, max(0.0, deadline - time.monotonic()))

    def close_soon(self, session: Session) -> None:
        """Have a thread close a session that is open; where there is none, it is left to the process's end."""
        self._hand_over(session)

    def _hand_over(self, session: Session) -> bool:
        """Have a thread close a session; False if there is none to do it."""
        with self._changed:
            server = self._servers.get(session.place)
            if server is None or not server.threads:
                return server is None  # nothing is open there
            server.open += 1
            server.queue.put((session.close_at_exit, math.inf))
            return True

    def _is_done(self) -> bool:
        return not any(server.threads for server in self._servers.values())

    def _run(self, place: Place, server: _Server) -> None:
        while True:
            close, timeout = server.queue.get()
            if close is not None:
                self._close(close, timeout)
            del close
            with self._changed:
                server.open -= 1
                if server.open < server.threads:
                    server.threads -= 1
                    if not server.threads and self._servers.get(place) is server:
                        del self._servers[place]
                        self._changed.notify_all()
                    return

    def _close(self, close: Close, timeout: float) -> None:
        timeout = min(timeout, self._until - time.monotonic())
        if timeout <= 0:
            return
        try:
            close(timeout)
        except Exception as error:  # noqa: BLE001 - nobody is there to be told, and the next one is to be closed
            logger.debug("closing a session that was dropped: %r", error)


_closing = _Closing()


def see_to(session: Session, close: Close, timeout: float) -> Callable[[], object]:
    """Close a session once it is dropped, or the process ends. In a forked child nothing is done.

    Args:
        session: Which.
        close: What closes it after it was dropped.
        timeout: Seconds that closing may take.

    Returns:
        What is to be called when it has been closed otherwise.
    """
    SESSIONS.add(session)
    server = _closing.expect(session.place)
    finalizer = weakref.finalize(session, server.queue.put, (close, timeout))
    finalizer.atexit = False  # `close_all` closes it with the references that are still there
    return functools.partial(_forget, finalizer, server)


def close_soon(session: Session) -> None:
    """Have a thread close a session that cannot be used any more, though somebody may still have it."""
    _closing.close_soon(session)


def _forget(finalizer: weakref.finalize[[tuple[Close, float]], Session], server: _Server) -> None:
    if finalizer.detach() is not None:  # else another thread has
        server.queue.put((None, 0.0))


def _end_with_multiprocessing() -> bool:
    """Whether this process is one of `multiprocessing`, which then closes what is left: `atexit` does not run there."""
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if process is None or util is None or process.parent_process() is None:
        return False
    util.Finalize(None, close_all, exitpriority=-100)  # after everybody else's
    return True


def close_all() -> None:
    """Close all that is open, as at the process's end, within `LONGEST_EXIT`; in a forked child, what is its own."""
    _closing.close_all()


def _in_child() -> None:
    global _closing
    _closing = _Closing()  # what is open is the parent's, whose threads are not here, and who may have held the lock


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def close_dropped(
    connection: GrpcConnection, session: str, token: str, exchange: Exchange, line: Line, timeout: float
) -> None:
    """Close a session whose `ClientSession` is no more. None of the arguments may lead to it, or it could not be."""
    stream, line.stream = line.stream, None
    if stream is not None:
        stream.close()
    try:
        if exchange.is_open:
            connection.close_session(session, token, timeout)
    finally:
        connection.close()
