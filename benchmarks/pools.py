"""How fast a remote EnvPool is beside the same pool in this process: `python benchmarks/pools.py Pong-v5 CartPole-v1`.

Needs envpool, and matplotlib, which it imports. Rounds of the two alternate, so that both meet the same machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from remote_gym.testing import loopback_server

NUM_ENVS = 128
ROUNDS = 5
SECONDS = 0.7  # of a round of the local pool, about
ENTRYPOINT = """
import envpool

def create_environment():
    raise NotImplementedError

def create_vector_environment(num_envs, task):
    return envpool.make_gymnasium(task, num_envs=num_envs)
"""


def steps_per_second(environments: Any, steps: int) -> float:
    """Of all environments together."""
    begun = time.perf_counter()
    for number in range(steps):
        environments.step(np.full(NUM_ENVS, number % 2))
    return NUM_ENVS * steps / (time.perf_counter() - begun)


def compare(task: str) -> str:
    """One line of a table: what each does, and the ratio of the rounds."""
    import envpool

    local = envpool.make_gymnasium(task, num_envs=NUM_ENVS)
    arguments = {"entrypoint": "entrypoint.py", "entrypoint_kwargs": {"task": task}}
    with loopback_server(arguments) as server:
        remote = server.vector_environment(NUM_ENVS, workers=1)
        for environments in (local, remote):
            environments.reset()
        steps = max(3, round(steps_per_second(local, 5) * SECONDS / NUM_ENVS))
        steps_per_second(remote, 5)
        rounds = [(steps_per_second(local, steps), steps_per_second(remote, steps)) for _ in range(ROUNDS)]
    ratios = [there / here for here, there in rounds]
    here, there = (statistics.median(column) for column in zip(*rounds, strict=True))
    return (
        f"{task}: {here:,.0f} steps/s in this process, {there:,.0f} remotely: {statistics.median(ratios):.2f} of it "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds of {steps} steps; load {os.getloadavg()[0]:.1f})"
    )


def main() -> None:
    """Compare each task that is named."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "entrypoint.py").write_text(ENTRYPOINT, encoding="utf-8")
        os.chdir(folder)
        for task in sys.argv[1:] or ["Pong-v5", "CartPole-v1"]:
            print(compare(task), flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
