"""The machine that results were taken on, as far as it bears on them; nothing that names it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, cores, memory and system; empty texts where the system does not tell."""
    return {
        "processor": _from_file("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "virtual": "hypervisor" in _from_file("/proc/cpuinfo", "flags"),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def load() -> float:
    """Processes that wanted a core in the last minute, on average; what else ran spoils timings."""
    return os.getloadavg()[0]


def sentence(machine: dict[str, Any]) -> str:
    """The same, to be read."""
    virtual = ", a virtual machine" if machine["virtual"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory{virtual}; "
        f"{machine['system']}, Python {machine['python']}"
    )


def _from_file(path: str, key: str) -> str:
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
