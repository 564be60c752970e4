"""The lines of a server's log about its sessions."""

from __future__ import annotations

import logging

from remote_gym.errors import RemoteGymError
from remote_gym.ipc.close_reasons import FAILURES, CloseReason
from remote_gym.logs import get_logger
from remote_gym.server.sessions import Session, shown_identity

logger = get_logger(__name__)

LINES = 100
"""Sessions of one identity whose opening, and whose end, are told one by one in a minute; further ones are counted.
What the environment raised is told of the first few."""


def refused(identity: str, error: RemoteGymError) -> None:
    """One was not opened, which whoever runs the server may want to change."""
    logger.info(
        "refused a session to %s: %s",
        shown_identity(identity),
        error,
        repeats=identity,
        event="session_refused",
        identity=identity,
    )


def opened(session: Session) -> None:
    """Its client has it."""
    _log(
        logging.INFO,
        session,
        "session_opened",
        "session %s opened for %s",
        session.id,
        shown_identity(session.identity),
    )


def deserted(session: Session, lease: float) -> None:
    """Its lease is over."""
    _log(
        logging.INFO,
        session,
        "lease_over",
        "session %s: nobody came back within %.0f s; closing it",
        session.id,
        lease,
    )


def revoked(session: Session) -> None:
    """The certificate or token of its client counts no more."""
    logger.warning(
        "session %s: %s is not let in any more",
        session.id,
        session.identity,
        event="identity_revoked",
        session=session.id,
        identity=session.identity,
    )


def ended(session: Session, reason: str, details: str = "") -> None:
    """It has ended.

    Args:
        session: The session.
        reason: Why.
        details: What the environment raised, if that is why; else the last that its worker printed is shown, if known.
    """
    ending = CloseReason.of(reason)
    level = logging.WARNING if details or ending.reason in FAILURES else logging.INFO
    text = "session %s of %s ended: %s"
    _log(
        level,
        session,
        "session_ended",
        text,
        session.id,
        shown_identity(session.identity),
        ending,
        details=details or ending.output,
    )


def _log(level: int, session: Session, event: str, text: str, *values: object, details: str = "") -> None:
    logger.log(
        level,
        text,
        *values,
        details=details,
        repeats=session.identity,
        lines=LINES,
        event=event,
        session=session.id,
        identity=session.identity,
    )
