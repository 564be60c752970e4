"""Report of the sessions that ``remote-gym serve`` prints when a signal asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from remote_gym.logs import printable
from remote_gym.server.status import SessionStatus


def report(sessions: Iterable[SessionStatus]) -> str:
    """A line for each session: what it has done, and what it does now."""
    lines = [_line(session) for session in sessions]
    return "\n".join([f"Sessions: {len(lines)}", *lines])


def _line(session: SessionStatus) -> str:
    counters = session.counters
    how = "direct" if session.direct else "gRPC" if session.attached else "nobody attached"
    age = time.monotonic() - counters.since / 1e9
    if counters.operation is not None:
        now = f"in a {counters.operation} for {age:.1f} s"
    else:
        now = f"idle for {age:.1f} s" if counters.since else "not used yet"
    return (
        f"  {session.id} of {printable(session.identity) or 'an anonymous client'} ({how}): {counters.steps:,} steps, "
        f"{counters.episodes:,} episodes, {counters.busy_seconds:.1f} s of work; {now}"
    )
