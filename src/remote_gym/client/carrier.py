"""Carries what an `Exchange` has pending to the server and its answer back, over whichever stream stands."""

from __future__ import annotations

import time
from collections.abc import Callable

from remote_gym.client.connect.choose import DIRECT_TIMEOUT, Attaching
from remote_gym.client.connect.retry import Retry
from remote_gym.client.connect.rpc_errors import what_struck
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import Operations, perform
from remote_gym.config import ClientOptions
from remote_gym.errors import ConnectError, ConnectionLost, RemoteGymError, SessionLost
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Answer, Exchange, Verdict
from remote_gym.protocol.stream import Stream
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)


class Line:
    """Which stream of a session stands; None if none does. It holds nothing of who uses it, so it may outlive that."""

    stream: Stream | None = None


class Carrier:
    """The streams of one session, one after another.

    It does the input and output that its `Exchange` decides upon. One thread uses it at a time; any may `detach`.

    What becomes of a request is said once, by `beginning` and `finishing`, for those who block and those who await.
    `begin` and `finish` block, and come to these rules only where no stream stands or something went wrong: what a step
    does as a rule it does without them.

    Args:
        connection: To the server, on which streams are made.
        session: As the server opened it.
        options: The client's.
        exchange: What numbers requests, and judges what becomes of them.
        line: Gets the stream that stands.
        sleep: Waits for so many seconds: blocks, or is awaited, as what `connection` does.
        patience: Seconds to try for a direct connection.

    Attributes:
        deadline: When the last request has to be answered, on `time.monotonic`.
    """

    def __init__(
        self,
        connection: Connection,
        session: pb.Session,
        options: ClientOptions,
        exchange: Exchange,
        line: Line,
        sleep: Callable[[float], object] | None = None,
        patience: float = DIRECT_TIMEOUT,
    ) -> None:
        self._connection = connection
        self._session = session
        self._options = options
        self._exchange = exchange
        self._line = line
        self._sleep = sleep or _sleep
        self._unlogged: list[str] = []
        self._attaching = Attaching(connection, session, options, self._unlogged, patience)
        self._sent_on: Stream | None = None  # the stream that the pending request was sent on
        self._broken: ConnectError | ConnectionLost | None = None  # what went wrong when it was sent
        # Whether the stream is in use, or was when something struck. It is set before and reset after all that could
        # put the stream out of step, as a second exception may strike on the first line of the handler of the first.
        self._midway = False
        self.deadline = 0.0

    @property
    def stream(self) -> Stream | None:
        """The stream that stands; None if there is none."""
        return self._line.stream

    def attaching(self, deadline: float) -> Operations[None]:
        """Connect now, rather than with the first request, which does what this could not."""
        if self._line.stream is not None:
            return
        self._midway = True
        try:
            yield from self._attaching_anew(deadline)
        except GeneratorExit:
            raise
        except (ConnectError, ConnectionLost) as error:
            logger.debug("session %s: not attached yet: %s", self._session.id, error)
            self._give_up(renew=False)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            struck = what_struck(error)
            self._give_up(renew=not isinstance(struck, RemoteGymError))
            raise struck from struck.__cause__
        self._midway = False

    def improve(self) -> None:
        """Let the next request try for a direct connection, if that failed some time ago."""
        if self._exchange.pending is None and self._attaching.may_improve(self._line.stream):
            self.detach()

    def detach(self) -> None:
        """Close the stream that stands."""
        stream, self._line.stream = self._line.stream, None
        if stream is not None:
            stream.close()

    def fileno(self) -> int | None:
        """Descriptor on which an answer is still to come; None where one cannot wait for it."""
        stream = self._line.stream
        return None if stream is None or self._midway or self._sent_on is not stream else stream.fileno()

    def begin(self, request: pb.Request, deadline: float) -> None:
        """Number a request and send it, once an earlier one is answered.

        Raises:
            RemoteGymError: As `finish` does, but not if the connection breaks.
        """
        stream = self._line.stream
        if stream is None or self._midway or self._exchange.pending is not None:
            return perform(self.beginning(request, deadline))
        self.deadline = deadline
        data = self._exchange.begin(request)
        try:
            self._midway = True
            self._sent_on = stream
            stream.send(data, deadline)
            self._midway = False
        except BaseException as error:  # noqa: BLE001 - it is raised again, unless it is a connection that broke
            self._broken = self._fail(error)

    def finish(self) -> Answer:
        """Get the answer to what is pending, however often it has to be asked for; an error's included.

        Raises:
            SessionLost: If the session has ended.
            ConnectionLost: If the connection broke, and the session is given up.
            DeadlineExceeded: If it did not come in time.
        """
        stream = self._line.stream
        if stream is None or self._midway or self._broken is not None or self._sent_on is not stream:
            return perform(self.finishing())
        try:
            self._midway = True
            answer = self._exchange.receive(stream.receive(self.deadline))
            self._sent_on = None
            self._midway = False
        except BaseException as error:  # noqa: BLE001 - as above
            self._broken = self._fail(error)
        else:
            if self._unlogged:
                self._log()
            return answer
        return perform(self.finishing())

    def beginning(self, request: pb.Request, deadline: float) -> Operations[None]:
        """Do as `begin`."""
        self.deadline = deadline
        if self._midway:
            self._give_up(renew=True)
        if self._exchange.pending is not None:
            yield from self.finishing()  # numbers leave no gaps
        data = self._exchange.begin(request)
        try:
            self._midway = True
            stream = self._sent_on = self._line.stream or (yield from self._attaching_anew(deadline))
            yield lambda: stream.send(data, deadline)
            self._midway = False
        except GeneratorExit:  # what drives this was struck; whoever comes next finds it midway
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            self._broken = self._fail(error)

    def finishing(self) -> Operations[Answer]:
        """Do as `finish`."""
        if self._midway:
            self._give_up(renew=True)
        broken, self._broken = self._broken, None
        retry: Retry | None = None
        while True:
            if broken is not None:
                retry = retry or self._begin_retry(broken)
                self._unlogged.append(f"{broken}; trying to resume")
            try:
                self._midway = True
                if retry is not None:
                    yield from self._reaching(retry)
                answer = self._exchange.receive((yield from self._receiving()))
                self._sent_on = None
                self._midway = False
                break
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - as above
                broken = self._fail(error)
            if retry is not None:
                if isinstance(broken, ConnectError):
                    self._log()
                    # A kind of line of its own: of breaks there may have been one a moment ago, which was mended.
                    what = (self._session.id, str(broken))  # as text: a log that keeps it keeps no session
                    logger.warning("session %s: not resumed yet: %s", *what, repeats=self._session.id, lines=1)
                yield from self._pausing(retry, broken)
        # Else an error and this frame would refer to each other, and to all that the session has.
        broken = retry = None
        if self._unlogged:
            self._log()
        return answer

    def _begin_retry(self, broken: ConnectError | ConnectionLost) -> Retry:
        return Retry(
            self._options.retry,
            broken,
            connect_timeout=self._options.connect_timeout,
            reconnect_timeout=self._options.reconnect_timeout,
            lease=self._session.lease,
            deadline=self.deadline,
        )

    def _reaching(self, retry: Retry) -> Operations[None]:
        if self._exchange.is_over:  # closed meanwhile, and with it what could be reached by
            raise self._exchange.ended_error()
        yield from self._attaching.reaching(retry.reach_timeout())
        retry.made()

    def _pausing(self, retry: Retry, broken: ConnectError | ConnectionLost) -> Operations[None]:
        try:
            seconds = retry.pause_after(broken)
        except ConnectionLost as error:  # to give the session up: there is nobody to be told to close it
            self._exchange.end(f" ({error})", is_open=False)
            raise
        yield lambda: self._sleep(seconds)

    def _attaching_anew(self, deadline: float) -> Operations[Stream]:
        stream = self._line.stream = yield from self._attaching.attaching(deadline)
        if self._exchange.is_over:  # closed by another thread, which has not seen this stream
            raise ConnectionLost(f"session {self._session.id} was closed")
        return stream

    def _receiving(self) -> Operations[bytes | memoryview]:
        """Receive an answer, once what is pending was sent on the stream that stands."""
        stream, pending, deadline = self._line.stream, self._exchange.pending, self.deadline
        if stream is None or self._sent_on is not stream:
            assert pending is not None
            stream = self._sent_on = stream or (yield from self._attaching_anew(deadline))
            yield lambda: stream.send(pending, deadline)
        data: bytes | memoryview = yield lambda: stream.receive(deadline)
        return data

    def _fail(self, error: BaseException) -> ConnectError | ConnectionLost:
        """Give up the stream, and do as the exchange decides; return the failure if the request is to be asked again.

        Raises:
            BaseException: The failure, if it is not.
        """
        error = what_struck(error)
        verdict = self._exchange.fail(error)
        self._give_up(renew=not isinstance(error, RemoteGymError))
        if verdict is Verdict.ASK_AGAIN:
            assert isinstance(error, ConnectError | ConnectionLost)
            return error
        if verdict is Verdict.OVER:
            raise self._exchange.ended_error() from error
        if verdict is Verdict.END:
            self._unlogged.clear()  # what is raised says it
            if isinstance(error, SessionLost):
                raise self._exchange.ended_error() from error
        try:
            raise error from error.__cause__  # rather than from what `error` was hidden by
        finally:
            del error  # which this frame, that its trace refers to, would keep, with all that the session has

    def _give_up(self, *, renew: bool) -> None:
        """Close a stream that is out of step, as any is that something happened to.

        Args:
            renew: Whether that may have struck within gRPC, which then can be left with a lock that nobody releases.
        """
        stream = self._line.stream
        if stream is not None:
            # Before it is let go of: closing it hands gRPC's call to another thread. Freed here, a call that was
            # interrupted may never return. If another exception strikes, it is closed twice, which does no harm.
            stream.close()
            self._line.stream = None
        if renew and (stream is None or not stream.is_direct) and not self._exchange.is_over:
            self._connection.renew()
        self._midway = False

    def _log(self) -> None:
        """Log what was held back as long as it could have been the end of the session, which an error reports."""
        for text in self._unlogged:
            logger.warning("session %s: %s", self._session.id, text, repeats=self._session.id, lines=1)
        self._unlogged.clear()


def _sleep(seconds: float) -> None:
    time.sleep(seconds)
