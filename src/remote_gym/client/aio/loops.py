"""Event loops that end while sessions are open in them."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator
from typing import Protocol


class EndsWithLoop(Protocol):
    """Something that cannot be used without its event loop."""

    def leave_loop(self) -> None:
        """Leave it: it shuts down, or is closed."""

    async def left_loop(self) -> None:
        """Wait, in one that shuts down, until it has nothing of this any more."""


_Waiting = tuple[AsyncGenerator[None, None], "weakref.WeakSet[EndsWithLoop]"]
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = weakref.WeakKeyDictionary()


def at_end_of_loop(item: EndsWithLoop) -> None:
    """Call `leave_loop` when the running loop shuts down, as `asyncio.run` has it do, if the object is still there.

    A loop does not say that it ends. It closes asynchronous generators, though, that were begun and not finished. A
    task that waited for its cancellation instead would be one more that users see. Loops that were closed without
    doing so are noticed when another one comes here.
    """
    loop = asyncio.get_running_loop()
    if loop not in _loops:
        for other in list(_loops):
            if other.is_closed():
                _end(other)
        items: weakref.WeakSet[EndsWithLoop] = weakref.WeakSet()
        generator = _until_closed(loop)
        with contextlib.suppress(StopIteration):  # which has it run up to its `yield`, without a task
            generator.__anext__().send(None)
        _loops[loop] = generator, items
    _loops[loop][1].add(item)


def _end(loop: asyncio.AbstractEventLoop) -> list[EndsWithLoop]:
    # Removed, or it would never be freed: its generator refers to it.
    _, items = _loops.pop(loop)
    left = list(items)
    for item in left:
        item.leave_loop()
    return left


async def _until_closed(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        for item in _end(loop) if loop in _loops else ():
            await item.left_loop()
