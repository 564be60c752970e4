"""Why a session ends, or a connection to it, in the words that its client hears and the log tells.

The server says them, and on a direct connection the session's worker does; whichever it is, they are the same.
"""

from __future__ import annotations

from remote_gym.errors import OutOfSequence

STOPPING = "the server is stopping"
DRAINED = "the server is stopping, and begins no more episodes"
CLOSED = "its client closed it"
NOT_STARTED = "its worker did not start"
UNTOLD = "the server has ended it, or stopped, and may have restarted"
"""What a worker says that only sees its server go."""


def idled(seconds: float | None) -> str:
    """Its client was silent for so long."""
    return f"its client asked nothing for {seconds:g} s; see ServerOptions.idle_timeout"


def deserted(lease: float) -> str:
    """Its lease is over."""
    return f"nobody was attached for its lease of {lease:g} s"


def not_created(message: str) -> str:
    """The environment, or its entrypoint, raised."""
    return f"its environment could not be created: {message:.300}"


def not_opened(error: BaseException) -> str:
    """Something else went wrong before its client had it."""
    return f"it did not open: {error!r}"


def forbidden(error: Exception) -> str:
    """A policy that has changed would not let its client open it."""
    return f"it may no longer be open: {error}"


def taken_over(session_id: str) -> OutOfSequence:
    """What a connection hears that a newer one ends.

    Not that the session is lost: who hears this must not come back, or would be answered what was meant for the one
    that took over.
    """
    return OutOfSequence(f"session {session_id}: a newer connection has taken it over")
