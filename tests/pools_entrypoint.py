"""An entrypoint for tests: vector environments whose spaces are those of one environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Unbatched:
    """As SuperSuit's: no VectorEnv's spaces, and infos in a list. It derives from nothing of Gymnasium's."""

    observation_space = spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = spaces.Discrete(3)
    render_mode = None

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observations = np.full((self.num_envs, 2), seed or 0, np.float32)
        return observations, [{"options": options}] * self.num_envs

    def step(self, actions: Any) -> Any:
        observations = np.stack([actions, actions], 1).astype(np.float32)
        flags = np.zeros(self.num_envs, np.uint8), np.zeros(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        infos[-1] = {"last": 1}
        return observations, np.ones(self.num_envs, np.float32), *flags, infos

    def close(self) -> None:
        """Nothing is open."""


class StableBaselines(Unbatched):
    def env_method(self, name: str) -> Any:
        raise NotImplementedError(name)


def envpool(task: str, num_envs: int, **options: Any) -> Any:
    import envpool

    return envpool.make(task, num_envs=num_envs, **{"env_type": "gymnasium", **options})


def supersuit(num_envs: int) -> Any:
    import supersuit
    from pettingzoo.classic import rps_v2

    return supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(rps_v2.parallel_env()), num_envs // 2)


def create_environment() -> gym.Env[Any, Any]:
    raise NotImplementedError


def create_vector_environment(num_envs: int, kind: str = "unbatched", **options: Any) -> Any:
    if kind == "envpool":
        return envpool(num_envs=num_envs, **options)
    return {
        "unbatched": Unbatched,
        "stable-baselines": StableBaselines,
        "supersuit": supersuit,
        "nothing": lambda _: object(),
    }[kind](num_envs)
