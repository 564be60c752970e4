"""Which kind of connection a session is used over: a direct one where it can be had, else gRPC."""

from __future__ import annotations

import math
import time

from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import Operations
from remote_gym.config import ClientOptions
from remote_gym.errors import ConnectError, ConnectReason, NotPermitted, TransportError
from remote_gym.logs import get_logger
from remote_gym.protocol.stream import Stream
from remote_gym.transport.direct_socket import ROUTING_ID_LIFETIME
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)

DIRECT_TIMEOUT = 1.0
"""Seconds to try for a direct connection before gRPC is used."""

DIALLED_BACK_TIMEOUT = 4.0
"""And where a hub may be on the way, to which the server first makes a connection of its own: some round trips more."""

FIRST_PAUSE = 30.0
"""Seconds before a direct connection is tried again, twice as many after each further failure: where a firewall
forbids it, each attempt costs `DIRECT_TIMEOUT`, but a busy moment shall not leave a session with the slower kind."""

LONGEST_PAUSE = 3600.0

ADDRESS_LIFETIME = ROUTING_ID_LIFETIME / 2
"""Seconds after which an address that was not used is asked for anew: the server began to count somewhat earlier."""


class Attaching:
    """Attaches to one session, again and again. It does no input or output; see `remote_gym.client.rules.operations`.

    Args:
        connection: To its server.
        session: As the server opened it.
        options: The client's.
        unlogged: Gets what is to be logged once a request has been answered, and not if the session has ended instead.
        patience: Seconds to try for a direct connection before gRPC is used; longer where a hub may be on the way.
    """

    def __init__(
        self,
        connection: Connection,
        session: pb.Session,
        options: ClientOptions,
        unlogged: list[str],
        patience: float = DIRECT_TIMEOUT,
    ) -> None:
        self._patience = patience if options.server_name is None else max(patience, DIALLED_BACK_TIMEOUT)
        self._unlogged = unlogged
        self._connection = connection
        self._session = session
        self._options = options
        wants_direct = options.connection != "grpc" and session.HasField("direct")
        self._direct_from = -math.inf if wants_direct else math.inf  # on time.monotonic
        self._pause = FIRST_PAUSE
        self._address: pb.DirectAddress | None = None
        self._address_until = -math.inf  # on time.monotonic
        if session.HasField("direct"):
            self._learn(session.direct)

    def reaching(self, timeout: float) -> Operations[None]:
        """Make a broken connection to the server again, if that can be done, and see that the session is still there.

        Args:
            timeout: Seconds.

        Raises:
            ConnectError: If it is not done in time; with what to check.
            ConnectionLost: If the server was reached and gave no answer.
            SessionLost: If the session has ended, with the reason.
        """
        session = self._session
        found: pb.SpacesResponse = yield lambda: self._connection.reach(session.id, session.token, timeout)
        if found.HasField("direct"):
            self._learn(found.direct)

    def attaching(self, deadline: float) -> Operations[Stream]:
        """Connect.

        Args:
            deadline: On `time.monotonic`.

        Raises:
            ConnectError: If the server, asked where to connect to, does not answer; or if ``connection="direct"``,
                and it cannot be had.
            ConnectionLost: Likewise, if the server was reached and gave no answer.
            NotPermitted: If ``connection="direct"``, and the worker refuses it.
            SessionLost: If the session has ended, with the reason.
        """
        if time.monotonic() >= self._direct_from:
            direct = yield from self._attaching_directly(deadline)
            if direct is not None:
                return direct
        session = self._session
        stream: Stream = yield lambda: self._connection.attach(session.id, session.token, session.message_bytes)
        return stream

    def may_improve(self, stream: Stream | None) -> bool:
        """Whether what is used goes over gRPC, and it is time to try once more for a direct connection."""
        return stream is not None and not stream.is_direct and time.monotonic() >= self._direct_from

    def _attaching_directly(self, deadline: float) -> Operations[Stream | None]:
        address = yield from self._taking_address(deadline)
        insists = self._options.connection == "direct"
        limit = self._options.connect_timeout if insists else self._patience
        timeout = max(0.001, min(limit, deadline - time.monotonic()))
        try:
            if address is None:
                raise ConnectError("the server offers direct connections no more", reason=ConnectReason.NOT_DIRECT)
            token = self._session.token
            direct: Stream = yield lambda: self._connection.attach_directly(address, token, timeout)
        except (TransportError, NotPermitted) as error:
            if insists:
                raise
            if self._pause == FIRST_PAUSE:
                self._unlogged.append(f"goes on over gRPC, which is slower: {error}")
            else:
                logger.debug("session %s goes on over gRPC: %s", self._session.id, error)
            self._direct_from = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return None
        self._pause = FIRST_PAUSE
        return direct

    def _taking_address(self, deadline: float) -> Operations[pb.DirectAddress | None]:
        """Where to connect to, this once; None if nowhere."""
        if time.monotonic() >= self._address_until:
            self._address = None
        if self._address is None:
            yield from self.reaching(max(0.001, min(self._options.connect_timeout, deadline - time.monotonic())))
        address, self._address = self._address, None
        return address

    def _learn(self, address: pb.DirectAddress) -> None:
        self._address, self._address_until = address, time.monotonic() + ADDRESS_LIFETIME
