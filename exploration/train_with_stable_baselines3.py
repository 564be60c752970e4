"""Train PPO on a remote CartPole, and again on a local one with the same seed: the returns are the same.

Needs stable-baselines3 (``pip install stable-baselines3``). Run it by itself:

    python exploration/train_with_stable_baselines3.py --timesteps 5000
"""

from __future__ import annotations

from typing import Any

import click
import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor

from remote_gym import RemoteEnvironment, create_remote_environment_server


def train(environment: gym.Env[Any, Any], timesteps: int, seed: int) -> list[float]:
    """Train PPO and return the return of each episode."""
    monitor = Monitor(environment)
    PPO("MlpPolicy", monitor, seed=seed, n_steps=512, device="cpu").learn(timesteps)
    return list(monitor.get_episode_rewards())


def compare(timesteps: int, seed: int) -> tuple[list[float], list[float]]:
    """The returns of training on the remote environment, and on the local one."""
    server = create_remote_environment_server("CartPole-v1", port=0)
    try:
        environment = RemoteEnvironment("localhost", server.port)
        check_env(environment)
        remote = train(environment, timesteps, seed)
        environment.close()
    finally:
        server.stop().wait(30)
    return remote, train(gym.make("CartPole-v1"), timesteps, seed)


@click.command()
@click.option("--timesteps", default=5_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(timesteps: int, seed: int) -> None:
    """Train on both, and compare."""
    remote, local = compare(timesteps, seed)
    for name, returns in (("remote", remote), ("local", local)):
        print(f"{name:>6}: {len(returns)} episodes, mean of the last ten {sum(returns[-10:]) / 10:.1f}")
    print("the returns are the same" if remote == local else "THE RETURNS DIFFER")


if __name__ == "__main__":
    main()
