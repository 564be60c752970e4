"""File descriptors enough for all sessions that a server may hold."""

from __future__ import annotations

from remote_gym.logs import get_logger

logger = get_logger(__name__)

EACH = 8
"""Descriptors of a session: its worker's two sockets and output, the client's connections; as many while opening."""
OTHERS = 512
"""Descriptors of the server itself, and of the program that it runs in."""


def make_room(max_sessions: int) -> None:
    """Raise this process's soft limit on open files, as far as its hard limit allows, where it is too low.

    A login shell allows 1,024 as a rule, which 250 sessions use up. Does nothing on a system without such limits.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_sessions * EACH + OTHERS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if raised < needed:
        logger.info(
            "max_sessions is %d, and the %d files that this process may open are enough for about %d; raise "
            "'ulimit -Hn'",
            max_sessions,
            raised,
            max(0, raised - OTHERS) // EACH,
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
    except (OSError, ValueError) as error:  # macOS has a further bound, which it tells nobody
        logger.info("the limit of %d open files stays: %s", soft, error)
