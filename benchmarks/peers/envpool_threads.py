"""EnvPool: environments written again in C++, in threads of the trainer's own process. What it has not, it has not."""

from __future__ import annotations

import contextlib
from typing import Any

import envpool
import numpy as np

from case import Case, Figures, NotHere
from measuring import Stopwatch, measure_steps
from peer import main
from serving import Servers

TASKS = {"cartpole": "CartPole-v1", "halfcheetah": "HalfCheetah-v4", "pong": "Pong-v5"}


def measure(case: Case, servers: Servers) -> Figures:
    """Measure a vector, of one where a single environment is asked for."""
    if case.workload not in TASKS:
        raise NotHere("EnvPool has its own environments only")
    count = max(case.num_envs, 1)
    rng = np.random.default_rng(1)
    with Stopwatch() as opening:
        environment: Any = envpool.make(TASKS[case.workload], env_type="gymnasium", num_envs=count, seed=1)
        environment.reset()
    with contextlib.closing(environment):
        space = environment.action_space
        actions: list[Any]
        if hasattr(space, "n"):
            actions = [rng.integers(0, space.n, count).astype(np.int32) for _ in range(16)]
        else:
            actions = [rng.uniform(space.low, space.high, (count, *space.shape)) for _ in range(16)]

        def step(number: int) -> bool:
            environment.step(actions[number % len(actions)])
            return False

        return {"open_ms": opening.milliseconds, **measure_steps(case, step, per_call=count)}


if __name__ == "__main__":
    main(measure)
