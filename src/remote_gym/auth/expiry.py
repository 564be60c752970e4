"""Warns of certificates that are near their end, while there is time to replace them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger

logger = get_logger(__name__)

NEAR = 30 * 86_400.0
"""Seconds before its end in which a certificate is warned about."""
SHARE = 0.2
"""Part of a certificate's whole life, where that is less: one that lives for a day is made anew every day."""
INTERVAL = 86_400.0
"""Seconds between two warnings of a server's own certificates."""


def near_from(begin: float, end: float) -> float:
    """From when a certificate is near its end; all in seconds since the epoch."""
    return end - min(NEAR, SHARE * (end - begin))


def seconds_left(lifetime: float | None, expires: float) -> float:
    """For how long what begins now may go on: the same for gRPC and for direct connections.

    Args:
        lifetime: Seconds; None for any number.
        expires: When the client's certificate is over, in seconds since the epoch; infinity without one.
    """
    return min(math.inf if lifetime is None else lifetime, expires - time.time())


class OwnCertificates:
    """A server's or a hub's certificate and its authority's, looked at once a day.

    Args:
        files: The server's, or the hub's; None without TLS.
        clock: Seconds since the epoch.
        whose: ``"server"`` or ``"hub"``, for the log.
    """

    def __init__(
        self, files: TlsFiles | None, clock: Callable[[], float] = time.time, *, whose: str = "server"
    ) -> None:
        its = f"the {whose}'s certificate"
        found = [] if files is None else [(its, files.certificate), ("the authority", files.ca)]
        self._paths = [(what, Path(path).absolute()) for what, path in found if path is not None]
        self._clock = clock
        self._next = 0.0

    def look(self) -> None:
        """Warn of those that are near their end, if a day has passed since the last look."""
        now = self._clock()
        if now < self._next or not self._paths:
            return
        self._next = now + INTERVAL
        # Here, since a server without TLS need not load cryptography.
        from remote_gym.tls.facts import read_certificate

        for what, path in self._paths:
            try:
                facts = read_certificate(path)
            except ConfigError:  # it is being replaced; loading it reports what is wrong
                continue
            end = facts.not_after.timestamp()
            if now >= near_from(facts.not_before.timestamp(), end):
                verb = "has expired" if now >= end else "expires"
                logger.warning(
                    "%s %s on %s (%s); make a new one, and replace the file: nothing needs a restart",
                    what,
                    verb,
                    _date(end),
                    path,
                    event="certificate_near_end",
                )


def warn_of_clients(identity: str, end: float) -> None:
    """Warn that a client's certificate is near its end, once a minute for each client."""
    logger.warning(
        "the certificate of %s expires on %s; the client needs a new one",
        identity or "a client without an identity",
        _date(end),
        repeats=identity,
        lines=1,
        event="certificate_near_end",
        identity=identity,
    )


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M} UTC"
