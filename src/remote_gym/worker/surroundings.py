"""Limits, variables and processors of a worker's process: set before anything of the environment's is imported."""

from __future__ import annotations

import os

from remote_gym.errors import ConfigError
from remote_gym.v1 import worker_pb2
from remote_gym.worker.rlimits import limit_resources


def settle_process(launch: worker_pb2.Launch) -> None:
    """Give this process, and what it will start, its limits, environment variables and processors.

    Raises:
        ConfigError: If the system does not let it.
    """
    limit_resources(launch.rlimits)
    os.environ.update(launch.variables)
    if launch.cpus:
        try:
            os.sched_setaffinity(0, launch.cpus)
        except OSError as error:
            raise ConfigError(f"cannot run on the processors {list(launch.cpus)}: {error.strerror}") from error
