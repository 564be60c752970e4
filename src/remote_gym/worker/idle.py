"""When a worker has waited long enough for its client. Pure: time comes from the clock that is passed in."""

from __future__ import annotations

from collections.abc import Callable

from remote_gym.ipc.control import WorkerEvent

LINGER = 1.0
"""Seconds that a client may be silent between two episodes of a server that drains.

Long enough for the last frame to be rendered, or the last answer to be asked for again after a connection broke.
"""


class IdleClock:
    """How long to wait for the next request, and what to tell the server when none came.

    Args:
        clock: Monotonic seconds.

    Attributes:
        idle_timeout: Seconds that a client may be silent; None for any time.
        draining: Whether the server stops, and lets running episodes end.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.idle_timeout: float | None = None
        self.draining = False
        self._clock = clock
        self._since = clock()

    def restart(self) -> None:
        """A request has been answered, or a client has come: silence begins now."""
        self._since = self._clock()

    def verdict(self, between_episodes: bool) -> tuple[WorkerEvent | None, float | None]:
        """Decide what to tell the server, and for how many seconds to wait before this is asked again.

        What is told is told again after as long a silence, if the session still stands then.

        Args:
            between_episodes: Whether no episode runs.
        """
        if self.draining and between_episodes:
            limit, event = LINGER, WorkerEvent.DRAINED
        elif self.idle_timeout is not None:
            limit, event = self.idle_timeout, WorkerEvent.IDLE
        else:
            return None, None
        remaining = self._since + limit - self._clock()
        if remaining > 0:
            return None, remaining
        self.restart()
        return event, limit
