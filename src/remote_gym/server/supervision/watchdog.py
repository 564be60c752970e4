"""Which workers are to be ended, because they hang or have grown.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from remote_gym.errors import LossReason
from remote_gym.ipc.close_reasons import CloseReason
from remote_gym.ipc.counters import Counters

LONGEST_INTERVAL = 1.0
SHORTEST_INTERVAL = 0.1
LOOKS = 4
"""How often to look within the shortest of the times allowed."""

_STEP, _RESET = "ServerOptions.step_timeout", "ServerOptions.reset_timeout"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One look at a worker.

    Attributes:
        counters: Its own word of what it does.
        stopped: Whether its process is stopped, as by SIGSTOP.
        memory: What it holds and those that it started, in bytes; None where nobody looked.
    """

    counters: Counters
    stopped: bool = False
    memory: int | None = None


@dataclass
class _Wait:
    """How long something has stayed as it is: on our clock, and only while we looked."""

    state: object = None
    seconds: float = 0.0

    def is_over(self, state: object, timeout: float, passed: float) -> bool:
        if state != self.state:
            self.state, self.seconds = state, 0.0
        else:
            self.seconds += passed
        return self.seconds > timeout


@dataclass
class _Waits:
    request: _Wait = field(default_factory=_Wait)
    stop: _Wait = field(default_factory=_Wait)


class Watchdog:
    """Passes judgement on what it is shown, again and again.

    Time is counted from the first look that saw a request to the last that sees it still, by the server's clock, and
    no more than twice `interval` for each look. So a server that was itself stopped for a while does not take that
    for its workers' time, and nothing is judged early; it may be judged late, by twice `interval`.

    Args:
        step_timeout: Seconds that a step, a render or a call may take; None for any.
        reset_timeout: Seconds that a reset may take; None for any.
        memory_limit: Bytes that a worker may hold; None for any.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        step_timeout: float | None,
        reset_timeout: float | None,
        memory_limit: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._timeouts = {"step": step_timeout, "render": step_timeout, "call": step_timeout, "reset": reset_timeout}
        self._step_timeout = step_timeout
        self._memory_limit = memory_limit
        self._clock = clock
        self._last = clock()
        self._waits: dict[str, _Waits] = {}
        timeouts = [timeout for timeout in self._timeouts.values() if timeout is not None]
        self.is_needed = bool(timeouts) or memory_limit is not None
        """Whether there is anything to watch for."""
        shortest = min(timeouts, default=LOOKS * LONGEST_INTERVAL)
        self.interval = min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, shortest / LOOKS))
        """Seconds from one look to the next."""

    def look(self, seen: Mapping[str, Sight]) -> dict[str, str]:
        """Judge all workers there are.

        Args:
            seen: What there is to see, by session.

        Returns:
            Whom to end, by session, and the reason to tell.
        """
        now = self._clock()
        passed = min(now - self._last, 2 * self.interval)
        self._last = now
        self._waits = {session: self._waits.get(session) or _Waits() for session in seen}
        verdicts = {session: self._judge(sight, self._waits[session], passed) for session, sight in seen.items()}
        return {session: reason for session, reason in verdicts.items() if reason is not None}

    def _judge(self, sight: Sight, waits: _Waits, passed: float) -> str | None:
        counters = sight.counters
        timeout = self._timeouts.get(counters.operation or "")
        # A time of beginning names the request: no other of this worker has it.
        if waits.request.is_over((counters.operation, counters.since), timeout or 0.0, passed) and timeout is not None:
            option = _RESET if counters.operation == "reset" else _STEP
            return CloseReason(f"its {counters.operation} took over {timeout:g} s ({option})", LossReason.HUNG)
        limit = self._step_timeout
        if limit is not None and waits.stop.is_over(sight.stopped, limit, passed) and sight.stopped:
            return CloseReason(f"its worker was stopped for over {limit:g} s ({_STEP})", LossReason.HUNG)
        if self._memory_limit is not None and sight.memory is not None and sight.memory > self._memory_limit:
            return CloseReason(
                f"its worker held {format_bytes(sight.memory)} of memory, over the "
                f"{format_bytes(self._memory_limit)} of ServerOptions.memory_limit",
                LossReason.OUT_OF_MEMORY,
            )
        return None


def format_bytes(count: int) -> str:
    """As people write it: "2 GiB", "1.5 GiB", "300 B"."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.4g} {units[0]}"
