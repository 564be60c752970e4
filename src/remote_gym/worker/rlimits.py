"""Limits that the system keeps for a worker: of processor time, files, processes, memory."""

from __future__ import annotations

from collections.abc import Mapping

from remote_gym.errors import ConfigError


def limit_resources(limits: Mapping[str, int]) -> None:
    """Limit this process, and what it will start.

    Args:
        limits: By the name of each in the module `resource`, in lower case and without ``RLIMIT_``.

    Raises:
        ConfigError: If the system does not set one.
    """
    if not limits:
        return
    import resource  # here, since Windows has none

    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        most = resource.getrlimit(kind)[1]
        # At the hard limit of processor time the system kills; below it, it first says why, by SIGXCPU.
        hard = value + 1 if name == "cpu" else value
        try:
            resource.setrlimit(kind, (value, hard if most == resource.RLIM_INFINITY else min(hard, most)))
        except (OSError, ValueError) as error:
            raise ConfigError(f"ServerOptions.rlimits[{name!r}] is {value}; the system refuses: {error}") from error
