"""The client's side of a session, against a connection that does as a script says."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from remote_gym.client import carrier, dropped
from remote_gym.client.connect import choose as attaching
from remote_gym.client.connect.retry import Retry
from remote_gym.client.recovery import leave_what_hangs
from remote_gym.client.session import ClientSession
from remote_gym.config import ClientOptions, Limits, RetryPolicy
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    NotPermitted,
    OutOfSequence,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionLost,
)
from remote_gym.protocol.stream import Stream
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import encode_error

Answer = Callable[[pb.Request], pb.Response]


def stepped(request: pb.Request) -> pb.Response:
    return pb.Response(sequence=request.sequence, step=pb.Transition(reward_float=1.0))


def failing(error: Exception) -> Answer:
    def answer(request: pb.Request) -> pb.Response:
        raise error

    return answer


def refusing(error: RemoteGymError, sequence: int | None = None) -> Answer:
    """An error for the session as a whole where `sequence` is 0, else for the request."""

    def answer(request: pb.Request) -> pb.Response:
        return pb.Response(sequence=request.sequence if sequence is None else sequence, error=encode_error(error))

    return answer


def late(request: pb.Request) -> pb.Response:
    time.sleep(0.05)
    raise DeadlineExceeded("no answer")


BREAK = failing(ConnectionLost("the line broke"))


class GrpcStream(Stream):
    """What the connection attached: hands each request to the next answer of the script."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.closed = False

    def send(self, data: bytes, deadline: float) -> None:
        assert not self.closed
        self._request = pb.Request.FromString(data)
        self._connection.asked.append(self._request.sequence)

    def receive(self, deadline: float) -> bytes:
        return self._connection.answers.pop(0)(self._request).SerializeToString()

    def shut_down(self) -> None:
        raise AssertionError("a session closes its streams")

    def close(self) -> None:
        self.closed = True


class Connection:
    """Stands in for `GrpcConnection`.

    Attributes:
        asked: Numbers of the requests that came, in order.
        events: What else was asked of it.
        routing_ids: By which direct connections were made.
    """

    address = "nowhere:1"
    place = ("nowhere", 1)

    def __init__(self, *answers: Answer, opened: pb.OpenResponse | None = None) -> None:
        self.answers = list(answers)
        self.opened = opened or pb.OpenResponse(session=pb.Session(id="s", token="t"))
        self.asked: list[int] = []
        self.events: list[str] = []
        self.reaching: list[Exception | None] = []
        self.direct: list[object] = []
        self.reached = 0
        self.routing_ids: list[bytes] = []
        self.interactions: list[GrpcStream] = []

    def open(self, request: pb.OpenRequest, *, connect_timeout: float, open_timeout: float) -> pb.OpenResponse:
        return self.opened

    def reach(self, session_id: str, token: str, timeout: float) -> pb.SpacesResponse:
        self.events.append("reach")
        if self.reaching and (error := self.reaching.pop(0)) is not None:
            raise error
        self.reached += 1
        return pb.SpacesResponse(direct=pb.DirectAddress(port=1, routing_id=b"%d" % self.reached))

    def attach(self, session_id: str, token: str, _message_bytes: int = 0) -> GrpcStream:
        self.events.append("attach")
        self.interactions.append(GrpcStream(self))
        return self.interactions[-1]

    def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> GrpcStream:
        self.events.append("attach directly")
        self.routing_ids.append(address.routing_id)
        if self.direct:
            raise self.direct.pop(0)
        stream = GrpcStream(self)
        stream.is_direct = True
        return stream

    def renew(self) -> None:
        self.events.append("renew")

    def close_session(self, session_id: str, token: str, timeout: float) -> None:
        self.events.append("close session")

    def close(self) -> None:
        self.events.append("close")


def begin(connection: Connection, /, **options) -> ClientSession:
    options = {"retry": RetryPolicy(first_pause=0.001), **options}
    return ClientSession.open(connection, pb.OpenRequest(), ClientOptions(**options))


def ask(session: ClientSession, timeout: float = 5.0) -> pb.Response:
    return session.ask(pb.Request(step=pb.StepRequest()), timeout)[0]


def test_requests_are_numbered_from_one_and_share_a_connection():
    connection = Connection(stepped, stepped, stepped)
    session = begin(connection)
    for _ in range(3):
        ask(session)
    assert connection.asked == [1, 2, 3]
    assert connection.events == ["attach"]


def test_what_the_server_does_not_open_is_told_and_the_connection_closed():
    connection = Connection(opened=pb.OpenResponse(error=encode_error(ServerFull("full"))))
    with pytest.raises(ServerFull, match="full"):
        begin(connection)
    assert connection.events == ["close"]


