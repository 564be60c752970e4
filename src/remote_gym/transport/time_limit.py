"""Waits with an end, whose cancellation is never lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, awaited: Awaitable[T]) -> T:
    """Wait for something that belongs to a task which others may cancel.

    `asyncio.wait_for` does so from Python 3.12 on. Before, it returns its result rather than raise where the task is
    cancelled in the tick in which the result comes: the task goes on, and whoever has cancelled it once waits for all
    else that it does. Not for what has to be undone (a connection that has been made would be lost), nor amid a close.

    Raises:
        asyncio.TimeoutError: If it takes longer; what was awaited is cancelled, and has ended.
    """
    if sys.version_info >= (3, 12):
        return await asyncio.wait_for(awaited, seconds)
    future, is_late = asyncio.ensure_future(awaited), False
    try:
        _, late = await asyncio.wait([future], timeout=seconds)
        is_late = bool(late)
    finally:
        if not future.done():
            future.cancel()
            await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # which nobody may look at, and asyncio would log
    if is_late and future.cancelled():
        raise asyncio.TimeoutError
    return future.result()
