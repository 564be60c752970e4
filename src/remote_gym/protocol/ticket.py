"""Tickets that one process leaves to another, so that it can go on with a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SessionTicket:
    """A claim on an open session: `RemoteEnvironment.ticket` gives it, ``RemoteEnvironment(resume=...)`` takes it.

    `RemoteVectorEnv.tickets` gives one for each worker, and ``RemoteVectorEnv(resume=...)`` takes them.

    It can be pickled. Whoever holds it, and has a client certificate of the same identity, can use the environment:
    keep it like a password.

    Attributes:
        url: Where the server is.
        port: Its port.
        session: The session's id, which is no secret.
        token: The session's secret.
        answered: How many requests had been answered when the ticket was taken.
    """

    url: str
    port: int
    session: str
    token: str = field(repr=False)
    answered: int


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """Where a resumed environment stands.

    Attributes:
        executed: How many requests (steps, resets, renders, calls) have been answered since the ticket was taken.
        returned: What the last of all its requests returned, or would have, to whoever made it: the tuple of a reset or
            a step, the list of a ``step_many``, or the exception that was raised. None for a render or a call, and
            where there was no request yet.
    """

    executed: int
    returned: Any
