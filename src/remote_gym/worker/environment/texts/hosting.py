"""Tells text environments from others, without loading what they need."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym


def hosted(returned: Any) -> Any:
    """Make what an entrypoint's function returned something that the host can take, if it is an environment.

    Args:
        returned: A text environment, any other object, or an awaitable of either, as ``async def`` returns.
    """
    if inspect.isawaitable(returned):
        from remote_gym.worker.environment.texts.events import EventLoop

        events = EventLoop.acquire()
        try:
            return hosted(events.call(lambda: returned))
        finally:  # which a text environment has acquired once more
            events.release()
    if not is_text_environment(returned):
        return returned
    # Here, since asyncio is for these alone.
    from remote_gym.worker.environment.texts.environment import TextEnvironment

    return TextEnvironment(returned)


def is_text_environment(returned: Any) -> bool:
    """Whether an object has the methods of a text environment, and is no environment of Gymnasium's or of Gym's."""
    if isinstance(returned, (gym.Env, gym.vector.VectorEnv, type)):
        return False
    if not all(callable(getattr(returned, name, None)) for name in ("reset", "step")):
        return False
    if inspect.iscoroutinefunction(returned.step) or inspect.iscoroutinefunction(returned.reset):
        return True
    return callable(getattr(returned, "system_prompt", None)) and not hasattr(returned, "observation_space")
