"""Looks after workers: sees what they do and ends those that hang or have grown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from remote_gym.config import ServerOptions
from remote_gym.logs import get_logger
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.processes import CAN_MEASURE, Processes
from remote_gym.server.supervision.watchdog import Sight, Watchdog

logger = get_logger(__name__)


async def watch(workers: Callable[[], Mapping[str, WorkerHandle]], options: ServerOptions) -> None:
    """Look after a server's workers until cancelled; return at once if its options leave nothing to do.

    Args:
        workers: Those there are, by session.
        options: What they may do.
    """
    watchdog = Watchdog(
        step_timeout=options.step_timeout,
        reset_timeout=options.reset_timeout,
        memory_limit=options.memory_limit,
        clock=time.monotonic,
    )
    while watchdog.is_needed:
        await asyncio.sleep(watchdog.interval)
        try:
            found = workers()
            verdicts = watchdog.look(_see(found, options))
            await asyncio.gather(*(found[session].end(reason) for session, reason in verdicts.items()))
        except Exception:  # whatever it was, such as having run out of descriptors, the next look may succeed
            logger.exception("could not look after the workers")


def _see(workers: Mapping[str, WorkerHandle], options: ServerOptions) -> dict[str, Sight]:
    processes = Processes() if CAN_MEASURE and workers else None
    seen = {}
    for session, worker in workers.items():
        stopped, memory, pid = False, None, worker.pid
        if processes is not None and pid is not None:
            stopped = processes.is_stopped(pid)
            if options.memory_limit is not None:
                memory = processes.memory(pid, options.memory_limit)
        seen[session] = Sight(counters=worker.counters(), stopped=stopped, memory=memory)
    return seen
