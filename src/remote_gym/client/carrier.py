"""Carries what an `Exchange` has pending to the server and its answer back, over whichever stream stands."""

from __future__ import annotations

import time

from remote_gym.client.attaching import Attaching
from remote_gym.client.connection import GrpcConnection
from remote_gym.client.retry import Retry
from remote_gym.config import ClientOptions
from remote_gym.errors import ConnectError, ConnectionLost, RemoteGymError
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Exchange, Verdict
from remote_gym.protocol.stream import Stream
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)


class Carrier:
    """The streams of one session, one after another.

    It does the input and output that its `Exchange` decides upon. One thread uses it at a time; any may `detach`.

    Args:
        connection: To the server, on which streams are made.
        session: As the server opened it.
        options: The client's.
        exchange: What numbers requests, and judges what becomes of them.

    Attributes:
        deadline: When the last request has to be answered, on `time.monotonic`.
        packed: The large observation that the newest response lacks, if it does.
        stream: The stream that stands; None if there is none.
    """

    def __init__(
        self, connection: GrpcConnection, session: pb.Session, options: ClientOptions, exchange: Exchange
    ) -> None:
        self._connection = connection
        self._session = session
        self._options = options
        self._exchange = exchange
        self._unlogged: list[str] = []
        self._attaching = Attaching(connection, session, options, self._unlogged)
        self._sent_on: Stream | None = None  # the stream that the pending request was sent on
        self._broken: ConnectError | ConnectionLost | None = None  # what went wrong when it was sent
        self.stream: Stream | None = None
        self.deadline = 0.0
        self.packed: memoryview | None = None

    def attach(self, deadline: float) -> None:
        """Connect now, rather than with the first request, which does what this could not."""
        try:
            if self.stream is None:
                self.stream = self._attaching.attach(deadline)
        except (ConnectError, ConnectionLost) as error:
            logger.debug("session %s: not attached yet: %s", self._session.id, error)
        except BaseException as error:
            if not isinstance(error, RemoteGymError):
                self._connection.renew()
            raise

    def improve(self) -> None:
        """Let the next request try for a direct connection, if that failed some time ago."""
        if self._exchange.pending is None and self._attaching.may_improve(self.stream):
            self.detach()

    def detach(self) -> None:
        """Close the stream that stands."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()

    def fileno(self) -> int | None:
        """Descriptor on which an answer is still to come; None where one cannot wait for it."""
        stream = self.stream
        return None if stream is None or self._sent_on is not stream else stream.fileno()

    def begin(self, request: pb.Request, deadline: float) -> None:
        """Number a request and send it, once an earlier one is answered.

        Raises:
            RemoteGymError: As `finish` does, but not if the connection breaks.
        """
        self.deadline = deadline
        if self._exchange.pending is not None:
            self.finish()  # numbers leave no gaps
        data = self._exchange.begin(request)
        try:
            stream = self._sent_on = self.stream or self._attach()
            stream.send(data, deadline)
        except BaseException as error:  # noqa: BLE001 - it is raised again, unless it is a connection that broke
            self._broken = self._fail(error)

    def finish(self) -> pb.Response:
        """Get the answer to what is pending, however often it has to be asked for.

        Raises:
            SessionLost: If the session has ended.
            ConnectionLost: If the connection broke, and the session is given up.
            DeadlineExceeded: If it did not come in time.
        """
        lost, self._broken = self._broken, None
        retry: Retry | None = None
        while True:
            if lost is not None:
                retry = retry or self._begin_retry(lost)
                self._unlogged.append(f"{lost}; trying to resume")
            try:
                if retry is not None:
                    self._attaching.reach(retry.reach_timeout())
                    retry.made()
                stream = self.stream
                if stream is None or self._sent_on is not stream:
                    stream = self._send_pending()
                response, self.packed = self._exchange.receive(stream.receive(self.deadline))
                self._sent_on = None
                if self._unlogged:
                    self._log()
                return response
            except BaseException as error:  # noqa: BLE001 - as above
                lost = self._fail(error)
            if retry is not None:
                if isinstance(lost, ConnectError):
                    self._log()
                self._pause(retry, lost)

    def _begin_retry(self, lost: ConnectError | ConnectionLost) -> Retry:
        return Retry(
            self._options.retry,
            lost,
            connect_timeout=self._options.connect_timeout,
            reconnect_timeout=self._options.reconnect_timeout,
            lease=self._session.lease,
            deadline=self.deadline,
        )

    def _pause(self, retry: Retry, lost: ConnectError | ConnectionLost) -> None:
        try:
            time.sleep(retry.pause_after(lost))
        except ConnectionLost as error:  # to give the session up: there is nobody to be told to close it
            self._exchange.end(f" ({error})", is_open=False)
            raise

    def _attach(self) -> Stream:
        stream = self.stream = self._attaching.attach(self.deadline)
        if self._exchange.is_over:  # closed by another thread, which has not seen this stream
            raise ConnectionLost(f"session {self._session.id} was closed")
        return stream

    def _send_pending(self) -> Stream:
        assert self._exchange.pending is not None
        stream = self._sent_on = self.stream or self._attach()
        stream.send(self._exchange.pending, self.deadline)
        return stream

    def _fail(self, error: BaseException) -> ConnectError | ConnectionLost:
        """Give up the stream, and decide what a failure means; return it if the request is to be asked again.

        Raises:
            BaseException: The failure, if it is not.
        """
        # First of all, in one line without a call: a second Ctrl-C must find no stream that is out of step.
        stream, self.stream = self.stream, None
        was_over, verdict = self._exchange.is_over, self._exchange.fail(error)
        if stream is not None:
            stream.close()
        if isinstance(error, ConnectError | ConnectionLost):
            if not was_over:
                return error
            raise self._exchange.lost() from error  # another thread has closed it
        if verdict is Verdict.END:
            self._unlogged.clear()  # what is raised says it
        elif not isinstance(error, RemoteGymError) and (stream is None or not stream.is_direct):
            # It may have struck within gRPC, which then can be left with a lock that nobody releases.
            self._connection.renew()
        raise error

    def _log(self) -> None:
        """Log what was held back as long as it could have been the end of the session, which an error reports."""
        for text in self._unlogged:
            logger.warning("session %s: %s", self._session.id, text, repeats=self._session.id, lines=1)
        self._unlogged.clear()
