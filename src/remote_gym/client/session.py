"""The client's side of a session: numbered requests, each answered once."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
import weakref

from remote_gym.address import Place
from remote_gym.client.attaching import Attaching, Connection
from remote_gym.client.connection import GrpcConnection
from remote_gym.client.direct import DirectConnection
from remote_gym.client.interaction import Interaction
from remote_gym.client.opening import open_session
from remote_gym.client.retry import Retry
from remote_gym.client.ticket import SessionTicket
from remote_gym.config import ClientOptions
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    OutOfSequence,
    ProtocolMismatch,
    RemoteGymError,
    SessionError,
    SessionLost,
)
from remote_gym.logs import get_logger
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.large import parse_response
from remote_gym.wire.status import decode_error

logger = get_logger(__name__)


class ClientSession:
    """An open session, and the connection that it uses alone.

    Args:
        connection: Closed with the session.
        request: What to open; or a ticket to what another process has opened, which `take_over` then gets hold of.
        options: The client's.

    Raises:
        TransportError: If the server could not be reached, the connection broke, or opening took too long.
        RemoteGymError: If the server did not open it, as the server says.
    """

    def __init__(
        self, connection: GrpcConnection, request: pb.OpenRequest | SessionTicket, options: ClientOptions
    ) -> None:
        self._connection = connection
        self._options = options
        self._process = os.getpid()
        # Requests are numbered and answered one by one, so threads that share an environment take turns.
        self._turn = threading.Lock()
        self._answered = 0
        self._unanswered: bytes | None = None
        self._interaction: Connection | None = None
        self._closed = False
        self._to_be_closed = True  # whether the server still has it, as far as one knows
        self.lost = False
        self._why = ""
        self.deadline = 0.0
        """When the last request has to be answered, on `time.monotonic`."""
        self._packed: memoryview | None = None
        self._in_flight = False  # whether the connection that stands has the request
        self._broken: ConnectError | ConnectionLost | None = None  # what went wrong when it was sent
        try:
            self._session = open_session(connection, request, options)
            if options.connection == "direct" and not self._session.HasField("direct"):
                raise ConnectError(f"connection='direct', and {connection.address} offers no direct connections")
        except BaseException:
            connection.close()
            raise
        self._attaching = Attaching(connection, self._session, options)
        self.first: pb.Response | None = None
        """What answers the request that the opening brought along, if it did."""
        if isinstance(request, pb.OpenRequest) and request.HasField("first"):
            self.first, self._packed = parse_response(self._session.first, options.limits)
            self._answered = 1
        # A script that ends without closing, by Ctrl-C say, shall not keep the server's place for a lease.
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)

    @property
    def id(self) -> str:
        """Names the session in logs and errors; no secret."""
        return self._session.id

    @property
    def identity(self) -> str:
        """Whom the server takes this client for, such as ``"DNS:alice"``; empty without an identity."""
        return self._session.identity

    @property
    def environments(self) -> tuple[str, ...]:
        """Names of what this client may open there; empty from a server that does not tell."""
        return tuple(self._session.environments)

    @property
    def place(self) -> Place:
        """Where the server is."""
        return self._connection.place

    @property
    def ticket(self) -> SessionTicket:
        """What another process needs to go on from here."""
        url, port = self.place
        return SessionTicket(url=url, port=port, session=self.id, token=self._session.token, answered=self._answered)

    @property
    def description(self) -> pb.Description:
        """What the server told about the environment."""
        return self._session.description

    @property
    def is_behind(self) -> bool:
        """Whether the last request has not been answered: its deadline passed, or Ctrl-C interrupted it."""
        return self._unanswered is not None

    def attach(self) -> None:
        """Connect to the worker now, rather than with the first request, which does what this could not."""
        deadline = time.monotonic() + self._options.connect_timeout
        self._take_turn(deadline)
        try:
            if self._interaction is None:
                self._interaction = self._attaching.attach(deadline)
        except (ConnectError, ConnectionLost) as error:
            logger.debug("session %s: not attached yet: %s", self.id, error)
        finally:
            self._turn.release()

    def improve(self) -> None:
        """Let the next request try for a direct connection, if that failed some time ago: worth it between episodes."""
        if self._turn.acquire(False):  # else another thread is using it, and it is no time for that
            try:
                if not self.is_behind and self._attaching.may_improve(self._interaction):
                    self._detach()
            finally:
                self._turn.release()

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
            DeadlineExceeded: If no answer came in time. The next request waits for it first.
            RemoteGymError: As the answer says.
        """
        deadline = time.monotonic() + timeout
        self._take_turn(deadline)
        try:
            self._begin(request, deadline)
            response = self._finish()
        finally:
            self._turn.release()
        if response.HasField("error"):
            raise decode_error(response.error)
        return response

    def send(self, request: pb.Request, timeout: float) -> None:
        """The first half of `ask`, so that several sessions can be asked at once.

        Where the connection is found broken, `receive` makes it again and sends the request once more.

        Args:
            request: Without a sequence.
            timeout: Seconds that sending and receiving may take together.

        Raises:
            SessionLost: If the session has ended.
            DeadlineExceeded: If an earlier request, whose answer was missed, is still not answered.
        """
        deadline = time.monotonic() + timeout
        self._take_turn(deadline)
        try:
            self._begin(request, deadline)
        finally:
            self._turn.release()

    def receive(self) -> pb.Response:
        """The second half of `ask`: wait for what answers the request that was sent.

        Raises:
            RemoteGymError: As `ask` does.
        """
        self._take_turn(self.deadline)
        try:
            response = self._finish()
        finally:
            self._turn.release()
        if response.HasField("error"):
            raise decode_error(response.error)
        return response

    def take_packed(self) -> memoryview | None:
        """The large observation that the newest response lacks, if it does; once."""
        packed, self._packed = self._packed, None
        return packed

    def fileno(self) -> int | None:
        """Descriptor of a direct connection on which an answer is still to come; None where one cannot wait for it."""
        used = self._interaction if self._in_flight else None
        return used.fileno() if isinstance(used, DirectConnection) else None

    def catch_up(self, timeout: float) -> None:
        """Wait for the answer that was missed, and drop it.

        Raises:
            DeadlineExceeded: If it does not come in time.
            RemoteGymError: As for `ask`.
        """
        deadline = time.monotonic() + timeout
        self._take_turn(deadline)
        try:
            self.deadline = deadline
            if self._unanswered is not None:
                self._finish()
        finally:
            self._turn.release()

    def take_over(self, timeout: float) -> pb.Response | None:
        """Cut off the process that opened the session, and have the answer to what it asked last once more.

        Returns:
            The answer, an error's included; None if nothing was ever asked.

        Raises:
            ProtocolMismatch: If the server's release cannot tell.
            RemoteGymError: As for `ask`; but not what the answer says.
        """
        deadline = time.monotonic() + timeout
        self._take_turn(deadline)
        try:
            self._answered = -1  # the number 0 is always refused, with what was answered last
            self._begin(pb.Request(), deadline)
            refusal = decode_error(self._finish().error)
            if not isinstance(refusal, OutOfSequence):
                raise refusal
            if refusal.answered is None:
                told = f"the server does not tell where session {self.id} stands ({dict(self.description.versions)})"
                raise ProtocolMismatch(f"{told}; install the same release at both ends")
            if refusal.answered == 0:
                return None
            # What is asked does not matter: by its number it gets the answer that is there.
            self._answered = refusal.answered - 1
            self._begin(pb.Request(), deadline)
            return self._finish()
        finally:
            self._turn.release()

    def let_go(self) -> None:
        """End the connection and not the session, which lives on for its lease. What is asked here then is lost."""
        self._to_be_closed = False
        self.close()

    def close(self) -> None:
        """Close the environment and the connection. In a forked child it does nothing.

        Waits for no request in progress, which may be another thread's, or the one that a signal interrupted: it ends.
        """
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        self.lost = True
        self._detach()
        try:
            if self._to_be_closed:
                self._connection.close_session(self._session.id, self._session.token, self._options.close_timeout)
        except RemoteGymError as error:
            logger.warning("session %s: closing: %s", self.id, error)
        finally:
            self._connection.close()

    def _take_turn(self, deadline: float) -> None:
        """Lock the session, while it can be used. The caller releases the turn."""
        if self._process != os.getpid():
            raise SessionError(
                f"this environment was opened by process {self._process} and this is process {os.getpid()}, a fork of "
                "it; a connection cannot be shared, so create the environment after the fork, or pickle it"
            )
        # At once, mostly: to wait costs three times as much, even where there is nothing to wait for.
        if not self._turn.acquire(False) and not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded(f"session {self.id} is busy with another thread's request")
        if self.lost:
            self._turn.release()
            raise SessionLost(f"session {self.id} has ended{self._why}; reset opens a new one")

    def _begin(self, request: pb.Request, deadline: float) -> None:
        self.deadline = deadline
        if self._unanswered is not None:
            self._finish()  # numbers leave no gaps
        request.sequence = self._answered + 1
        data = request.SerializeToString()
        limit = self._options.limits.message_bytes
        if len(data) > limit:
            raise EncodingError(f"the request has {len(data):,} bytes; Limits.message_bytes allows {limit:,}")
        self._unanswered = data
        try:
            self._send_once(data)
        except (ConnectError, ConnectionLost) as error:
            self._broken = error
        except BaseException as error:
            self._give_up(error)
            raise

    def _finish(self) -> pb.Response:
        """Get the answer to what is unanswered, however often it has to be asked for."""
        assert self._unanswered is not None
        try:
            response = self._finish_until(self._unanswered, self.deadline)
        except BaseException as error:
            self._give_up(error)
            raise
        self._answered += 1
        self._unanswered = None
        return response

    def _give_up(self, error: BaseException) -> None:
        """Decide what a failure leaves to be used."""
        # After a deadline or Ctrl-C the answer is still to come, and is the next request's to wait for. What could not
        # be read, or was refused as a whole, would be again.
        if isinstance(error, Exception) and not isinstance(error, DeadlineExceeded):
            self.lost, self._why = True, f" ({error})"
            if not self._closed:  # else that is what ended it
                self._to_be_closed = isinstance(error, EncodingError) or not isinstance(error, RemoteGymError)
        was_grpc = isinstance(self._interaction, Interaction)
        self._detach()
        if was_grpc and not isinstance(error, Exception):
            self._connection.renew()

    def _finish_until(self, data: bytes, deadline: float) -> pb.Response:
        try:
            broken, self._broken = self._broken, None
            if broken is not None:
                raise broken
            if not self._in_flight:
                self._send_once(data)
            return self._receive_once()
        except (ConnectError, ConnectionLost) as error:
            lost = error
        options = self._options
        retry = Retry(options.retry, lost, connect_timeout=options.connect_timeout, deadline=deadline)
        while not self.lost:
            logger.warning("session %s: %s; trying to resume", self.id, lost, repeats=self.id, lines=1)
            self._detach()
            try:
                self._attaching.reach(retry.reach_timeout())
                retry.made()
                self._send_once(data)
                return self._receive_once()
            except (ConnectError, ConnectionLost) as error:
                lost = error
            time.sleep(retry.pause_after(lost))
        raise SessionLost(f"session {self.id} was closed")

    def _send_once(self, data: bytes) -> None:
        interaction = self._interaction
        if interaction is None:
            interaction = self._interaction = self._attaching.attach(self.deadline)
        interaction.send(data, self.deadline)
        self._in_flight = True

    def _receive_once(self) -> pb.Response:
        interaction = self._interaction
        if interaction is None:
            raise ConnectionLost(f"session {self.id} was closed")
        response, self._packed = parse_response(interaction.receive(self.deadline), self._options.limits)
        self._in_flight = False
        if response.sequence == self._answered + 1:
            return response
        if response.sequence == 0 and response.HasField("error"):  # it concerns the session as a whole
            raise decode_error(response.error)
        raise EncodingError(f"response {response.sequence} came to request {self._answered + 1}")

    def _detach(self) -> None:
        self._in_flight = False
        interaction, self._interaction = self._interaction, None
        if interaction is not None:
            interaction.close()


def _close_at_exit(reference: weakref.ref[ClientSession]) -> None:
    session = reference()
    if session is not None:
        session.close()
