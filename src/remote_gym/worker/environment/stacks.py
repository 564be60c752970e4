"""Where a worker is, written to its page when the server asks by a signal."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Callable

STACKS_SIGNAL: int = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGUSR2", 0)
"""Asks a worker for its stacks. One that environments, and what they are made with, leave alone."""


class Stacks:
    """Answers this process's requests for its stacks: none until it is a worker of its own."""

    def __init__(self) -> None:
        self._page = -1

    def write_to(self, page: int) -> None:
        """Write where all threads are to a file, by its descriptor, whenever asked."""
        self._page = page
        # Not Python's way to handle a signal, which waits for whatever C code runs.
        faulthandler.register(STACKS_SIGNAL, file=page, all_threads=True)

    def write_what(self, find: Callable[[], str]) -> None:
        """Write what this finds instead: where a process is that the worker waits for. If it finds nothing, as before.

        Python's way will do then: a worker that waits for another process runs no other C code.
        """
        if self._page < 0 or threading.current_thread() is not threading.main_thread():
            return

        def write(*_: object) -> None:
            text = find()
            with contextlib.suppress(OSError):
                if text:
                    os.write(self._page, text.encode("utf-8", "replace"))
                else:
                    faulthandler.dump_traceback(self._page, all_threads=True)

        faulthandler.unregister(STACKS_SIGNAL)
        signal.signal(STACKS_SIGNAL, write)


stacks = Stacks()
"""The stacks of this process."""
