"""The client's side of a session: it carries what an `Exchange` asks over whichever connection stands."""

from __future__ import annotations

import functools
import logging
import os
import time

from remote_gym.client import dropped
from remote_gym.client.carrier import Line
from remote_gym.client.connect import forking
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.rules.operations import perform
from remote_gym.client.rules.session import OpenSession
from remote_gym.client.turn import Claim, Turn
from remote_gym.config import ClientOptions
from remote_gym.errors import DeadlineExceeded, SessionError
from remote_gym.protocol.exchange import Answer, unless_error
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb


class ClientSession(OpenSession):
    """An open session whose calls block, for one thread after another. Arguments are those of `OpenSession`.

    A signal's handler, or Ctrl-C, may strike anywhere: the next request first waits for the answer to the one that was
    interrupted. `open` and `find` make one.
    """

    _connection: GrpcConnection

    def __init__(
        self, connection: GrpcConnection, session: pb.Session, options: ClientOptions, first: Answer | None = None
    ) -> None:
        self._turn = Turn()
        super().__init__(connection, session, options, first)

    @classmethod
    def open(cls, connection: GrpcConnection, request: pb.OpenRequest, options: ClientOptions) -> ClientSession:
        """Have the server open a session; see `OpenSession.opening`."""
        return perform(cls.opening(connection, request, options))

    @classmethod
    def find(cls, connection: GrpcConnection, ticket: SessionTicket, options: ClientOptions) -> ClientSession:
        """Find the session that another process has opened; see `OpenSession.finding`."""
        return perform(cls.finding(connection, ticket, options))

    def attach(self) -> None:
        """Connect to the worker now, rather than with the first request, which does what this could not."""
        deadline = time.monotonic() + self._options.connect_timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            perform(self._carrier.attaching(deadline))
        finally:
            claim.over = True

    def improve(self) -> None:
        """Let the next request try for a direct connection; see `OpenSession`."""
        claim = Claim()
        try:
            # Else another thread is using it, and it is no time for that.
            if self._turn.take(claim, 0.0):
                self._carrier.improve()
        finally:
            claim.over = True

    def ask(self, request: pb.Request, timeout: float) -> Answer:
        """Send a request and return its answer; see `OpenSession`."""
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
        """Wait for the answer that was missed, and drop it; see `OpenSession`."""
        deadline = time.monotonic() + timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            perform(self._catching_up(deadline))
        finally:
            claim.over = True

    def take_over(self, timeout: float) -> Answer | None:
        """Cut off the process that opened the session; see `OpenSession`."""
        deadline = time.monotonic() + timeout
        claim = Claim()
        try:
            self._take_turn(claim, deadline)
            return perform(self._taking_over(deadline))
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
        perform(self._closing(self._options.close_timeout, logging.WARNING))

    def close_at_exit(self, timeout: float) -> None:
        """Close it within so many seconds. Says nothing if that fails: the server may have gone before the script."""
        perform(self._closing(min(timeout, self._options.close_timeout), logging.DEBUG))

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

    def _closer(self, line: Line) -> dropped.Close:
        session = self._session
        return functools.partial(
            dropped.close_dropped, self._connection, session.id, session.token, self._exchange, line
        )

    def _take_turn(self, claim: Claim, deadline: float) -> None:
        """Begin to use the session, while it can be used. The caller ends the claim."""
        if self._process != os.getpid():
            raise self._in_a_fork()
        if not self._turn.take(claim, deadline):
            if self._turn.is_mine():
                raise SessionError(
                    f"session {self.id} is in the midst of a request, which this one has interrupted, as a signal's "
                    "handler does; ask once that has returned"
                )
            raise DeadlineExceeded(f"session {self.id} is busy with another thread's request")
        if self._exchange.is_over:
            raise self._exchange.ended_error()
