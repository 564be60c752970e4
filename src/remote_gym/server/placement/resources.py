"""Devices, processors and environment variables of an environment, as a server's operator describes them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remote_gym.errors import ConfigError
from remote_gym.validation import check_integer

Gpu = int | str
"""Its number, or its UUID, such as ``"GPU-8f2e..."``."""

RESOURCES = ("gpus", "cpus", "variables")
"""Arguments of `RemoteArgs` that say which."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UUID = re.compile(r"(GPU|MIG)-[A-Za-z0-9/-]+")
_MOST_GPUS = 1024


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Shares of the machine that an environment runs on.

    Attributes:
        gpus: Of which each session has one; empty to say nothing of them.
        cpus: Processors that it may run on, all of its sessions; empty for any.
        variables: Environment variables.
        max_sessions: How many there may be at once; None for as many as the server holds.
    """

    gpus: tuple[Gpu, ...] = ()
    cpus: tuple[int, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    max_sessions: int | None = None


def gpu_variables(gpu: Gpu) -> dict[str, str]:
    """Environment variables by which a process sees one device of a machine, and draws on it.

    AMD's HIP reads CUDA's variable. Numbers are those that ``nvidia-smi`` shows: CUDA's own begin with the fastest.
    MuJoCo, and what renders by PyOpenGL, go by the number among all, whatever CUDA may see.
    """
    variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu)}
    if isinstance(gpu, int):
        variables |= {"MUJOCO_EGL_DEVICE_ID": str(gpu), "EGL_DEVICE_ID": str(gpu)}
    return variables


class Gpus:
    """How many sessions use each device, of each host. Pure."""

    def __init__(self) -> None:
        self._used: Counter[tuple[str | None, Gpu]] = Counter()

    def take(self, host: str | None, gpus: Sequence[Gpu]) -> Gpu:
        """The one of them that the fewest sessions use, whichever environment's; of several the first."""
        chosen = min(gpus, key=lambda gpu: self._used[host, gpu])
        self._used[host, chosen] += 1
        return chosen

    def give_back(self, host: str | None, gpu: Gpu) -> None:
        """A session is gone that had taken it."""
        self._used[host, gpu] -= 1


def read_resources(arguments: Mapping[str, Any], *, field: str, where: str, is_here: bool) -> Resources:
    """Read what `RemoteArgs` say of what an environment has.

    Args:
        arguments: A server's, as `RemoteArgs` has them.
        field: The argument that holds them.
        where: How errors name them.
        is_here: Whether it runs on this machine, whose processors are known.

    Raises:
        ConfigError: If it cannot work.
    """

    def refuse(problem: str) -> ConfigError:
        return ConfigError(problem, field=field, where=where)

    gpus, cpus, variables, most = (arguments.get(name) for name in (*RESOURCES, "max_sessions"))
    found = Resources(
        gpus=() if gpus is None else _list(gpus, _is_gpu),
        cpus=() if cpus is None else _list(cpus, _is_number),
        variables=dict(variables) if isinstance(variables, Mapping) else {},
        max_sessions=most,
    )
    if gpus is not None and not found.gpus:
        raise refuse(f"has gpus {gpus!r}; use a list of numbers, each once, such as [0, 1]")
    if cpus is not None and not found.cpus:
        raise refuse(f"has cpus {cpus!r}; use a list of numbers, each once, such as [0, 1, 2, 3]")
    if variables is not None and not isinstance(variables, Mapping):
        raise refuse(f"has variables {variables!r}; use a dict such as {{'OMP_NUM_THREADS': '1'}}")
    for name, value in found.variables.items():
        _check_variable(name, value, found.gpus, refuse)
    if is_here and found.cpus:
        _check_cpus(found.cpus, refuse)
    if most is not None:
        try:
            check_integer("max_sessions", most, 1, 1_000_000)
        except ConfigError as error:
            raise refuse(f"has max_sessions, which {error.problem}") from None
    _check_spares(arguments, most, refuse)
    return found


def _check_spares(arguments: Mapping[str, Any], most: int | None, refuse: Any) -> None:
    warm, reuse = arguments.get("warm"), arguments.get("reuse")
    if warm is not None:
        try:
            check_integer("warm", warm, 0, 1_000)
        except ConfigError as error:
            raise refuse(f"has warm, which {error.problem}") from None
        if most is not None and warm > most:
            raise refuse(
                f"has warm {warm}, but its max_sessions allows {most} at once; lower the one, or raise the other"
            )
    if reuse not in (None, True, False) or (isinstance(reuse, int) and not isinstance(reuse, bool)):
        raise refuse(f"has reuse {reuse!r}; use True or False")


def _list(value: Any, is_good: Any) -> tuple[Any, ...]:
    """The value as a tuple; empty if it is no list of different things, each of them good."""
    is_list = isinstance(value, (list, tuple)) and all(map(is_good, value))
    return tuple(value) if is_list and len(set(value)) == len(value) else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_gpu(value: Any) -> bool:
    is_uuid = isinstance(value, str) and _UUID.fullmatch(value) is not None
    return is_uuid or (_is_number(value) and value < _MOST_GPUS)


def _check_variable(name: Any, value: Any, gpus: Sequence[Gpu], refuse: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise refuse(f"has variables of the name {name!r}; use letters, digits and '_', such as 'OMP_NUM_THREADS'")
    if not isinstance(value, str) or {"\0", "\n"} & set(value):
        # Not the value itself, which may be a secret.
        raise refuse(f"has a variable {name!r} of type {type(value).__name__}; use a text of one line")
    if gpus and name in gpu_variables(0):
        raise refuse(f"has both gpus and the variable {name!r}, which they set; keep one of the two")


def _check_cpus(cpus: Sequence[int], refuse: Any) -> None:
    if not hasattr(os, "sched_getaffinity"):
        raise refuse(f"has cpus {list(cpus)!r}, but this system lets no process choose its processors; leave them out")
    there = os.sched_getaffinity(0)
    if missing := sorted(set(cpus) - there):
        raise refuse(
            f"has cpus {list(cpus)!r}, of which {missing[0]} is none that this server may use: {sorted(there)}"
        )
