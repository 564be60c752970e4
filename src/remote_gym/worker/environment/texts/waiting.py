"""Waiting of a worker for requests, while the event loop of its environment runs, if it has one.

Here, and not where the loop is: no other worker is to load asyncio, which takes some 70 ms.
"""

from __future__ import annotations

import select
import threading
from typing import Any, Protocol


class Poll(Protocol):
    """The methods of `select.poll` that a worker uses."""

    def register(self, fd: Any, eventmask: int = ..., /) -> None:
        """Watch a descriptor from now on, for these events."""

    def unregister(self, fd: Any, /) -> None:
        """Watch it no more."""

    def poll(self, timeout: float | None = ..., /) -> list[tuple[int, int]]:
        """Wait for events, for so many milliseconds at most."""


class Polls(Protocol):
    """An event loop that runs while a thread waits."""

    def new_poll(self) -> Poll:
        """A poll whose waiting lets it run."""


class Thread(threading.local):
    """State of a thread.

    Attributes:
        events: The event loop of its environments; None without.
    """

    events: Any = None


this_thread = Thread()


def new_poll() -> Poll:
    """A `select.poll`, whose waiting lets this thread's event loop run, if there is one."""
    polls: Polls | None = this_thread.events
    return select.poll() if polls is None else polls.new_poll()
