"""An entrypoint for tests that steps its environments by itself, as a simulator on a GPU would."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

EXPOSED = ("totals", "speed")


class Counting(gym.vector.VectorEnv):  # type: ignore[type-arg]
    """Adds each action to its environment's total, whose bounds differ; ends none."""

    def __init__(self, num_envs: int, autoreset_mode: Any, env_id: int, returned: int) -> None:
        self.num_envs = returned or num_envs
        self.single_observation_space = spaces.Box(0, 9, (2,), np.int64)
        self.single_action_space = spaces.Discrete(3)
        high = np.arange(env_id + 1, env_id + 1 + self.num_envs)[:, None] * np.ones((1, 2), np.int64)
        self.observation_space = spaces.Box(np.zeros_like(high), high, dtype=np.int64)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {"autoreset_mode": autoreset_mode} if autoreset_mode else {}
        self.speed = 5
        self._env_id = env_id
        self._totals = np.zeros(self.num_envs, np.int64)

    def _observation(self) -> Any:
        return np.stack([self._totals, self._totals], axis=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._totals[:] = 0
        return self._observation(), {"seed": seed, "first": np.full(self.num_envs, self._env_id)}

    def step(self, actions: Any) -> Any:
        self._totals += actions
        no = np.zeros(self.num_envs, np.bool_)
        return self._observation(), actions.astype(np.float32), no, no, {"odd": actions % 2}

    def totals(self) -> Any:
        return self._totals.copy()


def create_vector_environment(num_envs: int, autoreset_mode: Any, env_id: int, returned: int = 0) -> Any:
    """All of them in one."""
    return Counting(num_envs, autoreset_mode, env_id, returned)
