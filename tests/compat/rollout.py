"""Print what an environment answers, as one JSON line per call: rollout.py ID [PORT of a server on this machine].

Runs in whatever versions its interpreter has, so it uses only what all of them know.
"""

import json
import math
import sys
from typing import Any

import gymnasium as gym
import numpy as np

import remote_gym

STEPS = 200


def exact(value: Any) -> list[str]:
    """A value's kind and bits, alike under every version of NumPy."""
    if isinstance(value, (np.ndarray, np.generic)):
        return [type(value).__name__, str(value.dtype), str(value.shape), value.tobytes().hex()]
    if isinstance(value, dict):
        return [f"{key}={exact(value[key])}" for key in value]
    return [type(value).__name__, value.hex() if isinstance(value, float) else repr(value)]


def action(space: gym.Space, step: int) -> Any:
    """Some action, the same for a step wherever it is asked for."""
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start) + (step * 7 // 3) % int(space.n)
    return np.full(space.shape, math.sin(step), space.dtype)


def main(environment_id: str, port: str = "") -> None:
    if port:
        remote_args = {"entrypoint_kwargs": {"id": environment_id}}
        environment = remote_gym.RemoteEnvironment("localhost", int(port), remote_args=remote_args)
    else:
        environment = gym.make(environment_id)
    observation, info = environment.reset(seed=7)
    print(json.dumps([exact(observation), exact(info)]))
    for step in range(STEPS):
        observation, reward, terminated, truncated, info = environment.step(action(environment.action_space, step))
        print(json.dumps([exact(part) for part in (observation, reward, terminated, truncated, info)]))
        if terminated or truncated:
            observation, info = environment.reset()
            print(json.dumps([exact(observation), exact(info)]))
    environment.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
