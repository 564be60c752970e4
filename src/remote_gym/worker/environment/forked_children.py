"""Ends a child that an environment forks: it ends as it would at home, and never speaks for its parent.

The child has all that the worker had, its connections included, and would go on as a second worker once the code of
the environment is left by a return or an exception. So the connections are taken from it as soon as it is forked, and
where the environment's code is left, the child unwinds to the interpreter's end instead.

Only forks that Python knows of are seen: ``os.fork`` and what is made of it, such as `multiprocessing`'s. What is
started as another program inherits no connection in the first place.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn


class ForkedChild(BaseException):
    """Unwinds a child out of the worker's code, which is not the child's to run.

    Attributes:
        error: What the environment's code raised; None if it returned.
    """

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    def end(self) -> NoReturn:
        """End the process as this error would, without more: beside other threads the interpreter cannot be ended.

        Those do not exist here, but what they held when the child was forked stays held.
        """
        code: object = None
        if isinstance(self.error, SystemExit):
            code = self.error.code
        elif self.error is not None:
            sys.excepthook(type(self.error), self.error, self.error.__traceback__)
            code = 1
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit((code or 0) & 0xFF)


class Serving:
    """The connections of a session, which nothing that its environment forks may use.

    Attributes:
        requests: As `run` has it.
        control: Likewise.
        clients: The descriptors of those over direct connections, or on their way to one.
    """

    def __init__(self, requests: socket.socket, control: socket.socket) -> None:
        self.requests = requests
        self.control = control
        self.clients: Callable[[], list[int]] = list

    def descriptors(self) -> list[int]:
        """Descriptors of all connections that are open."""
        found = [self.requests.fileno(), self.control.fileno(), *self.clients()]
        return [descriptor for descriptor in found if descriptor >= 0]


class _Forked:
    """State of this process: whether it was forked from a worker.

    Attributes:
        thread: The thread that served a session when it was forked, while it has not ended; else 0.
    """

    __slots__ = ("_null", "_serving", "thread")

    def __init__(self) -> None:
        self.thread = 0
        self._serving: dict[int, Serving] = {}  # by the thread that does
        self._null = -1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._take_connections)

    def leave(self, error: BaseException | None = None) -> None:
        """Unwind, if this thread is a forked child's and has left the environment's code.

        Raises:
            ForkedChild: Then.
        """
        if self.thread == threading.get_ident():
            raise ForkedChild(error)

    @contextlib.contextmanager
    def serving(self, serving: Serving) -> Iterator[None]:
        """This thread serves a session for as long as the block runs."""
        if self._null < 0:
            # Beforehand: a child may be forked when there are no descriptors left.
            self._null = os.open(os.devnull, os.O_RDWR)
        thread = threading.get_ident()
        self._serving[thread] = serving
        try:
            yield
        finally:
            self._serving.pop(thread, None)
            if self.thread == thread:
                self.thread = 0

    def _take_connections(self) -> None:
        for serving in self._serving.values():
            for descriptor in serving.descriptors():
                # Not closed: the sockets that have them would close whatever gets their numbers next. Nor shut down,
                # which would end the connections of the parent, too.
                os.dup2(self._null, descriptor, inheritable=False)
        thread = threading.get_ident()
        if thread in self._serving:
            self.thread = thread
        self._serving.clear()


forked = _Forked()
"""``if forked.thread: forked.leave()``: the attribute costs a step nothing that could be measured."""
