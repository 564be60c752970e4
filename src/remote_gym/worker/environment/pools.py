"""Vector environments whose spaces are those of one environment, as EnvPool's and SuperSuit's are.

Gymnasium's own have batched spaces, and merge infos into a dict. Nothing of these libraries is imported here.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger
from remote_gym.wire.infos import Infos, add_info
from remote_gym.wire.values.unencodable import type_name

logger = get_logger(__name__)


class Pool(VectorEnv):
    """A vector environment with batched spaces and merged infos, around one that has neither.

    Args:
        pool: Steps `num_envs` environments; its `observation_space` and `action_space` are one environment's.
        num_envs: How many.
        mode: When it resets those that have ended, in Gymnasium's words; None if nobody knows.
        seeds: Whether it takes seeds and options for a reset, as all but EnvPool's do.

    Attributes:
        numbers_environments: Whether its infos number environments in ``env_id``, as EnvPool's do.
    """

    def __init__(self, pool: Any, num_envs: int, *, mode: Any, seeds: bool) -> None:
        self._pool = pool
        self._seeds = seeds
        self.numbers_environments = not seeds
        self.num_envs = num_envs
        self.single_observation_space = pool.observation_space
        self.single_action_space = pool.action_space
        self.observation_space = batch_space(pool.observation_space, num_envs)
        self.action_space = batch_space(pool.action_space, num_envs)
        self.metadata = {**(getattr(pool, "metadata", None) or {}), "autoreset_mode": mode}
        self.render_mode = getattr(pool, "render_mode", None)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """Reset all.

        Raises:
            ConfigError: If only some were to be, which these begin again by themselves.
        """
        if options is not None and "reset_mask" in options:
            raise ConfigError("a reset_mask of some of a pool's environments is not possible; reset all of a worker's")
        if self._seeds:
            observations, infos = self._pool.reset(seed=seed, options=options)
        else:
            if seed is not None:
                logger.info("EnvPool's seeds are those of its creation, so that of a reset does nothing")
            observations, infos = self._pool.reset()
        return observations, self._merged(infos)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Step every environment once."""
        observations, rewards, terminations, truncations, infos = self._pool.step(actions)
        return observations, rewards, terminations, truncations, self._merged(infos)

    def render(self) -> Any:
        """Render the pool."""
        return self._pool.render()

    def close(self, **_options: Any) -> None:
        """Close the pool."""
        self._pool.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._pool, name)

    def _merged(self, infos: Any) -> Any:
        if not isinstance(infos, list):
            return infos
        merged: Infos = {}
        for index, info in enumerate(infos):
            merged = add_info(merged, info, index, self.num_envs)
        return merged


def with_batched_spaces(environment: Any, where: str) -> Any:
    """The vector environment as Gymnasium has them, if it is EnvPool's, SuperSuit's, or another with unbatched spaces.

    Args:
        environment: What an entrypoint's ``create_vector_environment`` returned.
        where: Said first in errors.

    Raises:
        ConfigError: If it cannot be served as it is, saying what to do.
    """
    if _is_envpool(environment):
        return _of_envpool(environment, where)
    if isinstance(environment, VectorEnv) and _has_single_spaces(environment):
        return environment
    if _is_unbatched(environment):
        mode = (getattr(environment, "metadata", None) or {}).get("autoreset_mode")
        if mode is None and _is_of(environment, "supersuit"):
            mode = "SameStep"
        return Pool(environment, int(environment.num_envs), mode=mode, seeds=True)
    if _is_of(environment, "stable_baselines3") or _is_of(environment, "supersuit"):
        raise ConfigError(
            f"{where} returned a {type_name(environment)}, of stable-baselines3's interface; return what it is made "
            "of, such as concat_vec_envs_v1(..., base_class='gymnasium') or gymnasium.make_vec(...), and wrap that at "
            "the client"
        )
    return environment


def _has_single_spaces(environment: VectorEnv) -> bool:
    single = getattr(environment, "single_observation_space", None)
    return single is not None and getattr(environment, "single_action_space", None) is not None


def _is_unbatched(environment: Any) -> bool:
    spaces = [getattr(environment, name, None) for name in ("observation_space", "action_space")]
    can = all(callable(getattr(environment, name, None)) for name in ("reset", "step", "close"))
    is_stable_baselines = callable(getattr(environment, "env_method", None))
    return (
        can
        and not is_stable_baselines
        and all(isinstance(space, gym.Space) for space in spaces)
        and isinstance(getattr(environment, "num_envs", None), int)
    )


def _is_of(environment: Any, library: str) -> bool:
    return any(cls.__module__.partition(".")[0] == library for cls in type(environment).__mro__)


def _is_envpool(environment: Any) -> bool:
    # Its classes are made at run time and are of no module of its own, but for what they derive from.
    return _is_of(environment, "envpool") and hasattr(environment, "config")


def _of_envpool(pool: Any, where: str) -> Pool:
    if not isinstance(pool, gym.Env | VectorEnv):
        raise ConfigError(
            f"{where} returned a pool of EnvPool's that is not Gymnasium's; use envpool.make_gymnasium(...)"
        )
    config: dict[str, Any] = getattr(pool, "config")  # noqa: B009 - which no type of Gymnasium's has
    num_envs, size = int(config["num_envs"]), int(config["batch_size"])
    if size != num_envs:
        raise ConfigError(
            f"{where} returned an EnvPool of {num_envs} environments that returns {size} at a time; leave batch_size "
            "out. For environments of uneven speed have more workers, and use send and recv of RemoteVectorEnv"
        )
    if config.get("max_num_players", 1) > 1:
        raise ConfigError(
            f"{where} returned an EnvPool of several players, which is no vector of single-agent environments"
        )
    return Pool(pool, num_envs, mode=(pool.metadata or {}).get("autoreset_mode", "NextStep"), seeds=False)
