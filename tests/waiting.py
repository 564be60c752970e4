"""Waiting for what other processes do, with an end that is later the slower the machine is found to be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

QUIET = 0.03
"""Seconds that a child's start and some hand-overs to it and back take on a quiet machine: 0.01 to 0.025."""
SLOWEST = 20.0
"""More than this is not waited for, however slow the machine."""
KEPT = 3
"""How many measurements count, the slowest of which is believed: beside busy processes one in five is lucky."""
INTERVAL = 10.0
"""Seconds after which the machine is measured again, where somebody asks."""

_CHILD = "import os\nwhile True:\n    os.write(1, b'.')\n    if not os.read(0, 1): break"
_HAND_OVERS = 20


def start_and_hand_over() -> float:
    """Seconds from the start of a Python process to the last of some bytes that were passed to it and back."""
    begin = time.perf_counter()
    command = [sys.executable, "-S", "-E", "-c", _CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd="/") as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.read(1)
        for _ in range(_HAND_OVERS):
            child.stdin.write(b".")
            child.stdout.read(1)
        seconds = time.perf_counter() - begin
        child.stdin.close()
    return seconds


def load_per_core() -> float:
    """Processes that want a core, on average over the last minute, for each core that there is."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


class Pace:
    """How fast the machine is, compared with a quiet one.

    Args:
        measure: Seconds of something that takes `QUIET` at most on a quiet machine.
        load: Processes that compete for a core.
        clock: Seconds.
    """

    def __init__(
        self,
        measure: Callable[[], float] = start_and_hand_over,
        load: Callable[[], float] = load_per_core,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure, self._load, self._clock = measure, load, clock
        self._found: deque[float] = deque(maxlen=KEPT)
        self._measured_at = 0.0

    def slowness(self) -> float:
        """How many times longer things take here now than on a quiet machine: from 1 to `SLOWEST`, in halves."""
        if not self._found or self._clock() - self._measured_at >= INTERVAL:
            for _ in range(1 if self._found else KEPT):
                self._found.append(self._measure() / QUIET)
            self._measured_at = self._clock()
        found = max(*self._found, self._load())
        return min(SLOWEST, max(1.0, round(2.0 * found) / 2.0))


PACE = Pace()


def scaled(seconds: float) -> float:
    """Seconds, here and now, for what takes at most so many on a quiet machine.

    Every deadline of a test goes through this: those that end it if something never comes, those that servers and
    clients are given, and those that a promise names.
    """
    return seconds * PACE.slowness()


def becomes_true(condition: Callable[[], object], timeout: float = 30.0) -> bool:
    """Look again and again until the condition holds.

    Args:
        condition: What is looked at.
        timeout: Seconds on a quiet machine.

    Returns:
        Whether it came to hold.
    """
    begin = time.monotonic()
    while not condition():
        # The machine is measured only where it seems slow: most waits are short.
        if (waited := time.monotonic() - begin) > timeout and waited > scaled(timeout):
            return bool(condition())
        time.sleep(0.01)
    return True


def wait_until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Look until the condition holds; fail after `timeout` seconds of a quiet machine."""
    assert becomes_true(condition, timeout), f"not within {timeout:g} s, times {PACE.slowness():g} for a slow machine"
