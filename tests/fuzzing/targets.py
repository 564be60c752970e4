"""The fuzz targets by name, and what each input may cost."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

from fuzzing import decoders, ends

TARGETS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): target
    for module in (decoders, ends)
    for name, target in vars(module).items()
    if name.startswith("fuzz_")
}

SECONDS = 1.0
"""Of the processor's time that one input may take."""
BYTES = 100 * 2**20
"""By which the most memory that this process ever used may grow for one input."""

_UNIT = 1 if sys.platform == "darwin" else 1024  # of what the system tells


class CostError(AssertionError):
    """An input took too much time, or too much memory."""


def run(name: str, data: bytes) -> None:
    """Feed one input to a target.

    Raises:
        CostError: If it took more than it may.
        Exception: Whatever the target did not document.
    """
    memory, begun = _most_memory(), time.process_time()
    TARGETS[name](data)
    took, grown = time.process_time() - begun, _most_memory() - memory
    if took > SECONDS or grown > BYTES:
        raise CostError(f"{name}: {len(data)} bytes took {took:.2f} s and {grown / 2**20:.0f} MiB: {data[:200]!r}")


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