def test_a_direct_connection_that_is_insisted_on_and_not_offered():
    connection = Connection()
    with pytest.raises(ConnectError, match="nowhere:1 offers no direct"):
        begin(connection, connection="direct")
    assert connection.events[-1] == "close"


@pytest.mark.parametrize("breaks", [1, 2, 5])
def test_a_step_goes_on_under_its_number_however_often_the_connection_breaks(breaks):
    connection = Connection(stepped, *[BREAK] * breaks, stepped, stepped)
    session = begin(connection)
    for _ in range(3):
        ask(session)
    assert connection.asked == [1] + [2] * (breaks + 1) + [3]
    assert [interaction.closed for interaction in connection.interactions] == [True] * breaks + [False]
    assert not session.lost


def test_a_connection_that_cannot_be_made_again_gives_the_session_up():
    connection = Connection(stepped, BREAK)
    connection.reaching = [ConnectError("nobody there")] * 1000
    session = begin(connection, reconnect_timeout=0.1)
    ask(session)
    with pytest.raises(
        ConnectionLost, match=r"the line broke; it could not be made again within 0.1 s .*: nobody there"
    ):
        ask(session)
    assert session.lost
    with pytest.raises(SessionLost, match="reset opens"):
        ask(session)
    session.close()
    assert "close session" not in connection.events  # nobody there


def test_each_resumed_connection_has_the_whole_reconnect_timeout_to_be_made_again(monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now, sleep=lambda seconds: None)
    monkeypatch.setattr(carrier, "time", clock)
    monkeypatch.setattr(attaching, "time", clock)
    monkeypatch.setattr(carrier, "Retry", functools.partial(Retry, clock=clock.monotonic))

    def slow_break(request: pb.Request) -> pb.Response:
        clock.now += 2.0
        raise ConnectionLost("the line broke")

    connection = Connection(BREAK, slow_break, slow_break, stepped)
    connection.reaching = [None, None, ConnectError("not yet"), None]
    session = begin(connection, reconnect_timeout=3.0)
    ask(session, timeout=100.0)  # which takes longer than the timeout in all
    assert connection.asked == [1] * 4


def test_a_connection_that_is_made_again_and_again_and_never_answers_gives_the_session_up():
    connection = Connection(stepped, *[BREAK] * 1000)
    session = begin(connection, retry=RetryPolicy(first_pause=0.001, longest_pause=0.001, attempts=4))
    ask(session)
    with pytest.raises(ConnectionLost, match=r"the line broke; it was made again 4 times"):
        ask(session)
    assert connection.asked == [1] + [2] * 5
    assert session.lost


def test_a_break_close_to_the_deadline_is_the_deadlines_and_not_the_sessions_end():
    connection = Connection(stepped, BREAK, stepped, stepped)
    connection.reaching = [ConnectError("not yet")] * 30
    session = begin(connection, connect_timeout=10.0)
    ask(session)

    def unreachable(session_id: str, token: str, timeout: float) -> None:
        time.sleep(timeout)
        raise ConnectError("not yet")

    reach, connection.reach = connection.reach, unreachable
    with pytest.raises(DeadlineExceeded, match="the line broke"):
        ask(session, timeout=0.1)
    assert not session.lost
    assert session.is_behind
    connection.reach = reach
    ask(session)
    assert connection.asked == [1, 2, 2, 3]


def test_a_missed_answer_is_waited_for_before_the_next_request():
    connection = Connection(stepped, late, stepped, stepped)
    session = begin(connection)
    ask(session)
    with pytest.raises(DeadlineExceeded):
        ask(session)
    assert session.is_behind
    assert connection.interactions[0].closed  # on which the missed answer may yet come
    ask(session)
    assert connection.asked == [1, 2, 2, 3]
    assert not session.is_behind


def test_catching_up_drops_what_was_missed_and_asks_nothing_new():
    connection = Connection(late, stepped, stepped)
    session = begin(connection)
    with pytest.raises(DeadlineExceeded):
        ask(session)
    session.catch_up(5.0)
    session.catch_up(5.0)
    assert connection.asked == [1, 1]
    ask(session)
    assert connection.asked == [1, 1, 2]


def test_an_interrupted_request_is_finished_first():
    connection = Connection(stepped, failing(KeyboardInterrupt()), stepped, stepped)
    session = begin(connection)
    ask(session)
    with pytest.raises(KeyboardInterrupt):
        ask(session)
    ask(session)
    assert connection.asked == [1, 2, 2, 3]


def test_an_error_of_a_request_uses_up_its_number_and_the_session_lives_on():
    connection = Connection(refusing(RemoteEnvironmentError("KeyError", "x")), stepped)
    session = begin(connection)
    with pytest.raises(RemoteEnvironmentError):
        ask(session)
    ask(session)
    assert connection.asked == [1, 2]


