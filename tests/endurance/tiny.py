"""The smallest environment there is, for many sessions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Tiny(gym.Env[Any, Any]):
    """Counts to 200."""

    observation_space = spaces.Box(0, 1000, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._count = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        self._count += 1
        return np.full(4, self._count, np.float32), 1.0, False, self._count >= 200, {}


def create_environment() -> gym.Env[Any, Any]:
    return Tiny()
