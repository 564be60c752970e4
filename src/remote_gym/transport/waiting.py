"""Waiting in asyncio's tasks: with an end, and so that a task which is cancelled does end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from remote_gym.logs import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

CLEAN_UP = 1.0
"""Seconds that what was waited for has to end once it is cancelled, since its owner closes its socket next."""

AGAIN = 0.25
"""Seconds after which a task that was cancelled and goes on is cancelled again."""

STOP_TIMEOUT = 5.0
"""Seconds after which a task that was cancelled is left to itself."""


async def within(timeout: float, awaitable: Awaitable[T], discard: Callable[[T], object] | None = None) -> T:
    """Wait for a result, for some seconds at most.

    Instead of `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes in the turn of the event
    loop in which the result is there: the task goes on, and whoever has cancelled it once waits for it without an end.

    Args:
        timeout: Seconds.
        awaitable: Cancelled when they are over, or this task is cancelled.
        discard: Called with a result that nobody gets, since this task has been cancelled meanwhile.

    Raises:
        asyncio.TimeoutError: If there is no result in time.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=CLEAN_UP)
    except asyncio.CancelledError:
        task.add_done_callback(functools.partial(_discard, discard))
        task.cancel()
        await asyncio.wait({task}, timeout=CLEAN_UP)
        raise
    if not done and (not task.done() or task.cancelled()):
        raise asyncio.TimeoutError
    return task.result()


def _discard(discard: Callable[[T], object] | None, task: asyncio.Future[T]) -> None:
    # Asking for the exception is what keeps asyncio from reporting that nobody has.
    if not task.cancelled() and task.exception() is None and discard is not None:
        discard(task.result())


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], timeout: float = STOP_TIMEOUT) -> None:
    """Cancel tasks, and wait until they are done.

    They are cancelled again and again, for what a task awaits may have swallowed a cancellation.

    Args:
        tasks: Not this one.
        timeout: Seconds after which an error is logged about those that are not done.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    all_tasks = tuple(tasks)
    running = {task for task in all_tasks if not task.done()}
    while running and (left := deadline - loop.time()) > 0:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=min(AGAIN, left))
    for task in all_tasks:
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio reports that nobody has asked for it
    for task in running:
        logger.error("a task has not ended within %g s of being cancelled: %r", timeout, task, repeats="")
