"""An entrypoint that serves whichever environment is asked for, such as ``{"env": "Acrobot-v1"}``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def create_environment(env: str, render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a registered environment.

    Args:
        env: Its Gymnasium id.
        render_mode: As the client asked for.
        kwargs: Whatever else its constructor takes.
    """
    return gym.make(env, render_mode=render_mode, **kwargs)
