"""Keys of single frontends, which the servers of other systems take from environment variables."""

from __future__ import annotations

import hashlib
import hmac
import os

from remote_gym.config import ServerOptions
from remote_gym.errors import DenialReason, NotPermitted
from remote_gym.ipc.variables import VAGEN_KEY

VAGEN = "vagen"


class FrontendKeys:
    """The key of VAGEN's frontend, if the server's environment has one. Of it only the digest is kept.

    Args:
        options: The server's.
    """

    def __init__(self, options: ServerOptions) -> None:
        has_http = options.http or options.http_port is not None
        key = os.environ.get(VAGEN_KEY, "").strip() if has_http else ""  # as headers come
        self._digests = {VAGEN: _digest(key)} if key else {}

    @property
    def are_there(self) -> bool:
        """Whether there is any key."""
        return bool(self._digests)

    def identity(self, frontend: str, token: str) -> str:
        """The identity of a client that shows a frontend's key, such as ``"key:vagen"``; empty where it shows none."""
        expected = self._digests.get(frontend)
        is_shown = expected is not None and bool(token) and hmac.compare_digest(_digest(token), expected)
        return f"key:{frontend}" if is_shown else ""

    def check(self, frontend: str, identity: str) -> None:
        """Refuse a client that nobody knows, at a frontend that has a key.

        Raises:
            NotPermitted: Then.
        """
        if frontend in self._digests and not identity:
            raise NotPermitted(
                f"VAGEN's clients are known by a key here, and none came with the call, or another; have {VAGEN_KEY} "
                "of the server as X-API-Key",
                reason=DenialReason.IDENTITY,
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
