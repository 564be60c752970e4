"""Train PPO on many remote CartPoles at once: stable-baselines3's `VecEnv`, made of a `RemoteVectorEnv`.

Needs stable-baselines3 (``pip install stable-baselines3``). Run it by itself:

    python exploration/train_vector_with_stable_baselines3.py --num-envs 16 --workers 2 --timesteps 20000
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from remote_gym import RemoteVectorEnv, create_remote_environment_server


class RemoteVecEnv(VecEnv):  # type: ignore[misc] # stable-baselines3 has no types for mypy here
    """What stable-baselines3 trains on, made of a remote vector environment.

    stable-baselines3 resets an environment in the step that ends its episode, and wants the last observation in the
    info; so does Gymnasium's autoreset mode ``"SameStep"``, under other names.

    Args:
        environment: Of autoreset mode ``"SameStep"``. Its observations are arrays, not dicts.
    """

    def __init__(self, environment: RemoteVectorEnv) -> None:
        self.environment = environment
        self.render_mode = environment.render_mode
        super().__init__(environment.num_envs, environment.single_observation_space, environment.single_action_space)

    def reset(self) -> Any:
        """Reset all, with the seeds and options that were set before."""
        given = any(seed is not None for seed in self._seeds)
        observations, infos = self.environment.reset(seed=self._seeds if given else None)
        self.reset_infos = split_infos(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Any) -> None:
        """Begin a step."""
        self.environment.step_async(actions)

    def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
        """End it."""
        observations, rewards, terminations, truncations, infos = self.environment.step_wait()
        found = split_infos(infos, self.num_envs)
        for info, is_truncated, is_terminated in zip(found, truncations, terminations, strict=True):
            if is_truncated or is_terminated:
                info["terminal_observation"] = info.pop("final_obs")
                info["TimeLimit.truncated"] = bool(is_truncated and not is_terminated)
        return observations, rewards.astype(np.float32), terminations | truncations, found

    def close(self) -> None:
        """Close the remote environments."""
        self.environment.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Read what the entrypoint exposes."""
        if attr_name == "render_mode":
            return [self.render_mode] * self.num_envs
        values = self.environment.get_attr(attr_name)
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set what the entrypoint exposes."""
        values = list(self.environment.get_attr(attr_name))
        for index in self._get_indices(indices):
            values[index] = value
        self.environment.set_attr(attr_name, values)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call what the entrypoint exposes, of all environments."""
        values = self.environment.call(method_name, *args, **kwargs)
        return [values[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Wrappers are the server's affair."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[Any]:
        """A frame of each environment."""
        return self.environment.render() or [None] * self.num_envs


def split_infos(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """The info of each environment, of those of all."""
    found: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, column in infos.items():
        mask = infos.get(f"_{key}")
        if mask is None:
            continue  # a mask itself
        rows: Iterable[Any] = split_infos(column, num_envs) if isinstance(column, dict) else column
        for info, has_it, value in zip(found, mask, rows, strict=True):
            if has_it:
                info[key] = value
    return found


def train(num_envs: int, workers: int, timesteps: int, seed: int) -> list[float]:
    """The return of each episode of a training on remote environments."""
    server = create_remote_environment_server("CartPole-v1", port=0)
    try:
        environment = RemoteVectorEnv(
            "localhost", server.port, num_envs=num_envs, workers=workers, autoreset_mode="SameStep"
        )
        returns: list[float] = []

        def keep_returns(state: dict[str, Any], _: dict[str, Any]) -> bool:
            returns.extend(info["episode"]["r"] for info in state["infos"] if "episode" in info)
            return True

        model = PPO("MlpPolicy", VecMonitor(RemoteVecEnv(environment)), seed=seed, n_steps=128, device="cpu")
        model.learn(timesteps, callback=keep_returns)
        model.get_env().close()
        return returns
    finally:
        server.stop().wait(30)


@click.command()
@click.option("--num-envs", default=16, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--timesteps", default=20_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(num_envs: int, workers: int, timesteps: int, seed: int) -> None:
    """Train, and tell what came of it."""
    before = time.perf_counter()
    returns = train(num_envs, workers, timesteps, seed)
    speed = timesteps / (time.perf_counter() - before)
    for name, part in (("first", returns[:20]), ("last", returns[-20:])):
        print(f"mean return of the {name} {len(part)} episodes: {np.mean(part):.1f}")
    print(f"{len(returns)} episodes, {speed:.0f} steps/s, training included")


if __name__ == "__main__":
    main()
