"""Waiting until something can be read, in a program with any number of descriptors."""

from __future__ import annotations

import math
import select
from collections.abc import Iterable
from typing import Protocol, TypeVar

LONGEST = 2**31 - 1
"""Milliseconds that ``poll`` takes at most: 24 days."""


class HasFileno(Protocol):
    """A socket or a stream."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


Source = TypeVar("Source", bound=int | HasFileno)


def readable(sources: Iterable[Source], timeout: float | None) -> list[Source]:
    """Wait until one of some sources can be read, has ended or has failed.

    By ``poll``: ``select`` refuses descriptors from 1,024 on, which programs with as many connections have, and
    ``epoll`` takes a descriptor of its own, of which there may be none left.

    Args:
        sources: Descriptors, or what has one; each once.
        timeout: Seconds; None for any time.

    Returns:
        Those that can be read without a wait; none if that took too long.

    Raises:
        ValueError: If one of them was closed.
        OSError: If the system cannot.
    """
    by_descriptor = {each if isinstance(each, int) else each.fileno(): each for each in sources}
    poll = select.poll()
    for descriptor in by_descriptor:
        if descriptor < 0:
            raise ValueError("a source was closed")
        poll.register(descriptor, select.POLLIN)
    milliseconds = None if timeout is None else min(LONGEST, math.ceil(max(0.0, timeout) * 1000))
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(milliseconds)]
