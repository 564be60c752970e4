"""Whether gRPC runs in this process, as the system shows its threads: gRPC itself does not say when it has ended."""

from __future__ import annotations

import enum
import threading
import time
from pathlib import Path

AT_REST = 0.05
"""Seconds without anything running after which gRPC does not end: it is kept by channels or servers that are not ours.
While it ended its threads were never seen to sleep all at once for longer than 5 ms."""

_PAUSE = 0.0005
"""Seconds between two looks."""

_TASKS = Path("/proc/self/task")
_NAMES = ("grpc", "event_engine", "lifeguard", "default-executo", "resolver-execut")
"""How the names of gRPC's threads begin, of which Linux keeps 15 characters."""


class Seen(enum.Enum):
    """State of gRPC's threads, as far as it can be seen."""

    NONE = "has ended"
    ASLEEP = "is at rest"
    BUSY = "runs"


def look() -> Seen:
    """See what gRPC's threads do, where the system shows threads; else it `has ended`.

    A thread gives itself its name, with the first that it does; until then it has the name of the one that made it.
    Where a channel was made a moment ago all of gRPC's threads may be such ones: so they were between two forks in a
    row, on a busy machine, and what seemed to have ended had just begun. So each thread counts as gRPC's that wants to
    run and has hardly run yet. Others that have just begun are soon known: they go to sleep, or have run for a while.
    """
    if not _TASKS.exists():
        return Seen.NONE
    me, seen = str(threading.get_native_id()), Seen.NONE
    for task in _TASKS.iterdir():
        if task.name == me:
            continue
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has just ended, and may have begun another that is not in this list
            return Seen.BUSY
        fields = rest.split()
        sleeps, ran = fields[0] == "S", fields[11:13] != ["0", "0"]  # for 10 ms at least
        if name.startswith(_NAMES):
            if not sleeps:
                return Seen.BUSY
            seen = Seen.ASLEEP
        elif not sleeps and not ran:
            return Seen.BUSY
    return seen


def wait_for_end(longest: float, longest_for_rest: float) -> Seen:
    """Wait until gRPC has ended, or is kept by others and at rest.

    Args:
        longest: Seconds that only its end will do; 0 where it is known to be kept.
        longest_for_rest: Seconds after that in which rest will do, too.

    Returns:
        What it came to. ``BUSY`` also where it was at rest for less than `AT_REST`: it may be ending.
    """
    begin = awake = time.monotonic()
    while (seen := look()) is not Seen.NONE:
        now = time.monotonic()
        if seen is Seen.BUSY:
            awake = now
        if now - begin >= longest and now - awake >= AT_REST:
            return Seen.ASLEEP
        if now - begin >= longest + longest_for_rest:
            return Seen.BUSY
        time.sleep(_PAUSE)
    return seen
