"""Exceptions that strike a session between any two operations of its own, one after another."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from remote_gym.client import carrier, turn
from remote_gym.client import session as session_module
from remote_gym.client.rules import operations
from remote_gym.client.session import ClientSession
from remote_gym.config import ClientOptions, RetryPolicy
from remote_gym.errors import ConnectionLost, OutOfSequence
from remote_gym.protocol import exchange
from remote_gym.protocol.stream import Stream
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import error_response


class Server:
    """Runs each number once.

    Attributes:
        executed: The highest number.
        strikes: Whether the next answer is interrupted as it is received.
        was_struck: Whether that has happened.
        streams: That were attached.
    """

    address = "nowhere:1"
    place = ("nowhere", 1)

    def __init__(self) -> None:
        self.executed = 0
        self.strikes = self.was_struck = False
        self.streams: list[Strict] = []

    def answer(self, data: bytes) -> bytes:
        sequence = pb.Request.FromString(data).sequence
        if sequence not in (self.executed, self.executed + 1):
            return error_response(OutOfSequence("a gap"))
        self.executed = sequence
        return pb.Response(sequence=sequence, step=pb.Transition(reward_float=float(sequence))).SerializeToString()

    def open(self, request: pb.OpenRequest, **_: object) -> pb.OpenResponse:
        return pb.OpenResponse(session=pb.Session(id="s", token="t"))

    def attach(self, *_: object) -> Strict:
        self.streams.append(Strict(self))
        return self.streams[-1]

    def reach(self, *_: object) -> pb.SpacesResponse:
        return pb.SpacesResponse()

    def renew(self) -> None: ...

    def close_session(self, *_: object) -> None: ...

    def close(self) -> None: ...


def operation() -> None:
    """What a stream does between its beginning and its end, where it may be struck as well."""


class Strict(Stream):
    """A stream that notices when it is used after something struck it in its midst."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.out_of_step = self.closed = False
        self.answer: bytes | None = None

    def send(self, data: bytes, deadline: float) -> None:
        self.begin()
        operation()
        self.answer = self.server.answer(data)
        operation()
        self.out_of_step = False

    def receive(self, deadline: float) -> bytes:
        self.begin()
        assert self.answer is not None, "it would wait for nothing"
        if self.server.strikes:
            self.server.strikes, self.server.was_struck = False, True
            raise KeyboardInterrupt
        operation()
        answer, self.answer = self.answer, None
        operation()
        self.out_of_step = False
        return answer

    def begin(self) -> None:
        if self.closed:
            raise ConnectionLost("it is closed")
        assert not self.out_of_step
        self.out_of_step = True

    def shut_down(self) -> None:
        raise AssertionError("a session closes its streams")

    def close(self) -> None:
        self.closed = True


FILES = {module.__file__ for module in (carrier, turn, session_module, exchange, operations)} | {__file__}
NOT_STRUCK = {"answer", "attach", "reach", "open", "struck", "ask", "<lambda>"}
"""Functions of this file: the server does not get the signal, nor does the test."""


LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
"""Operations after which the interpreter looks whether there was a signal: after no others does its handler run."""


def struck(function: Callable[[], object], at: int, counts: Callable[[], bool]) -> int:
    """Run it, and raise `KeyboardInterrupt` at the point of that number, of those at which a signal's handler could.

    Returns:
        How many points there were.
    """
    reached = 0
    last: dict[FrameType, str] = {}  # operation of each function

    def strike(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal reached
        if event == "opcode":
            before = last.get(frame, "RESUME")
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(LOOKS) and counts():
                reached += 1
                if reached == at:
                    raise KeyboardInterrupt
        elif event == "exception":
            last[frame] = "RERAISE"
        return strike

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in FILES or (code.co_filename == __file__ and code.co_name in NOT_STRUCK):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return strike

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return reached


def ask(session: ClientSession) -> float:
    return session.ask(pb.Request(step=pb.StepRequest()), 20.0)[0].step.reward_float


@pytest.mark.parametrize("times", ["once", "twice", "as it attaches", "behind"])
def test_whatever_is_struck_the_next_step_is_the_next_ones(times):
    """Once: anywhere in a step. Twice: amid the wait for its answer, and then anywhere in what is done about that.

    A step that has to attach, and one that has to wait for an earlier answer first, are rules that a driver performs.
    """

    def points(at: int) -> int:
        server = Server()
        session = ClientSession.open(server, pb.OpenRequest(), ClientOptions(retry=RetryPolicy(first_pause=0.001)))
        assert ask(session) == 1.0
        if times == "as it attaches":
            session._carrier.detach()
        elif times == "behind":
            server.strikes = True
            with pytest.raises(KeyboardInterrupt):
                ask(session)
        server.strikes = times == "twice"
        count = struck(lambda: ask(session), at, lambda: times != "twice" or server.was_struck)
        assert ask(session) == server.executed == session._exchange.answered
        assert ask(session) == server.executed <= 5
        # Not merely dropped: to free a call of gRPC's that was interrupted can take for ever. Where it attaches there
        # is a point at which a stream is there, and nobody has it yet.
        if times in ("once", "twice"):
            assert all(stream.closed for stream in server.streams[:-1])
        return count

    count = points(0)
    assert count > 10
    for at in range(1, count + 1):
        points(at)
