"""The client's side of a session: it carries what an `Exchange` asks over whichever connection stands."""

from __future__ import annotations

import atexit
import functools
import os
import time
import weakref

from remote_gym.address import Place
from remote_gym.client.attaching import Attaching
from remote_gym.client.connection import GrpcConnection
from remote_gym.client.opening import open_session
from remote_gym.client.retry import Retry
from remote_gym.client.ticket import SessionTicket
from remote_gym.client.turn import Claim, Turn
from remote_gym.config import ClientOptions
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    RemoteGymError,
    SessionError,
)
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Exchange, Verdict
from remote_gym.protocol.stream import Stream
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.large import parse_response
from remote_gym.wire.status import decode_error

logger = get_logger(__name__)


class ClientSession:
    """An open session, and the connection that it uses alone.

    Whatever raises in the midst of a request, a signal's handler or Ctrl-C included, leaves a session that can be used:
    the next request first waits for the answer to the one that was interrupted.

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
        self._turn = Turn()
        self._stream: Stream | None = None
        self._carrier: Stream | None = None  # the stream that the pending request was sent on
        self._broken: ConnectError | ConnectionLost | None = None  # what went wrong when it was sent
        self._closed = False
        self.deadline = 0.0
        """When the last request has to be answered, on `time.monotonic`."""
        self._packed: memoryview | None = None
        try:
            self._session = open_session(connection, request, options)
            if options.connection == "direct" and not self._session.HasField("direct"):
                raise ConnectError(f"connection='direct', and {connection.address} offers no direct connections")
        except BaseException:
            connection.close()
            raise
        self._untold: list[str] = []
        self._attaching = Attaching(connection, self._session, options, self._untold)
        self._exchange = Exchange(self._session.id, options.limits)
        self.first: pb.Response | None = None
        """What answers the request that the opening brought along, if it did."""
        if isinstance(request, pb.OpenRequest) and request.HasField("first"):
            self.first, self._packed = parse_response(self._session.first, options.limits)
            self._exchange.answered = 1
        # A script that ends without closing, by Ctrl-C say, must not keep the server's place for a lease.
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
        answered = self._exchange.answered
        return SessionTicket(url=url, port=port, session=self.id, token=self._session.token, answered=answered)

    @property
    def description(self) -> pb.Description:
        """What the server told about the environment."""
        return self._session.description

    @property
    def lost(self) -> bool:
        """Whether it has ended, or is of no more use."""
        return self._exchange.is_over

    @property
    def is_behind(self) -> bool:
        """Whether the last request has not been answered: its deadline passed, or something interrupted it."""
        return self._exchange.pending is not None

    def attach(self) -> None:
        """Connect to the worker now, rather than with the first request, which does what this could not."""
        deadline = time.monotonic() + self._options.connect_timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            if self._stream is None:
                self._stream = self._attaching.attach(deadline)
        except (ConnectError, ConnectionLost) as error:
            logger.debug("session %s: not attached yet: %s", self.id, error)
        except BaseException as error:
            if not isinstance(error, RemoteGymError):
                self._connection.renew()
            raise
        finally:
            claim.over = True

    def improve(self) -> None:
        """Let the next request try for a direct connection, if that failed some time ago: worth it between episodes."""
        claim = Claim()
        try:
            # Else another thread is using it, and it is no time for that.
            if self._turn.take(claim, 0.0) and not self.is_behind and self._attaching.may_improve(self._stream):
                self._detach()
        finally:
            claim.over = True

    def ask(self, request: pb.Request, timeout: float) -> pb.Response:
        """Number a request, send it, and return what answers it.

        A broken connection is made again, and the request asked again under the same number, so that it runs once.

        Args:
            request: Without a sequence.
            timeout: Seconds.

        Raises:
            SessionLost: If the session has ended.
            ConnectionLost: If the connection broke and could not be made again within ``reconnect_timeout``. The
                session is given up.
            DeadlineExceeded: If no answer came in time. The next request waits for it first.
            RemoteGymError: As the answer says.
        """
        deadline = time.monotonic() + timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            self._begin(request, deadline)
            response = self._finish()
        finally:
            claim.over = True
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
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            self._begin(request, deadline)
        finally:
            claim.over = True

    def receive(self) -> pb.Response:
        """The second half of `ask`: wait for what answers the request that was sent.

        Raises:
            RemoteGymError: As `ask` does.
        """
        claim = Claim()
        try:
            self._take_turn(claim, self.deadline)
            response = self._finish()
        finally:
            claim.over = True
        if response.HasField("error"):
            raise decode_error(response.error)
        return response

    def take_packed(self) -> memoryview | None:
        """The large observation that the newest response lacks, if it does; once."""
        packed, self._packed = self._packed, None
        return packed

    def fileno(self) -> int | None:
        """Descriptor on which an answer is still to come; None where one cannot wait for it."""
        stream = self._stream
        return None if stream is None or self._carrier is not stream else stream.fileno()

    def catch_up(self, timeout: float) -> None:
        """Wait for the answer that was missed, and drop it.

        Raises:
            DeadlineExceeded: If it does not come in time.
            RemoteGymError: As for `ask`.
        """
        deadline = time.monotonic() + timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            self.deadline = deadline
            if self.is_behind:
                self._finish()
        finally:
            claim.over = True

    def take_over(self, timeout: float) -> pb.Response | None:
        """Cut off the process that opened the session, and have the answer to what it asked last once more.

        Returns:
            The answer, an error's included; None if nothing was ever asked.

        Raises:
            ProtocolMismatch: If the server's release cannot tell.
            RemoteGymError: As for `ask`; but not what the answer says.
        """
        deadline = time.monotonic() + timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            self.deadline = deadline
            exchange = self._exchange
            exchange.probe()
            refusal = self._finish()
            if exchange.replay(refusal, dict(self.description.versions)) is None:
                return None
            return self._finish()
        finally:
            claim.over = True

    def let_go(self) -> None:
        """End the connection and not the session, which lives on for its lease. What is asked here then is lost."""
        self._exchange.end(is_open=False)
        self.close()

    def close(self) -> None:
        """Close the environment and the connection. In a forked child it does nothing.

        Waits for no request in progress, which may be another thread's, or the one that a signal interrupted: it ends.
        """
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        to_be_closed = self._exchange.is_open
        self._exchange.end(" (it was closed)", is_open=False)
        self._detach()
        try:
            if to_be_closed:
                self._connection.close_session(self._session.id, self._session.token, self._options.close_timeout)
        except RemoteGymError as error:
            logger.warning("session %s: closing: %s", self.id, error)
        finally:
            self._connection.close()

    def _take_turn(self, claim: Claim, deadline: float) -> None:
        """Begin to use the session, while it can be used. The caller ends the claim."""
        if self._process != os.getpid():
            raise SessionError(
                f"this environment was opened by process {self._process} and this is process {os.getpid()}, a fork of "
                "it; a connection cannot be shared, so create the environment after the fork, or pickle it"
            )
        if not self._turn.take(claim, deadline):
            if self._turn.is_mine():
                raise SessionError(
                    f"session {self.id} is in the midst of a request, which this one has interrupted, as a signal's "
                    "handler does; ask once that has returned"
                )
            raise DeadlineExceeded(f"session {self.id} is busy with another thread's request")
        if self._exchange.is_over:
            raise self._exchange.lost()

    def _begin(self, request: pb.Request, deadline: float) -> None:
        self.deadline = deadline
        if self._exchange.pending is not None:
            self._finish()  # numbers leave no gaps
        data = self._exchange.begin(request)
        try:
            self._send(data)
        except BaseException as error:  # noqa: BLE001 - it is raised again, unless it is a connection that broke
            self._broken = self._fail(error)

    def _finish(self) -> pb.Response:
        """Get the answer to what is pending, however often it has to be asked for."""
        lost, self._broken = self._broken, None
        if lost is None:
            try:
                return self._receive()
            except BaseException as error:  # noqa: BLE001 - as above
                lost = self._fail(error)
        retry = Retry(
            self._options.retry,
            lost,
            connect_timeout=self._options.connect_timeout,
            reconnect_timeout=self._options.reconnect_timeout,
            lease=self._session.lease,
            deadline=self.deadline,
        )
        while True:
            self._untold.append(f"{lost}; trying to resume")
            try:
                self._attaching.reach(retry.reach_timeout())
                retry.made()
                return self._receive()
            except BaseException as error:  # noqa: BLE001 - as above
                lost = self._fail(error)
            if isinstance(lost, ConnectError):
                self._tell()
            self._pause(retry, lost)

    def _pause(self, retry: Retry, lost: ConnectError | ConnectionLost) -> None:
        try:
            time.sleep(retry.pause_after(lost))
        except ConnectionLost as error:  # to give the session up: there is nobody to be told to close it
            self._exchange.end(f" ({error})", is_open=False)
            raise

    def _send(self, data: bytes) -> Stream:
        stream = self._stream
        if stream is None:
            stream = self._stream = self._attaching.attach(self.deadline)
            if self._closed:  # by another thread, which has not seen this one
                raise ConnectionLost(f"session {self.id} was closed")
        self._carrier = stream
        stream.send(data, self.deadline)
        return stream

    def _receive(self) -> pb.Response:
        stream = self._stream
        if stream is None or self._carrier is not stream:
            assert self._exchange.pending is not None
            stream = self._send(self._exchange.pending)
        response, self._packed = self._exchange.receive(stream.receive(self.deadline))
        if self._untold:
            self._tell()
        return response

    def _fail(self, error: BaseException) -> ConnectError | ConnectionLost:
        """Give up the stream, and decide what a failure means; return it if the request is to be asked again.

        Raises:
            BaseException: The failure, if it is not.
        """
        # First of all, in one line without a call: a second Ctrl-C must find no stream that is out of step.
        stream, self._stream = self._stream, None
        was_over, verdict = self._exchange.is_over, self._exchange.fail(error)
        if stream is not None:
            stream.close()
        if isinstance(error, ConnectError | ConnectionLost):
            if not was_over:
                return error
            raise self._exchange.lost() from error  # another thread has closed it
        if verdict is Verdict.END:
            self._untold.clear()  # what is raised says it
        elif not isinstance(error, RemoteGymError) and (stream is None or not stream.is_direct):
            # It may have struck within gRPC, which then can be left with a lock that nobody releases.
            self._connection.renew()
        raise error

    def _detach(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _tell(self) -> None:
        """Log what was held back as long as it could have been the end of the session, which an error tells."""
        for text in self._untold:
            logger.warning("session %s: %s", self.id, text, repeats=self.id, lines=1)
        self._untold.clear()


def _close_at_exit(reference: weakref.ref[ClientSession]) -> None:
    session = reference()
    if session is not None:
        session.close()
