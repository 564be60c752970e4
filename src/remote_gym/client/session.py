"""The client's side of a session: it carries what an `Exchange` asks over whichever connection stands."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from typing import Literal

from remote_gym.address import Place
from remote_gym.client import dropped
from remote_gym.client.carrier import Carrier, Line
from remote_gym.client.connect import forking
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.opening import find_session, open_session
from remote_gym.client.connect.rpc_errors import what_struck
from remote_gym.client.turn import Claim, Turn
from remote_gym.config import ClientOptions
from remote_gym.errors import (
    ConnectError,
    ConnectReason,
    DeadlineExceeded,
    RemoteGymError,
    SessionError,
)
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Answer, Exchange, unless_error
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.splice import parse_response

logger = get_logger(__name__)


class ClientSession:
    """An open session, and the connection that it uses alone.

    Whatever raises in the midst of a request, a signal's handler or Ctrl-C included, leaves a session that can be used:
    the next request first waits for the answer to the one that was interrupted.

    `open` and `find` make one. The constructor does no input or output.

    Args:
        connection: To the server; closed with the session.
        session: As the server opened it.
        options: The client's.
        first: What answered the request that the opening brought along, if it did.

    Raises:
        ConnectError: If there is no direct connection, and ``connection="direct"`` asks for one.
    """

    def __init__(
        self, connection: GrpcConnection, session: pb.Session, options: ClientOptions, first: Answer | None = None
    ) -> None:
        if options.connection == "direct" and not session.HasField("direct"):
            text = f"connection='direct', and {connection.address} offers no direct connections"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT)
        self._connection = connection
        self._session = session
        self._options = options
        self._process = os.getpid()
        self._turn = Turn()
        self._closed = False
        self.first = first
        self._exchange = Exchange(session.id, options.message_limits, answered=0 if first is None else 1)
        line = Line()
        self._carrier = Carrier(connection, session, options, self._exchange, line)
        # What is dropped, or left by a script that ends, must not keep the server's place for a lease.
        close = functools.partial(dropped.close_dropped, connection, session.id, session.token, self._exchange, line)
        self._forget = dropped.see_to(self, close, options.close_timeout)

    @classmethod
    def open(cls, connection: GrpcConnection, request: pb.OpenRequest, options: ClientOptions) -> ClientSession:
        """Have the server open a session.

        Args:
            connection: Closed with the session, or if there is none.
            request: What to open.
            options: The client's.

        Raises:
            TransportError: If the server could not be reached, the connection broke, or opening took too long.
            RemoteGymError: If the server did not open it, as the server says.
        """
        opened: pb.Session | None = None
        try:
            opened = open_session(connection, request, options)
            first = parse_response(opened.first, options.message_limits) if request.HasField("first") else None
            return cls(connection, opened, options, first)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            struck = what_struck(error)
            _abandon(connection, struck, opened, options.close_timeout)
            raise struck from struck.__cause__

    @classmethod
    def find(cls, connection: GrpcConnection, ticket: SessionTicket, options: ClientOptions) -> ClientSession:
        """Find the session that another process has opened, which `take_over` then gets hold of.

        Raises:
            TransportError: If the server could not be reached, or the connection broke.
            RemoteGymError: If it has no such session, or not for this client.
        """
        try:
            return cls(connection, find_session(connection, ticket, options), options)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            struck = what_struck(error)
            _abandon(connection, struck, None, options.close_timeout)  # it is not this client's to close
            raise struck from struck.__cause__

    @property
    def id(self) -> str:
        """Names the session in logs and errors; no secret."""
        return self._session.id

    @property
    def identity(self) -> str:
        """Identity by which the server knows this client, such as ``"DNS:alice"``; empty without an identity."""
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
    def connected_over(self) -> Literal["direct", "grpc"] | None:
        """Way that requests and answers take now; None if there is none, or the session has ended."""
        stream = self._carrier.stream
        if stream is None or self.lost:
            return None
        return "direct" if stream.is_direct else "grpc"

    @property
    def ticket(self) -> SessionTicket:
        """Ticket by which another process goes on from here."""
        url, port = self.place
        answered = self._exchange.answered
        return SessionTicket(url=url, port=port, session=self.id, token=self._session.token, answered=answered)

    @property
    def description(self) -> pb.Description:
        """The server's description of the environment."""
        return self._session.description

    @property
    def lost(self) -> bool:
        """Whether it has ended, or is of no more use."""
        return self._exchange.is_over

    @property
    def is_behind(self) -> bool:
        """Whether the last request has not been answered: its deadline passed, or something interrupted it."""
        return self._exchange.pending is not None

    @property
    def deadline(self) -> float:
        """When the last request has to be answered, on `time.monotonic`."""
        return self._carrier.deadline

    def attach(self) -> None:
        """Connect to the worker now, rather than with the first request, which does what this could not."""
        deadline = time.monotonic() + self._options.connect_timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            self._carrier.attach(deadline)
        finally:
            claim.over = True

    def improve(self) -> None:
        """Let the next request try for a direct connection, if that failed some time ago: worth it between episodes."""
        claim = Claim()
        try:
            # Else another thread is using it, and it is no time for that.
            if self._turn.take(claim, 0.0):
                self._carrier.improve()
        finally:
            claim.over = True

    def ask(self, request: pb.Request, timeout: float) -> Answer:
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
            self._carrier.begin(request, deadline)
            answer = self._carrier.finish()
        finally:
            claim.over = True
        # After the turn: decoding the error is no use of the session, and may raise whatever the environment raised.
        return unless_error(answer)

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
            self._carrier.begin(request, deadline)
        finally:
            claim.over = True

    def receive(self) -> Answer:
        """The second half of `ask`: wait for what answers the request that was sent.

        Raises:
            RemoteGymError: As `ask` does.
        """
        claim = Claim()
        try:
            self._take_turn(claim, self._carrier.deadline)
            answer = self._carrier.finish()
        finally:
            claim.over = True
        return unless_error(answer)

    def fileno(self) -> int | None:
        """Descriptor on which an answer is still to come; None where one cannot wait for it."""
        return self._carrier.fileno()

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
            self._carrier.deadline = deadline
            if self.is_behind:
                self._carrier.finish()
        finally:
            claim.over = True

    def take_over(self, timeout: float) -> Answer | None:
        """Cut off the process that opened the session, and have the answer to what it asked last once more.

        Returns:
            The answer, an error's included; None if nothing was ever asked.

        Raises:
            OutOfSequence: If yet another process has taken the session over.
            RemoteGymError: As for `ask`; but not what the answer says.
        """
        deadline = time.monotonic() + timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            self._carrier.deadline = deadline
            exchange = self._exchange
            exchange.probe()
            refusal, _ = self._carrier.finish()
            if exchange.replay(refusal) is None:
                return None
            return self._carrier.finish()
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
        self._close(self._options.close_timeout, logging.WARNING)

    def close_at_exit(self, timeout: float) -> None:
        """Close it within so many seconds. Says nothing if that fails: the server may have gone before the script."""
        self._close(min(timeout, self._options.close_timeout), logging.DEBUG)

    def before_fork(self, deadline: float) -> None:
        """Leave an idle stream over gRPC, which no fork may see; see `remote_gym.client.connect.forking`."""
        stream = self._carrier.stream
        if stream is not None and stream.is_direct:
            return
        if stream is None or not stream.is_settled:
            deadline += forking.LONGEST_CONNECT
        claim = Claim()
        try:
            # Else another thread is using it, and its stream.
            if self._turn.take(claim, deadline) and not self.is_behind:
                self._connection.suspend()  # or the next thread, whose turn it is then, would attach at once
                self._carrier.detach()
        finally:
            claim.over = True

    def _close(self, timeout: float, level: int) -> None:
        if self._closed or self._process != os.getpid():
            return
        exchange = self._exchange
        try:
            # First, so that a signal's handler that closes it as well finds it closed; undone below if this is struck.
            self._closed = True
            exchange.end(" (it was closed)", is_open=exchange.is_open)
            self._carrier.detach()
            if exchange.is_open:
                try:
                    self._connection.close_session(self.id, self._session.token, timeout)
                except RemoteGymError as error:
                    logger.log(level, "session %s: closing: %s", self.id, error)
                exchange.end(is_open=False)
            self._forget()
            self._connection.close()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._connection.renew()  # it may have struck within gRPC, and left a lock that nobody releases
            self._closed = False  # for another `close`, or the one at exit
            struck = what_struck(error)
            raise struck from struck.__cause__

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
            raise self._exchange.ended_error()


def _abandon(connection: GrpcConnection, error: BaseException, opened: pb.Session | None, close_timeout: float) -> None:
    """Leave nothing behind of a session that could not be made.

    Args:
        connection: To the server.
        error: Why.
        opened: What the server has opened for this, and nobody would close; None if there is nothing.
        close_timeout: Seconds that closing may take.
    """
    if not isinstance(error, RemoteGymError):
        with contextlib.suppress(RuntimeError):  # where no thread can be started, as little as `error` may say
            connection.renew()
    try:
        if opened is not None:
            connection.close_session(opened.id, opened.token, close_timeout)
    except RemoteGymError as failure:
        logger.debug("session %s: closing what could not be used: %s", opened and opened.id, failure)
    finally:
        connection.close()
