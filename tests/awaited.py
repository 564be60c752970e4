"""Event loops for tests, and asynchronous environments for those who block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import gymnasium as gym
import pytest

from remote_gym import AsyncRemoteEnvironment
from waiting import scaled

T = TypeVar("T")
LOOPS = ("asyncio", "uvloop")


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A new event loop of that kind; skips the test where it is not installed."""
    if kind == "uvloop":
        return pytest.importorskip("uvloop", reason="uvloop is not installed, and so not tested").new_event_loop()
    return asyncio.new_event_loop()


def run(coroutine: Coroutine[Any, Any, T], kind: str = "asyncio", seconds: float = 60.0) -> T:
    """What `asyncio.run` does, on a loop of that kind, and with an end."""
    try:
        loop = new_loop(kind)
    except BaseException:
        coroutine.close()
        raise
    try:
        return loop.run_until_complete(asyncio.wait_for(coroutine, scaled(seconds)))
    finally:
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(asyncio.sleep(0.01))  # what they have closed ends in one of the next turns
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class Awaited(gym.Env[Any, Any]):
    """An `AsyncRemoteEnvironment` whose methods block: they run in the event loop of a thread.

    Args:
        loop: Kind of the loop.
        **arguments: Of `AsyncRemoteEnvironment`.
    """

    def __init__(self, loop: str = "asyncio", **arguments: Any) -> None:
        self._loop = new_loop(loop)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.awaited = AsyncRemoteEnvironment(**arguments)
        try:
            self._wait(self.awaited.open())
        except BaseException:
            self._end()
            raise
        self.observation_space, self.action_space = self.awaited.observation_space, self.awaited.action_space

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        return self._wait(self.awaited.reset(**arguments))

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        return self._wait(self.awaited.step(action))

    def step_many(self, actions: Any) -> list[tuple[Any, Any, Any, Any, dict[str, Any]]]:
        return self._wait(self.awaited.step_many(actions))

    def render(self) -> Any:
        return self._wait(self.awaited.render())

    def close(self) -> None:
        if not self._loop.is_closed():
            try:
                self._wait(self.awaited.close())
            finally:
                self._end()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.awaited, name)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(scaled(300.0))

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(scaled(20.0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
