"""Environment variables: what a server starts gets those of its own, but for what is meant for the server alone."""

from __future__ import annotations

import os

_OURS = "REMOTE_GYM_"
"""The token of `config.TOKEN_VARIABLE` begins with it."""
_OF_SERVICE_MANAGERS = frozenset(
    (
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    )
)
"""By which systemd lends a service sockets, secrets, and its own ear."""
VAGEN_KEY = "GYM_API_KEY"
"""Key of VAGEN's clients, which is no environment's business."""
_OF_OUR_PYTHON = frozenset(("PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"))
"""Where this Python finds its modules, which are another one's bane."""


def for_others() -> dict[str, str]:
    """The variables for a process that runs code of others, or talks to their machines."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and name not in _OF_SERVICE_MANAGERS and name != VAGEN_KEY
    }


def for_other_pythons() -> dict[str, str]:
    """The variables for a process that is another Python, or leads to one."""
    return {name: value for name, value in for_others().items() if name not in _OF_OUR_PYTHON}
