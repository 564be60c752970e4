"""Constants that both ends have to agree on beside the messages themselves."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

PROTOCOL_VERSION = 1
SERVICE_NAME = "remote_gym.v1.RemoteGym"
SESSION_KEY = "remote-gym-session"
"""Key of the session's id in the metadata of a gRPC call."""
TOKEN_KEY = "remote-gym-token"
"""Key of the session's token."""
ATTEMPT_KEY = "remote-gym-attempt"
"""Key of who makes a call and how many it made before, ``ID.NUMBER``: see `remote_gym.protocol.attempt`."""
TAKEN_KEY = "remote-gym-taken"
"""Key in what a server sends before the answer to `Open`: it has begun to open a session."""


def package_versions() -> dict[str, str]:
    """Versions of what decides how an environment behaves, for error messages and logs."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    # Once: to read the files that say so takes some milliseconds, more than all else of a client that opens a session.
    found = {"python": platform.python_version()}
    for name in ("remote-gym", "gymnasium", "numpy", "protobuf"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # such as a checkout on PYTHONPATH
            found[name] = "unknown"
    return found
