"""An entrypoint that serves whichever environment is asked for, such as ``{"env": "Acrobot-v1"}``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def create_environment(env: str, render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a registered environment.

    Args:
        env: Its Gymnasium id. One of the form ``module:Env`` is refused, since clients choose it: import the
            module at the top of this file instead.
        render_mode: As the client asked for.
        kwargs: Whatever else its constructor takes.
    """
    if ":" in env:
        raise ValueError(f"env {env!r} would import a module; use an id that is registered already")
    return gym.make(env, render_mode=render_mode, **kwargs)
