"""The exactly-once rule of a client, without a connection."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_gym.config import Limits
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    LossReason,
    NotPermitted,
    OutOfSequence,
    RemoteEnvironmentError,
    RemoteGymError,
    SessionLost,
)
from remote_gym.protocol.exchange import Exchange, Verdict
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import encode_error


class TimeLimit(Exception):
    """What a signal's handler of a trainer's may raise."""


def step() -> pb.Request:
    return pb.Request(step=pb.StepRequest(packed=b"\1"))


def answer(sequence: int, error: RemoteGymError | None = None) -> bytes:
    response = pb.Response(sequence=sequence, step=pb.Transition(reward_float=1.0))
    if error is not None:
        response.error.CopyFrom(encode_error(error))
    return response.SerializeToString()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange("s", Limits())


def test_requests_are_numbered_from_one_and_kept_until_they_are_answered(exchange):
    for number in (1, 2, 3):
        data = exchange.begin(step())
        assert pb.Request.FromString(data).sequence == number
        assert exchange.pending == data
        response, _ = exchange.receive(answer(number))
        assert response.sequence == exchange.answered == number
        assert exchange.pending is None


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectError("nobody there"), Verdict.ASK_AGAIN),
        (ConnectionLost("the line broke"), Verdict.ASK_AGAIN),
        (DeadlineExceeded("late"), Verdict.KEEP),
        (KeyboardInterrupt(), Verdict.KEEP),
        (SystemExit(), Verdict.KEEP),
        (TimeLimit(), Verdict.KEEP),
        (MemoryError(), Verdict.KEEP),
    ],
)
def test_what_says_nothing_about_the_session_leaves_the_request_to_be_answered(exchange, error, verdict):
    data = exchange.begin(step())
    assert exchange.fail(error) is verdict
    assert exchange.pending == data
    assert not exchange.is_over
    exchange.receive(answer(1))
    assert pb.Request.FromString(exchange.begin(step())).sequence == 2


@pytest.mark.parametrize(
    ("error", "is_open"),
    [
        (SessionLost("gone"), False),
        (NotPermitted("not yours"), False),
        (OutOfSequence("taken over"), False),
        (EncodingError("unreadable"), True),
    ],
)
def test_what_would_be_the_same_again_ends_the_session_and_says_whether_the_server_has_it(exchange, error, is_open):
    exchange.begin(step())
    assert exchange.fail(error) is Verdict.END
    assert exchange.is_over
    assert exchange.is_open is is_open
    with pytest.raises(SessionLost, match=f"{error}.?; reset opens a new one"):
        exchange.begin(step())


def test_the_kind_and_the_output_of_a_loss_are_kept_for_whoever_asks_later(exchange):
    exchange.begin(step())
    exchange.fail(SessionLost("gone", reason=LossReason.CRASHED, output="last lines"))
    error = exchange.ended_error()
    assert (error.reason, error.output) == (LossReason.CRASHED, "last lines")


def test_the_first_end_is_the_one_that_counts(exchange):
    exchange.end(" (it was closed)", is_open=False)
    exchange.fail(EncodingError("unreadable"))
    assert not exchange.is_open
    assert "it was closed" in str(exchange.ended_error())


def test_what_ended_unreadable_and_is_let_go_need_not_be_closed(exchange):
    """As by a resume that was refused: the session may be resumed otherwise."""
    exchange.fail(EncodingError("unreadable"))
    assert exchange.is_open
    exchange.end(" (it was let go)", is_open=False)
    assert not exchange.is_open
    assert "unreadable" in str(exchange.ended_error())


def test_a_connection_that_broke_since_the_session_was_closed_is_not_made_again(exchange):
    exchange.begin(step())
    exchange.end(" (it was closed)", is_open=False)
    assert exchange.fail(ConnectionLost("the line broke")) is Verdict.OVER


def test_an_ended_exchange_holds_nothing_of_whoever_asked(exchange):
    class Caller:
        pass

    def ask() -> weakref.ref[Caller]:
        caller = Caller()
        try:
            raise SessionLost("gone")
        except SessionLost as error:
            exchange.fail(error)
        return weakref.ref(caller)

    caller = ask()
    gc.collect()
    assert caller() is None
    assert exchange.ended_error() is not exchange.ended_error()


def test_an_error_of_the_request_answers_it_and_one_of_the_session_is_raised(exchange):
    exchange.begin(step())
    response, _ = exchange.receive(answer(1, RemoteEnvironmentError("KeyError", "x")))
    assert response.HasField("error")
    exchange.begin(step())
    with pytest.raises(SessionLost, match="gone"):
        exchange.receive(answer(0, SessionLost("gone")))
    assert exchange.pending is not None


@pytest.mark.parametrize("sequence", [0, 1, 3, 7])
def test_an_answer_to_another_request_answers_nothing(exchange, sequence):
    exchange.begin(step())
    exchange.receive(answer(1))
    exchange.begin(step())
    with pytest.raises(EncodingError, match=f"response {sequence} came to request 2"):
        exchange.receive(answer(sequence))
    assert exchange.pending is not None


def test_a_request_over_the_limit_uses_up_no_number():
    exchange = Exchange("s", Limits(message_bytes=100))
    with pytest.raises(EncodingError, match="100"):
        exchange.begin(pb.Request(step=pb.StepRequest(packed=bytes(200))))
    assert exchange.pending is None
    assert pb.Request.FromString(exchange.begin(step())).sequence == 1


def refused(answered: int | None) -> OutOfSequence:
    error = OutOfSequence("no")
    error.answered = answered
    return error


def test_who_goes_on_asks_for_the_newest_answer_once_more(exchange):
    assert pb.Request.FromString(exchange.probe()).sequence == 0
    refusal, _ = exchange.receive(answer(0, refused(5)))
    assert pb.Request.FromString(exchange.replay(refusal)).sequence == 5
    exchange.receive(answer(5))
    assert pb.Request.FromString(exchange.begin(step())).sequence == 6


def test_who_goes_on_where_nothing_was_asked_begins_at_one(exchange):
    exchange.probe()
    refusal, _ = exchange.receive(answer(0, refused(0)))
    assert exchange.replay(refusal) is None
    assert pb.Request.FromString(exchange.begin(step())).sequence == 1


def test_who_comes_second_in_a_race_for_a_ticket_hears_just_that(exchange):
    exchange.probe()
    refusal, _ = exchange.receive(answer(0, OutOfSequence("a newer connection has taken it over")))
    with pytest.raises(OutOfSequence, match="taken it over"):
        exchange.replay(refusal)
    assert exchange.is_over
    assert not exchange.is_open  # it is another's


class AgainstAServer(RuleBasedStateMachine):
    """Breaks, deadlines and exceptions of others in any order, against a server that runs each number once."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange = Exchange("s", Limits())
        self.executed = 0  # by the server, the highest number
        self.asked = 0  # by whoever uses the exchange
        self.answers: list[bytes] = []  # on the connection that stands

    def idle(self) -> bool:
        return self.exchange.pending is None

    @precondition(idle)
    @rule()
    def begin(self) -> None:
        self.exchange.begin(step())
        self.asked += 1

    @precondition(lambda self: not self.idle())
    @rule(answers=st.booleans())
    def send(self, answers: bool) -> None:
        """The server gets what is pending, and its answer arrives or is lost."""
        sequence = pb.Request.FromString(self.exchange.pending).sequence
        assert sequence in (self.executed, self.executed + 1), "only the newest answer is kept"
        self.executed = sequence
        if answers:
            self.answers.append(answer(sequence))

    @precondition(lambda self: self.answers and not self.idle())
    @rule()
    def receive(self) -> None:
        response, _ = self.exchange.receive(self.answers.pop(0))
        assert response.sequence == self.executed
        self.answers.clear()

    @precondition(lambda self: not self.idle())
    @rule(error=st.sampled_from([ConnectionLost("x"), ConnectError("x"), DeadlineExceeded("x"), KeyboardInterrupt()]))
    def fail(self, error: BaseException) -> None:
        assert self.exchange.fail(error) is not Verdict.END
        self.answers.clear()  # the stream is given up

    @invariant()
    def each_request_runs_once_and_in_order(self) -> None:
        assert self.asked - 1 <= self.executed <= self.asked
        assert self.exchange.answered <= self.executed
        assert (self.exchange.answered == self.asked) is self.idle()


TestAgainstAServer = AgainstAServer.TestCase
