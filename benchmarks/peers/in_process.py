"""The environment itself, without anything between: what every remote one is slower than.

Options: ``vector``: ``"sync"`` or ``"async"``, Gymnasium's own, for a vector of ``num_envs``.
"""

from __future__ import annotations

import contextlib
import functools

import gymnasium as gym

from case import Case, Figures
from measuring import Stopwatch, measure_environment, measure_steps, sampled_actions
from peer import main
from serving import Servers
from workloads import create, renders


def measure(case: Case, servers: Servers) -> Figures:
    """Measure a single environment or a vector."""
    if case.num_envs:
        return measure_vector(case)
    with Stopwatch() as opening:
        environment = create(case.workload)
        environment.reset(seed=1)
    with contextlib.closing(environment):
        after = (lambda _: environment.render()) if renders(case.workload) else (lambda _: None)
        figures = measure_environment(case, environment, sampled_actions(environment), after=after)
    return {"open_ms": opening.milliseconds, **figures}


def measure_vector(case: Case) -> Figures:
    """Step a vector of Gymnasium's, all of it at once."""
    kinds = {"sync": gym.vector.SyncVectorEnv, "async": gym.vector.AsyncVectorEnv}
    with Stopwatch() as opening:
        environment = kinds[case.options["vector"]]([functools.partial(create, case.workload)] * case.num_envs)
        environment.reset(seed=1)
    with contextlib.closing(environment):
        actions = sampled_actions(environment, 16)

        def step(number: int) -> bool:
            environment.step(actions[number % len(actions)])
            return False

        return {"open_ms": opening.milliseconds, **measure_steps(case, step, per_call=case.num_envs)}


if __name__ == "__main__":
    main(measure)
