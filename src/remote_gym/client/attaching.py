"""Which kind of connection a session is used over: a direct one where it can be had, else gRPC."""

from __future__ import annotations

import logging
import math
import time

from remote_gym.client.connection import GrpcConnection
from remote_gym.client.direct import DirectConnection
from remote_gym.client.interaction import Interaction
from remote_gym.config import ClientOptions
from remote_gym.errors import NotPermitted, TransportError
from remote_gym.v1 import remote_gym_pb2 as pb

logger = logging.getLogger(__name__)

DIRECT_TIMEOUT = 1.0
"""Seconds to try for a direct connection before gRPC is used."""

FIRST_PAUSE = 30.0
"""Seconds before a direct connection is tried again, twice as many after each further failure: where a firewall
forbids it, each attempt costs `DIRECT_TIMEOUT`, but a busy moment shall not leave a session with the slower kind."""

LONGEST_PAUSE = 3600.0


class Attaching:
    """Attaches to one session, again and again.

    Args:
        connection: To its server.
        session: As the server opened it.
        options: The client's.
    """

    def __init__(self, connection: GrpcConnection, session: pb.Session, options: ClientOptions) -> None:
        self._connection = connection
        self._session = session
        self._options = options
        wants_direct = options.connection != "grpc" and session.HasField("direct")
        self._direct_from = -math.inf if wants_direct else math.inf  # on time.monotonic
        self._pause = FIRST_PAUSE

    def attach(self, deadline: float) -> Interaction | DirectConnection:
        """Connect.

        Args:
            deadline: On `time.monotonic`.

        Raises:
            ConnectError: If ``connection="direct"``, and it cannot be had.
            NotPermitted: Likewise, if the worker refuses it.
        """
        if time.monotonic() >= self._direct_from and (direct := self._attach_directly(deadline)) is not None:
            return direct
        return self._connection.attach(self._session.id, self._session.token)

    def may_improve(self, interaction: Interaction | DirectConnection | None) -> bool:
        """Whether what is used goes over gRPC, and it is time to try once more for a direct connection."""
        return isinstance(interaction, Interaction) and time.monotonic() >= self._direct_from

    def _attach_directly(self, deadline: float) -> DirectConnection | None:
        insists = self._options.connection == "direct"
        limit = self._options.connect_timeout if insists else DIRECT_TIMEOUT
        timeout = max(0.001, min(limit, deadline - time.monotonic()))
        try:
            direct = self._connection.attach_directly(self._session.direct, self._session.token, timeout)
        except (TransportError, NotPermitted) as error:
            if insists:
                raise
            log = logger.warning if self._pause == FIRST_PAUSE else logger.debug
            log("session %s goes on over gRPC, which is slower: %s", self._session.id, error)
            self._direct_from = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return None
        self._pause = FIRST_PAUSE
        return direct
