"""The event loop of a worker whose environment is asynchronous. It runs while the worker waits for requests, too."""

from __future__ import annotations

import asyncio
import inspect
import os
import select
from collections.abc import Callable, Coroutine
from typing import Any

from remote_gym.logs import get_logger
from remote_gym.worker.environment.forked_children import forked
from remote_gym.worker.environment.texts.waiting import Poll, this_thread

logger = get_logger(__name__)

GRACE = 5.0
"""Seconds that tasks have to end once they are cancelled."""


class EventLoop:
    """An event loop of asyncio for all environments of one thread. It is closed when nobody uses it any more."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._users = 0
        self._process = os.getpid()

    @staticmethod
    def acquire() -> EventLoop:
        """Use this thread's, until `release`."""
        events: EventLoop | None = this_thread.events
        if events is None:
            events = this_thread.events = EventLoop()
        events._users += 1
        return events

    def release(self) -> None:
        """Use it no more. The last user's tasks are cancelled, and have `GRACE` seconds to end.

        Threads of ``asyncio.to_thread`` that are still at work are not waited for: nobody could end them.
        """
        self._users -= 1
        if self._users or not self.is_own:
            return
        this_thread.events = None
        try:
            if tasks := asyncio.all_tasks(self._loop):
                self._loop.run_until_complete(_cancel(tasks))
            self._loop.run_until_complete(_within(self._loop.shutdown_asyncgens(), GRACE, "closing generators"))
        except TimeoutError as error:
            logger.warning("%s", error)
        finally:
            self._loop.close()

    def new_poll(self) -> Poll:
        """A poll whose waiting lets this loop run."""
        return _LoopPoll(self)

    @property
    def is_own(self) -> bool:
        """Whether this process has made it. A forked child shares the descriptors of its parent's, which still runs."""
        return self._process == os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, and all other tasks meanwhile. Raises as it does."""
        return self._loop.run_until_complete(coroutine)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, asynchronous or not, with the event loop running, and return what it returns in the end."""
        return self.run(_call(function, args, kwargs))

    def call_within(self, seconds: float, function: Callable[[], Any], what: str) -> Any:
        """As `call`, for a limited time.

        Raises:
            TimeoutError: If it has not ended after so many seconds, saying of `what`. It is cancelled then.
        """
        return self.run(_within(_call(function, (), {}), seconds, what))


class _LoopPoll:
    """As `select.poll`.

    The loop watches the descriptors only while it waits for them: a request that has come is not read within a step,
    and would keep the loop busy meanwhile.
    """

    def __init__(self, events: EventLoop) -> None:
        self._events = events
        self._poll = select.poll()
        self._masks: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = select.POLLIN | select.POLLOUT, /) -> None:
        """Watch a descriptor from now on, for these events."""
        self._poll.register(fd, eventmask)
        self._masks[_number(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Watch it no more."""
        self._poll.unregister(fd)
        del self._masks[_number(fd)]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait for events, for so many milliseconds at most."""
        ready = self._poll.poll(0)
        if ready or timeout == 0:
            return ready
        try:
            self._events.run(self._wait(timeout))
        finally:
            if forked.thread:  # a task has forked, and this is the child
                forked.leave()
        return self._poll.poll(0)

    async def _wait(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        for descriptor, mask in self._masks.items():
            if mask & select.POLLIN:
                loop.add_reader(descriptor, woken.set)
            if mask & select.POLLOUT:
                loop.add_writer(descriptor, woken.set)
        timer = None if timeout is None else loop.call_later(timeout / 1000, woken.set)
        try:
            await woken.wait()
        finally:
            if timer is not None:
                timer.cancel()
            if self._events.is_own:
                for descriptor in self._masks:
                    loop.remove_reader(descriptor)
                    loop.remove_writer(descriptor)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


async def _call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    returned = function(*args, **kwargs)
    return await returned if inspect.isawaitable(returned) else returned


async def _within(coroutine: Coroutine[Any, Any, Any], seconds: float, what: str) -> Any:
    # Not asyncio.wait_for, which waits for what it has cancelled, however long that takes.
    task = asyncio.ensure_future(coroutine)
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task}, timeout=GRACE)
    raise TimeoutError(f"{what} has not ended after {seconds:g} s")


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    done, left = await asyncio.wait(tasks, timeout=GRACE)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a task of the environment ended by %r", error)
    if left:
        logger.warning("%d tasks of the environment did not end within %g s, though cancelled", len(left), GRACE)
