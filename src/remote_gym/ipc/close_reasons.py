"""Why a session ends, or a connection to it, in the words that its client hears and the log tells.

The server says them, and on a direct connection the session's worker does; whichever it is, they are the same.
"""

from __future__ import annotations

from remote_gym.errors import LossReason, OutOfSequence, SessionLost


class CloseReason(str):
    """A reason in words, which also says what kind of reason it is, and the last that the session's worker printed."""

    __slots__ = ("output", "reason")

    reason: LossReason
    output: str

    def __new__(cls, text: str, reason: LossReason = LossReason.UNKNOWN, output: str = "") -> CloseReason:
        """Make one."""
        ending = super().__new__(cls, text)
        ending.reason, ending.output = reason, output
        return ending

    @classmethod
    def of(cls, text: str) -> CloseReason:
        """Give a reason that may be no more than words as one that says what it knows."""
        return text if isinstance(text, cls) else cls(text)


def lost(session_id: str, why: str) -> SessionLost:
    """Make the error for the client of a session that ended."""
    ending = CloseReason.of(why)
    return SessionLost(f"session {session_id}: {ending}", reason=ending.reason, output=ending.output)


FAILURES = {LossReason.CRASHED, LossReason.KILLED, LossReason.HUNG, LossReason.OUT_OF_MEMORY}
"""Reasons that lie with the environment rather than with its client or the operator."""

STOPPING = CloseReason("the server is stopping", LossReason.SERVER_STOPPED)
DRAINED = CloseReason("the server is stopping, and begins no more episodes", LossReason.DRAINED)
CLOSED = CloseReason("its client closed it", LossReason.CLOSED)
NOT_STARTED = CloseReason("its worker did not start")
UNTOLD = CloseReason("the server has ended it, or stopped, and may have restarted")
"""Reason that a worker gives if it only sees its server go."""


def idled(seconds: float | None) -> CloseReason:
    """Its client was silent for so long."""
    return CloseReason(f"its client asked nothing for {seconds:g} s; see ServerOptions.idle_timeout", LossReason.IDLE)


def deserted(lease: float) -> CloseReason:
    """Its lease is over."""
    return CloseReason(f"nobody was attached for its lease of {lease:g} s", LossReason.EXPIRED)


def not_created(message: str) -> CloseReason:
    """The environment, or its entrypoint, raised."""
    return CloseReason(f"its environment could not be created: {message:.300}")


def not_opened(error: BaseException) -> CloseReason:
    """Something else went wrong before its client had it."""
    return CloseReason(
        f"it did not open: {error!r}", getattr(error, "reason", LossReason.UNKNOWN), getattr(error, "output", "")
    )


def forbidden(error: Exception) -> CloseReason:
    """A policy that has changed would not let its client open it."""
    return CloseReason(f"it may no longer be open: {error}", LossReason.FORBIDDEN)


def taken_over(session_id: str) -> OutOfSequence:
    """Error for a connection that a newer one ends.

    Not that the session is lost: who hears this must not come back, or would be answered what was meant for the one
    that took over.
    """
    return OutOfSequence(f"session {session_id}: a newer connection has taken it over")
