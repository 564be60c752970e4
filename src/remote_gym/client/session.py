"""The client's side of a session: numbered requests, each answered once."""

from __future__ import annotations

import logging
import os
import threading
import time

from remote_gym.client.connection import GrpcConnection, Interaction
from remote_gym.client.direct import DirectConnection
from remote_gym.config import ClientOptions
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    EncodingError,
    NotPermitted,
    RemoteGymError,
    SessionError,
    SessionLost,
    TransportError,
)
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.status import decode_error

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.02
"""Seconds before a lost connection is tried a second time; twice as many before each further one."""

DIRECT_TIMEOUT = 1.0
"""Seconds to try for a direct connection before gRPC is used."""


class ClientSession:
    """An open session, and the connection that it uses alone.

    Args:
        connection: Closed with the session.
        request: What to open.
        options: The client's.

    Raises:
        ConnectError: If the server could not be reached, or one end refused the other.
        TransportError: If the connection broke, or opening took too long.
        RemoteGymError: If the server did not open it, as the server says.
    """

    def __init__(self, connection: GrpcConnection, request: pb.OpenRequest, options: ClientOptions) -> None:
        self._connection = connection
        self._options = options
        self._process = os.getpid()
        # Requests are numbered and answered one by one, so threads that share an environment take turns.
        self._turn = threading.Lock()
        self._sequence = 0
        self._unanswered: bytes | None = None
        self._interaction: Interaction | DirectConnection | None = None
        self._prefers_direct = options.connection != "grpc"
        self.lost = False
        try:
            response = connection.open(
                request, connect_timeout=options.connect_timeout, open_timeout=options.open_timeout
            )
            if response.HasField("error"):
                raise decode_error(response.error)
        except BaseException:
            connection.close()
            raise
        self._session = response.session

    @property
    def id(self) -> str:
        """Names the session in logs and errors; no secret."""
        return self._session.id

    @property
    def description(self) -> pb.Description:
        """What the server told about the environment."""
        return self._session.description

    def ask(self, request: pb.Request, timeout: float) -> pb.Response:
        """Number a request, send it, and return what answers it.

        A broken connection is made again, and the request asked again under the same number, so that it runs once.

        Args:
            request: Without a sequence.
            timeout: Seconds.

        Raises:
            SessionLost: If the session has ended.
            ConnectionLost: If the connection broke and could not be made again within ``connect_timeout``. The session
                is given up.
            DeadlineExceeded: If no answer came in time. The next request can be asked all the same.
            RemoteGymError: As the answer says.
        """
        self._check_process()
        with self._turn:
            deadline = time.monotonic() + timeout
            if self._unanswered is not None:
                # Numbers leave no gaps: the one whose answer was missed comes first.
                self._exchange_until(self._unanswered, deadline)
            request.sequence = self._sequence + 1
            data = request.SerializeToString()
            self._check_size(data)
            self._sequence += 1
            response = self._exchange_until(data, deadline)
        if response.sequence != request.sequence:
            raise EncodingError(f"response {response.sequence} came to request {request.sequence}")
        if response.HasField("error"):
            raise decode_error(response.error)
        return response

    def close(self) -> None:
        """Close the environment and the connection. In a forked child it does nothing."""
        if self._process != os.getpid():
            return
        try:
            if not self.lost:
                self.ask(pb.Request(close=pb.CloseRequest()), self._options.close_timeout)
        except (RemoteGymError, TransportError) as error:
            logger.warning("session %s: closing: %s", self.id, error)
        finally:
            self.lost = True
            self._detach()
            self._connection.close()

    def _exchange_until(self, data: bytes, deadline: float) -> pb.Response:
        self._unanswered = data
        try:
            response = self._exchange(data, deadline)
        except ConnectionLost as error:
            logger.warning("session %s: %s; trying to resume", self.id, error)
            response = self._resume(data, deadline, error)
        self._unanswered = None
        return response

    def _resume(self, data: bytes, deadline: float, lost: ConnectionLost) -> pb.Response:
        """Ask again over a new connection, as often as it takes, for ``connect_timeout``."""
        give_up = min(deadline, time.monotonic() + self._options.connect_timeout)
        pause = FIRST_PAUSE
        while True:
            try:
                self._connection.reach(self._session.id, self._session.token, max(0.001, give_up - time.monotonic()))
                return self._exchange(data, deadline)
            except SessionError:
                self.lost = True
                raise
            except (ConnectError, ConnectionLost) as error:
                if time.monotonic() + pause > give_up:
                    self.lost = True
                    raise ConnectionLost(f"{lost}; it could not be made again: {error}") from error
            time.sleep(pause)
            pause *= 2

    def _exchange(self, data: bytes, deadline: float) -> pb.Response:
        if self._interaction is None:
            self._interaction = self._attach(deadline)
        try:
            answer = self._interaction.ask(data, max(0.001, deadline - time.monotonic()))
        except BaseException:
            self._detach()
            raise
        response = parse(pb.Response, answer)
        if response.sequence == 0 and response.HasField("error"):
            error = decode_error(response.error)
            self.lost = self.lost or isinstance(error, SessionError)
            raise error
        return response

    def _attach(self, deadline: float) -> Interaction | DirectConnection:
        if self._prefers_direct and (direct := self._attach_directly(deadline)) is not None:
            return direct
        return self._connection.attach(self._session.id, self._session.token)

    def _attach_directly(self, deadline: float) -> DirectConnection | None:
        insists = self._options.connection == "direct"
        if not self._session.HasField("direct"):
            if insists:
                raise ConnectError("connection='direct', and the server offers no direct connections")
            return None
        limit = self._options.connect_timeout if insists else DIRECT_TIMEOUT
        timeout = max(0.001, min(limit, deadline - time.monotonic()))
        try:
            return self._connection.attach_directly(self._session.direct, self._session.token, timeout)
        except (TransportError, NotPermitted) as error:
            if insists:
                raise
            # Not tried again: a firewall would cost this second after every lost connection.
            self._prefers_direct = False
            logger.warning("session %s goes on over gRPC, which is slower: %s", self.id, error)
            return None

    def _detach(self) -> None:
        if self._interaction is not None:
            self._interaction.close()
            self._interaction = None

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise SessionError(
                f"this environment was opened by process {self._process} and this is process {os.getpid()}, a fork of "
                "it; a connection cannot be shared, so create the environment after the fork, or pickle it"
            )
        if self.lost:
            raise SessionLost(f"session {self.id} has ended; reset opens a new one")

    def _check_size(self, data: bytes) -> None:
        limit = self._options.limits.message_bytes
        if len(data) > limit:
            raise EncodingError(f"the request has {len(data):,} bytes; Limits.message_bytes allows {limit:,}")