@pytest.mark.parametrize("error", [SessionLost("gone"), NotPermitted("not yours"), OutOfSequence("taken over")])
def test_an_error_of_the_session_as_a_whole_ends_it(error):
    connection = Connection(refusing(error, sequence=0))
    session = begin(connection)
    with pytest.raises(type(error), match=str(error)):
        ask(session)
    assert session.lost
    session.close()
    assert "close session" not in connection.events


def test_an_answer_to_another_request_is_an_error_and_the_server_is_told_to_close():
    connection = Connection(lambda request: pb.Response(sequence=7))
    session = begin(connection)
    with pytest.raises(EncodingError, match="response 7 came to request 1"):
        ask(session)
    assert session.lost
    session.close()
    assert connection.events[-2:] == ["close session", "close"]


def test_a_request_over_the_limit_uses_up_no_number():
    connection = Connection(stepped)
    session = begin(connection, message_limits=Limits(message_bytes=100))
    with pytest.raises(EncodingError, match="100"):
        session.ask(pb.Request(step=pb.StepRequest(packed=bytes(200))), 5.0)
    ask(session)
    assert connection.asked == [1]


def test_a_thread_whose_turn_does_not_come_hears_that_the_session_is_busy():
    entered, release = threading.Event(), threading.Event()

    def wait(request: pb.Request) -> pb.Response:
        entered.set()
        release.wait(10.0)
        return stepped(request)

    connection = Connection(wait, stepped)
    session = begin(connection)
    thread = threading.Thread(target=ask, args=(session,))
    thread.start()
    entered.wait(10.0)
    with pytest.raises(DeadlineExceeded, match="busy with another thread"):
        ask(session, timeout=0.05)
    release.set()
    thread.join(10.0)
    assert not session.lost
    ask(session)
    assert connection.asked == [1, 2]


def test_closing_twice_closes_once_and_what_is_asked_then_is_lost():
    connection = Connection(stepped)
    session = begin(connection)
    ask(session)
    session.close()
    session.close()
    assert connection.events == ["attach", "close session", "close"]
    with pytest.raises(SessionLost):
        ask(session)


def test_a_session_closed_while_its_connection_is_made_again_stays_closed():
    connection = Connection(BREAK)
    session = begin(connection)

    def close(session_id: str, token: str, timeout: float) -> None:
        session.close()
        raise ConnectionLost("the channel is closed")

    connection.reach = close
    with pytest.raises(SessionLost, match="was closed"):
        ask(session)
    assert connection.events.count("close session") == 1


def test_a_direct_connection_that_cannot_be_had_is_tried_once_and_grpc_used_from_then_on(caplog):
    offered = pb.OpenResponse(session=pb.Session(id="s", token="t", direct=pb.DirectAddress(port=1)))
    connection = Connection(stepped, BREAK, stepped, opened=offered)
    connection.direct = [ConnectError("a firewall")]
    session = begin(connection)
    ask(session)
    ask(session)
    assert connection.events == ["attach directly", "attach", "reach", "attach"]
    assert caplog.text.count("goes on over gRPC") == 1


OFFERED = pb.OpenResponse(session=pb.Session(id="s", token="t", direct=pb.DirectAddress(port=1, routing_id=b"0")))


def test_each_direct_connection_is_made_by_a_routing_id_of_its_own():
    connection = Connection(stepped, BREAK, stepped, stepped, opened=OFFERED)
    session = begin(connection)
    for _ in range(2):
        ask(session)
    session._carrier.detach()
    ask(session)
    assert connection.routing_ids == [b"0", b"1", b"2"]
    assert connection.events == ["attach directly", "reach", "attach directly", "reach", "attach directly"]


@pytest.mark.parametrize(("seconds", "routing_id"), [(29.0, b"0"), (31.0, b"1")])
def test_a_routing_id_that_may_be_too_old_is_not_used(monkeypatch, seconds, routing_id):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(attaching, "time", clock)
    connection = Connection(stepped, opened=OFFERED)
    session = begin(connection)
    clock.now += seconds
    ask(session, timeout=2000.0)
    assert connection.routing_ids == [routing_id]


def test_a_server_that_does_not_tell_where_to_connect_to_is_asked_until_it_does():
    connection = Connection(stepped, stepped, opened=OFFERED)
    session = begin(connection)
    ask(session)
    session._carrier.detach()
    connection.reaching = [ConnectError("not now")]
    ask(session)
    assert connection.routing_ids == [b"0", b"1"]
    assert "attach" not in connection.events


