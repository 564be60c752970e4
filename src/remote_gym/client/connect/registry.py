"""Registry of what this process has open: sessions, and the channels that carry them."""

from __future__ import annotations

import itertools
import weakref
from typing import Generic, Protocol, TypeVar

from remote_gym.address import Place

T = TypeVar("T")


class Session(Protocol):
    """A session that may be open."""

    @property
    def place(self) -> Place:
        """Where its server is."""

    def before_fork(self, deadline: float) -> None:
        """Leave its stream over gRPC, unless it is in use until then, on `time.monotonic`."""

    def close_at_exit(self, timeout: float) -> None:
        """Close it within so many seconds, quietly: the server may have gone before."""


class Channel(Protocol):
    """A channel of gRPC's."""

    def before_fork(self, deadline: float) -> bool:
        """Close it, unless it is in use until then, on `time.monotonic`; whether it is closed."""

    def after_fork(self) -> None:
        """Make it again, in the parent, if `before_fork` has closed it."""

    def in_child(self) -> None:
        """Have nothing wait for `after_fork`, which a child does not call."""


class Registry(Generic[T]):
    """Objects, as long as they exist.

    Other threads add to it, and the garbage collector removes, while it is read. A `weakref.WeakSet` raises then: of
    300 forks beside a thread that opened sessions, 90 closed no channel. A dict's values are copied in one piece.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}
        self._numbers = itertools.count()

    def add(self, item: T) -> None:
        """Keep an object, weakly."""
        references, number = self._references, next(self._numbers)
        references[number] = weakref.ref(item, lambda _: references.pop(number, None))

    def items(self) -> list[T]:
        """All that exist, in the order in which they were added."""
        return [item for reference in list(self._references.values()) if (item := reference()) is not None]

    def clear(self) -> None:
        """Forget them all."""
        self._references.clear()


SESSIONS: Registry[Session] = Registry()
CHANNELS: Registry[Channel] = Registry()
