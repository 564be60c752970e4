"""A small environment for fuzzing: it does what any action says, and never raises of itself."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

EXPOSED = ("level", "add")


class Meek(gym.Env[Any, Any]):
    """Counts, and shows what it got."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Dict({"place": spaces.Box(-1, 1, (2,)), "count": spaces.Discrete(2**31)})
        self.action_space = spaces.Dict({"push": spaces.Box(-1, 1, (2,)), "word": spaces.Text(4)})
        self.level = 3
        self._count = 0

    def _observation(self) -> Any:
        return {"count": np.int64(self._count), "place": np.zeros(2, np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._count = 0
        return self._observation(), {"options": options}

    def step(self, action: Any) -> Any:
        self._count += 1
        return self._observation(), 1.0, False, self._count > 20, {"action": action}

    def render(self) -> Any:
        return np.zeros((2, 2, 3), np.uint8)

    def add(self, a: Any, *, b: Any = 0) -> Any:
        return [a, b]


def create_environment(render_mode: str | None = None, level: Any = None) -> gym.Env[Any, Any]:
    return Meek(render_mode)
