"""A Ray actor that holds the environment, and `ray.get` for each step; without TLS, on one machine."""

from __future__ import annotations

import logging
from typing import Any

import ray

from case import Case, Figures, NotHere
from measuring import Stopwatch, measure_environment, measure_steps, sampled_actions
from peer import main
from serving import Servers
from workloads import create, renders


class Hosted:
    """What an actor does."""

    def __init__(self, workload: str) -> None:
        self._environment = create(workload)

    def reset(self) -> Any:
        """As the environment's."""
        return self._environment.reset()

    def step(self, action: Any) -> Any:
        """As the environment's."""
        return self._environment.step(action)


class Client:
    """The environment, seen through an actor."""

    def __init__(self, workload: str) -> None:
        self.actor = ray.remote(num_cpus=0)(Hosted).remote(workload)

    def reset(self) -> Any:
        """As the environment's."""
        return ray.get(self.actor.reset.remote())

    def step(self, action: Any) -> Any:
        """As the environment's."""
        return ray.get(self.actor.step.remote(action))


def measure(case: Case, servers: Servers) -> Figures:
    """Measure one actor, or as many as there are environments, all asked before any answer is awaited."""
    if case.rtt_ms is not None:
        raise NotHere("Ray opens connections of its own choice, which no proxy of ours sees")
    if renders(case.workload):
        raise NotHere("frames would be one more call; not measured")
    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    actions = sampled_actions(create(case.workload))
    if case.num_envs:
        return measure_vector(case, actions)
    with Stopwatch() as opening:
        client = Client(case.workload)
        client.reset()
    figures = measure_environment(case, client, actions)
    ray.kill(client.actor)
    return {"open_ms": opening.milliseconds, **figures}


def measure_vector(case: Case, actions: list[Any]) -> Figures:
    """Step many actors together."""
    with Stopwatch() as opening:
        clients = [Client(case.workload) for _ in range(case.num_envs)]
        ray.get([client.actor.reset.remote() for client in clients])

    def step(number: int) -> bool:
        action = actions[number % len(actions)]
        answers = ray.get([client.actor.step.remote(action) for client in clients])
        over = [client for client, answer in zip(clients, answers) if answer[2] or answer[3]]  # noqa: B905
        ray.get([client.actor.reset.remote() for client in over])
        return False

    figures = measure_steps(case, step, per_call=case.num_envs)
    for client in clients:
        ray.kill(client.actor)
    return {"open_ms": opening.milliseconds, **figures}


if __name__ == "__main__":
    try:
        main(measure)
    finally:
        ray.shutdown()
