"""The exactly-once rule of a client: numbered requests, each answered once. Pure: no input, no output, no clock."""

from __future__ import annotations

import enum
from typing import TypeAlias

from remote_gym.config import Limits
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    LossReason,
    OutOfSequence,
    RemoteGymError,
    SessionLost,
)
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.splice import parse_response

Answer: TypeAlias = tuple[pb.Response, memoryview | None]
"""A response, and the large observation that it lacks, as `remote_gym.wire.splice.parse_response` returns them."""


def unless_error(answer: Answer) -> Answer:
    """The answer itself.

    Raises:
        RemoteGymError: As it says, if it is an error.
    """
    response = answer[0]
    if response.HasField("error"):
        raise decode_error(response.error)
    return answer


class Verdict(enum.Enum):
    """Decision on a session after a failure. The stream that was in use is given up in any case."""

    ASK_AGAIN = enum.auto()
    """The connection broke: make another, and send the same request once more."""
    KEEP = enum.auto()
    """The request stays unanswered, and the session can be used: the next request waits for that answer first."""
    END = enum.auto()
    """The session has ended, or is of no more use; the failure says why."""
    OVER = enum.auto()
    """It had ended before, by another thread or a signal's handler, and the connection with it: say that instead."""


class Exchange:
    """The requests of one session, one at a time, and what their answers and failures mean.

    A request has a number, and its bytes are kept until it is answered, so that they can be sent again over another
    connection. The server answers a number it has answered already by the same response, so the environment steps once.

    The caller does the rest: it sends `pending`, hands what arrives to `receive`, whatever goes wrong to `fail`, and
    waits as long as it likes.

    Args:
        session: The session's id, for errors.
        limits: Bounds on requests and answers.
        answered: The last number that has been answered.

    Attributes:
        answered: The last number that has been answered.
        pending: The encoded request that is unanswered; None if there is none.
        is_over: Whether nothing more can be asked.
        is_open: Whether the server still has the session, as far as one knows, so that it should be told to close it.
    """

    def __init__(self, session: str, limits: Limits, answered: int = 0) -> None:
        self._session = session
        self._limits = limits
        # Not the error that ended it: its traceback refers to the caller, which would then never be freed.
        self._text = self._why = self._output = ""
        self._reason = LossReason.UNKNOWN
        self.answered = answered
        self.pending: bytes | None = None
        self.is_over = False
        self.is_open = True

    def begin(self, request: pb.Request) -> bytes:
        """Number a request, and keep it.

        Args:
            request: Gets its number.

        Returns:
            What to send.

        Raises:
            SessionLost: If the session is over.
            EncodingError: If the request is over the limit. It has used up no number.
        """
        if self.is_over:
            raise self.ended_error()
        assert self.pending is None, "numbers leave no gaps"
        request.sequence = self.answered + 1
        data = request.SerializeToString()
        if len(data) > (limit := self._limits.message_bytes):
            raise EncodingError(f"the request has {len(data):,} bytes; Limits.message_bytes allows {limit:,}")
        self.pending = data
        return data

    def receive(self, data: bytes | memoryview) -> Answer:
        """Take what arrived.

        Returns:
            What answers the pending request, an error of the environment's included. Nothing is pending then.

        Raises:
            RemoteGymError: If it is an error of the session as a whole; to be handed to `fail`, as any other.
            EncodingError: If it is no answer to the pending request.
        """
        answer = parse_response(data, self._limits)
        response = answer[0]
        # Together, without a call in between: a signal's handler that raises must not find one without the other.
        if self.pending is not None and response.sequence == self.answered + 1:
            self.answered += 1
            self.pending = None
            return answer
        if response.sequence == 0 and response.HasField("error"):
            raise decode_error(response.error)
        raise EncodingError(f"response {response.sequence} came to request {self.answered + 1}")

    def fail(self, error: BaseException) -> Verdict:
        """Decide what a failure means: of sending, of receiving, or of what came from elsewhere in the midst of it.

        - A connection that broke is no answer: the request is asked again, unless it broke because the session ended.
        - A deadline that passed is none either. The answer may still come, and is the next request's to wait for.
        - An exception that is not ours came from elsewhere: Ctrl-C, a signal's handler, a time limit. It says nothing
          about the session, which stands as after a deadline.
        - Whatever else is ours would be the same again: what cannot be read, what a session that ended says, or one
          that belongs to another client by now. It ends the session; only what cannot be read leaves it open at the
          server.
        """
        if isinstance(error, ConnectError | ConnectionLost):
            return Verdict.OVER if self.is_over else Verdict.ASK_AGAIN
        if isinstance(error, DeadlineExceeded) or not isinstance(error, RemoteGymError):
            return Verdict.KEEP
        if isinstance(error, SessionLost) and not self.is_over:  # which names session and reason itself
            self._text, self._reason, self._output = str(error), error.reason, error.output
        self.end(f" ({error})", is_open=isinstance(error, EncodingError))
        return Verdict.END

    def end(self, why: str = "", *, is_open: bool) -> None:
        """Nothing more can be asked.

        Args:
            why: Goes on where an error says that the session has ended. The first reason is the one that counts.
            is_open: Whether the server should still be told to close it. What need not be closed stays so.
        """
        self.is_open = self.is_open and is_open
        if not self.is_over:
            self.is_over, self._why = True, why

    def ended_error(self) -> SessionLost:
        """A new error for what is asked of a session that is over."""
        text = self._text or f"session {self._session} has ended{self._why}"
        return SessionLost(f"{text}; reset opens a new one", reason=self._reason, output=self._output)

    # ----------------------------------------------------------------------------------------------------------
    # Going on with what another process has begun

    def probe(self) -> bytes:
        """Ask where the session stands: the number 0 is always refused, with what was answered last."""
        self.answered = -1
        self.pending = None
        return self.begin(pb.Request())

    def replay(self, refusal: pb.Response) -> bytes | None:
        """Ask for the newest answer once more, now that it is known where the session stands.

        Args:
            refusal: What answered the probe.

        Returns:
            What to send; None if nothing was ever asked.

        Raises:
            OutOfSequence: If another process has taken the session over meanwhile.
            RemoteGymError: As the refusal says otherwise.
        """
        error = decode_error(refusal.error)
        # Both are refused under the number 0: the probe, and the client that comes second in a race for a ticket.
        if not isinstance(error, OutOfSequence) or error.answered is None:
            self.fail(error)
            raise error
        self.answered = error.answered
        if error.answered == 0:
            return None
        # What is asked does not matter: by its number it gets the answer that is there.
        self.answered -= 1
        return self.begin(pb.Request())
