"""Words for OpenSSH's client, by which it needs nobody and keeps to what it is asked. Pure: nothing is started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

KEEPALIVE = 15
"""Seconds after which an SSH connection on which nothing comes is asked for a sign of life, three times."""
CONNECT_TIMEOUT = 20
"""Seconds that an SSH connection has to be made."""


def ssh_options(keepalive: int = KEEPALIVE) -> list[str]:
    """Options of any connection of ours, beside a user's own configuration.

    Args:
        keepalive: As `KEEPALIVE`.
    """
    options = (
        "BatchMode=yes",  # nobody is there to be asked for a password, or about an unknown host
        f"ConnectTimeout={CONNECT_TIMEOUT}",
        f"ServerAliveInterval={keepalive}",
        "ServerAliveCountMax=3",
        # What a user's configuration may have for its own sessions, and would be in the way of ours:
        "RemoteCommand=none",
        "ClearAllForwardings=yes",  # ports that the first of two sessions has taken
        "ControlPersist=no",  # a process left behind, which would be ended with the session that it came from
    )
    return [word for option in options for word in ("-o", option)]


def in_shell(words: Sequence[str]) -> str:
    """Words as a shell takes them apart again: the one that a user has there, be it Bourne's, C's or another."""
    return f"exec {shlex.join(words)}"
