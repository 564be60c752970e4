"""The environments that are measured; also an entrypoint file, for servers that take one.

They run under every version of Gymnasium that a peer may have.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from case import NotHere

IMAGES = {"pixels": (84, 84, 4), "vga": (480, 640, 3)}
"""Observation shapes, uint8."""
WAITS = {"wait1": 0.001, "wait10": 0.010}
"""Seconds of a step."""
STRAGGLER_SECONDS, STRAGGLER_SIGMA = 0.002, 1.0
SHORT_EPISODE = 5


class Synthetic(gym.Env[Any, Any]):
    """Costs nothing but what it is told to: every answer was made beforehand.

    Args:
        shape: Of the observation; a float32 vector, or a uint8 image of three dimensions.
        episode: Steps in an episode.
        seconds: How long a step sleeps.
        sigma: Of the lognormal distribution of these times, whose median is `seconds`; 0 for always the same.
    """

    def __init__(
        self, shape: tuple[int, ...] = (4,), episode: int = 10**9, seconds: float = 0.0, sigma: float = 0.0
    ) -> None:
        rng = np.random.default_rng(0)
        if len(shape) == 3:
            self.observation_space = spaces.Box(0, 255, shape, np.uint8)
            self._observation: Any = rng.integers(0, 256, shape, np.uint8)
        else:
            self.observation_space = spaces.Box(-1, 1, shape, np.float32)
            self._observation = rng.uniform(-1, 1, shape).astype(np.float32)
        self.action_space = spaces.Discrete(2)
        self.render_mode = None
        self._episode, self._seconds, self._sigma, self._count = episode, seconds, sigma, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._count = 0
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Wait, if told to."""
        self._count += 1
        if self._seconds:
            factor = self.np_random.lognormal(0.0, self._sigma) if self._sigma else 1.0
            time.sleep(self._seconds * factor)
        return self._observation, 1.0, self._count >= self._episode, False, {}


def create(workload: str) -> gym.Env[Any, Any]:
    """The environment of a name.

    Raises:
        NotHere: If this version of Gymnasium, or a package, lacks it.
    """
    if workload == "zero":
        return Synthetic()
    if workload in IMAGES:
        return Synthetic(IMAGES[workload])
    if workload in WAITS:
        return Synthetic(seconds=WAITS[workload])
    if workload == "stragglers":
        return Synthetic(seconds=STRAGGLER_SECONDS, sigma=STRAGGLER_SIGMA)
    if workload == "short":
        return Synthetic(episode=SHORT_EPISODE)
    try:
        if workload == "pong":
            import ale_py

            if hasattr(gym, "register_envs"):
                gym.register_envs(ale_py)
            return gym.make("ALE/Pong-v5", render_mode="rgb_array")
        return gym.make({"cartpole": "CartPole-v1", "halfcheetah": "HalfCheetah-v5"}[workload])
    except (ImportError, gym.error.Error) as error:
        raise NotHere(f"gymnasium {gym.__version__} here has no {workload}: {error}".splitlines()[0]) from error


def create_environment(workload: str, render_mode: str | None = None, **ignored: Any) -> gym.Env[Any, Any]:
    """What a remote_gym server calls, of today's version or of an older one."""
    return create(workload)


def renders(workload: str) -> bool:
    """Whether frames are part of the workload."""
    return workload == "pong"
