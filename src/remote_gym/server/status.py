"""State of one session, for the server's operator."""

from __future__ import annotations

from dataclasses import dataclass

from remote_gym.ipc.counters import Counters


@dataclass(frozen=True, kw_only=True)
class SessionStatus:
    """One open session, as it was when somebody looked.

    Attributes:
        id: Names it in logs and errors.
        identity: Identity of the client that opened it; empty for an anonymous one.
        num_envs: How many environments it holds.
        attached: Whether a client is connected to it.
        direct: Whether that client is connected to the worker itself.
        pid: The worker's process; None where it is a thread.
        counters: What the worker has done.
    """

    id: str
    identity: str
    num_envs: int
    attached: bool
    direct: bool
    pid: int | None
    counters: Counters
