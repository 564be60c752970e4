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
        self._in_flight = False  # whether the connection that stands has it
        self._broken: ConnectionLost | None = None  # what went wrong when it was sent
        self._deadline = 0.0
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
        self._check_process()  # before the lock, which may have been taken when the process was forked
        with self._turn:
            self._begin(request, timeout)
            return self.receive()

    def send(self, request: pb.Request, timeout: float) -> None:
        """The first half of `ask`: number a request and send it. Not for several threads at once.

        Where the connection is found broken, `receive` makes it again and sends the request once more.

        Args:
            request: Without a sequence.
            timeout: Seconds that sending and receiving may take together.

        Raises:
            SessionLost: If the session has ended.
            DeadlineExceeded: If an earlier request, whose answer was missed, is still not answered.
        """
        self._check_process()
        self._begin(request, timeout)

    def receive(self) -> pb.Response:
        """The second half of `ask`: wait for what answers the request that was sent.

        Raises:
            RemoteGymError: As `ask` does.
        """
        response = self._finish()
        if response.sequence != self._sequence:
            raise EncodingError(f"response {response.sequence} came to request {self._sequence}")
        if response.HasField("error"):
            raise decode_error(response.error)
        return response

    def fileno(self) -> int | None:
        """Descriptor of a direct connection on which an answer is still to come; None where one cannot wait for it."""
        if self._in_flight and isinstance(self._interaction, DirectConnection):
            return self._interaction.fileno()
        return None

    @property
    def deadline(self) -> float:
        """When the answer to the last request has to be there, on `time.monotonic`."""
        return self._deadline

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

    def _begin(self, request: pb.Request, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        if self._unanswered is not None:
            # Numbers leave no gaps: the one whose answer was missed comes first.
            self._finish()
        request.sequence = self._sequence + 1
        data = request.SerializeToString()
        self._check_size(data)
        self._sequence += 1
        self._unanswered = data
        try:
            self._send()
        except ConnectionLost as error:
            self._broken = error

    def _finish(self) -> pb.Response:
        """Wait for the answer to what is unanswered, and send it again where it may not have arrived."""
        try:
            if (broken := self._broken) is not None:
                self._broken = None
                raise broken
            if not self._in_flight:
                self._send()
            response = self._receive()
        except ConnectionLost as error:
            logger.warning("session %s: %s; trying to resume", self.id, error)
            response = self._resume(error)
        self._unanswered = None
        return response

    def _resume(self, lost: ConnectionLost) -> pb.Response:
        """Ask again over a new connection, as often as it takes, for ``connect_timeout``."""
        give_up = min(self._deadline, time.monotonic() + self._options.connect_timeout)
        pause = FIRST_PAUSE
        while True:
            try:
                self._connection.reach(self._session.id, self._session.token, max(0.001, give_up - time.monotonic()))
                self._send()
                return self._receive()
            except SessionError:
                self.lost = True
                raise
            except (ConnectError, ConnectionLost) as error:
                if time.monotonic() + pause > give_up:
                    self.lost = True
                    raise ConnectionLost(f"{lost}; it could not be made again: {error}") from error
            time.sleep(pause)
            pause *= 2

    def _send(self) -> None:
        assert self._unanswered is not None
        if self._interaction is None:
            self._interaction = self._attach(self._deadline)
        try:
            self._interaction.send(self._unanswered, self._deadline)
        except BaseException:
            self._detach()
            raise
        self._in_flight = True

    def _receive(self) -> pb.Response:
        assert self._interaction is not None
        try:
            answer = self._interaction.receive(self._deadline)
        except BaseException:
            self._detach()
            raise
        self._in_flight = False
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
        self._in_flight = False
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