def test_a_direct_connection_that_is_insisted_on_is_not_replaced():
    offered = pb.OpenResponse(session=pb.Session(id="s", token="t", direct=pb.DirectAddress(port=1)))
    connection = Connection(opened=offered)
    connection.direct = [ConnectError("a firewall")] * 1000
    session = begin(connection, connection="direct", reconnect_timeout=0.05)
    with pytest.raises(ConnectionLost, match="a firewall"):
        ask(session)
    assert "attach" not in connection.events


def test_a_direct_connection_that_failed_is_tried_again_between_episodes_and_ever_more_rarely(monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(attaching, "time", clock)
    offered = pb.OpenResponse(session=pb.Session(id="s", token="t", direct=pb.DirectAddress(port=1)))
    connection = Connection(*[stepped] * 8, opened=offered)
    connection.direct = [ConnectError("a firewall"), ConnectError("a firewall")]
    session = begin(connection)
    tried = []
    for clock.now in (1000.0, 1029.0, 1030.0, 1089.0, 1090.0):
        connection.events.clear()
        session.improve()
        ask(session)
        tried.append("attach directly" in connection.events)
    assert tried == [True, False, True, False, True]


def test_a_broken_connection_that_is_being_made_again_is_not_used_once_the_session_was_closed():
    connection = Connection(BREAK)
    session = begin(connection)

    def closing(request: pb.Request) -> pb.Response:
        session.close()
        raise ConnectionLost("the line broke")

    connection.answers = [closing]
    with pytest.raises(SessionLost, match="was closed"):
        ask(session)
    assert "reach" not in connection.events


def test_an_answer_is_not_lost_by_a_log_that_fails(monkeypatch):
    connection = Connection(stepped, BREAK, stepped, stepped)
    session = begin(connection)
    ask(session)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(carrier.logger, "warning", fail)
    with pytest.raises(OSError, match="no space"):
        ask(session)
    assert not session.is_behind
    monkeypatch.undo()
    ask(session)
    assert connection.asked == [1, 2, 2, 3]


def raised_in_grpc(cause: BaseException) -> RuntimeError:
    """What gRPC makes of an exception that strikes while it waits for a lock."""
    try:
        try:
            raise cause
        finally:
            exec("lock.release()", {"__name__": "threading", "lock": threading.RLock()})
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("struck", [KeyboardInterrupt(), ValueError("too slow")], ids=["ctrl-c", "exception"])
def test_what_strikes_within_grpc_is_raised_and_not_what_it_makes_of_that(struck):
    connection = Connection(stepped, failing(raised_in_grpc(struck)), stepped, stepped)
    session = begin(connection)
    ask(session)
    with pytest.raises(type(struck)) as raised:
        ask(session)
    assert raised.value is struck
    assert "renew" in connection.events
    ask(session)
    assert connection.asked == [1, 2, 2, 3]


def test_an_exception_with_a_context_of_its_own_is_raised_as_it_is():
    try:
        try:
            raise KeyError("x")
        finally:
            int("y")
    except ValueError as found:
        error = found
    session = begin(Connection(failing(error)))
    with pytest.raises(ValueError, match="invalid literal"):
        ask(session)


def test_what_was_opened_and_cannot_be_looked_after_is_closed(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(dropped, "see_to", fail)
    connection = Connection()
    with pytest.raises(RuntimeError, match="start new thread"):
        begin(connection)
    assert connection.events == ["renew", "close session", "close"]


def test_what_another_process_has_opened_and_cannot_be_looked_after_is_left_open(monkeypatch):
    monkeypatch.setattr(dropped, "see_to", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    connection = Connection()
    ticket = SessionTicket(url="nowhere", port=1, session="s", token="t", answered=0)
    with pytest.raises(KeyboardInterrupt):
        ClientSession.find(connection, ticket, ClientOptions())
    assert connection.events == ["reach", "renew", "close"]


def test_a_close_that_was_interrupted_is_tried_again_by_the_next():
    connection = Connection(stepped)
    session = begin(connection)
    ask(session)
    close_session = connection.close_session

    def interrupted(*_: object) -> None:
        connection.close_session = close_session
        raise KeyboardInterrupt

    connection.close_session = interrupted
    with pytest.raises(KeyboardInterrupt):
        session.close()
    assert connection.events == ["attach", "renew"]
    session.close()
    session.close()
    assert connection.events == ["attach", "renew", "close session", "close"]


@pytest.mark.parametrize("error", [MemoryError(), TypeError("a bug")])
def test_what_would_strike_each_reset_is_raised_once_and_the_session_closed(error):
    connection = Connection(*[failing(error)] * 9)
    session = begin(connection)
    with pytest.raises(type(error)):
        ask(session)
    assert session.is_behind
    with pytest.raises(type(error)):
        leave_what_hangs(session, ClientOptions(), "it")
    assert session.lost
    assert connection.events[-2:] == ["close session", "close"]
