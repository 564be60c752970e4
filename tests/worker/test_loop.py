"""A worker's loop, at the other end of its two sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from environments import ACTION
from remote_gym.config import Limits
from remote_gym.ipc.control import WorkerCommand, WorkerEvent, receive_record, send_record
from remote_gym.transport.framing import MessageSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.worker import handshake as admission
from remote_gym.worker import main
from remote_gym.worker import pending as arrivals
from waiting import scaled


@dataclass
class Server:
    """What a worker takes for its server."""

    requests: MessageSocket
    control: socket.socket
    thread: threading.Thread

    def ask(self, request: pb.Request) -> pb.Response:
        self.requests.send(request.SerializeToString())
        answer = self.requests.receive()
        assert answer is not None
        return pb.Response.FromString(answer)

    def hear(self) -> tuple[int, int]:
        """What the worker tells, and the value; with word of a client comes a descriptor of its connection."""
        heard = receive_record(self.control)
        assert heard is not None
        word, value, descriptor = heard
        assert (descriptor is not None) == (word == WorkerEvent.ATTACHED)
        if descriptor is not None:
            os.close(descriptor)
        return word, value

    def bring_silent(self, number: int = 0) -> MessageSocket:
        """A direct connection that has not said anything."""
        ours, theirs = socket.socketpair()
        ours.settimeout(scaled(10.0))
        with theirs:
            send_record(self.control, WorkerCommand.CONNECTION, number, descriptor=theirs.fileno())
        return MessageSocket(ours, Limits())

    def bring(self, token: str = "t", number: int = 0) -> tuple[MessageSocket, pb.Attached]:
        """A direct connection."""
        direct = self.bring_silent(number)
        return direct, attach(direct, token)


def attach(direct: MessageSocket, token: str = "t") -> pb.Attached:
    direct.send(pb.Attach(token=token).SerializeToString())
    answer = direct.receive()
    assert answer is not None
    return pb.Attached.FromString(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    (requests, theirs), (control, other) = socket.socketpair(), socket.socketpair()
    for sock in (requests, control):
        sock.settimeout(scaled(10.0))
    thread = threading.Thread(target=main.run, args=(theirs, other), kwargs={"own_process": False})
    thread.start()
    running = Server(MessageSocket(requests, Limits()), control, thread)
    root = str(Path(__file__).parents[1])
    launch = worker_pb2.Launch(session="s", entrypoint="environments.py", root=root, token="t", limits=asdict(Limits()))
    running.requests.send(launch.SerializeToString())
    launched = running.requests.receive()
    assert launched is not None
    assert worker_pb2.Launched.FromString(launched).HasField("description")
    yield running
    running.requests.close()
    control.close()
    thread.join(scaled(10.0))
    assert not thread.is_alive()


RESET = pb.Request(sequence=1, reset=pb.ResetRequest())


def test_a_server_that_closes_the_handover_with_word_of_a_client_unread_can_still_ask(server):
    direct, attached = server.bring()
    assert not attached.HasField("error")
    server.control.close()  # and so ATTACHED is never read, which breaks the connection
    assert server.ask(RESET).HasField("reset")
    direct.send(pb.Request(sequence=1).SerializeToString())
    assert pb.Response.FromString(direct.receive()).HasField("reset")
    direct.close()


def test_the_server_is_told_of_who_comes_and_goes(server):
    direct, _ = server.bring()
    assert server.hear() == (WorkerEvent.ATTACHED, 0)
    send_record(server.control, WorkerCommand.TAKEN_OVER)
    told = pb.Response.FromString(direct.receive())
    assert (told.sequence, told.error.kind) == (0, pb.ErrorDetail.OUT_OF_SEQUENCE)
    assert direct.receive() is None
    assert server.hear() == (WorkerEvent.DETACHED, 0)
    assert server.ask(RESET).HasField("reset")
    direct.close()


@pytest.mark.parametrize("by", ["gRPC", "a direct connection"])
def test_who_is_cut_off_by_a_newer_connection_hears_that(by, server):
    direct, _ = server.bring()
    newer = None
    if by == "gRPC":
        send_record(server.control, WorkerCommand.TAKEN_OVER)
    else:
        newer, _ = server.bring()
    told = pb.Response.FromString(direct.receive())
    assert (told.sequence, told.error.kind) == (0, pb.ErrorDetail.OUT_OF_SEQUENCE)
    assert direct.receive() is None
    direct.close()
    if newer is not None:
        newer.close()


def test_a_client_is_cut_off_though_the_server_holds_its_connection(server):
    direct, _ = server.bring()
    heard = receive_record(server.control)
    assert heard is not None
    send_record(server.control, WorkerCommand.DROP)
    assert direct.receive() is None
    os.close(heard[2])
    direct.close()


def test_a_client_that_leaves_as_it_is_cut_off_does_not_hold_up_the_next(server):
    """Both are found at once, by a worker that was busy when they came."""
    direct, _ = server.bring()
    assert server.ask(RESET).HasField("reset")
    slow = pb.StepRequest(packed=ACTION["slow"].to_bytes(8, "little"))
    server.requests.send(pb.Request(sequence=2, step=slow).SerializeToString())
    send_record(server.control, WorkerCommand.DROP)
    direct.close()
    assert pb.Response.FromString(server.requests.receive()).HasField("step")
    direct, attached = server.bring()
    assert not attached.HasField("error")
    direct.close()


def test_a_client_is_told_for_how_long_the_worker_polls(server):
    send_record(server.control, WorkerCommand.POLL, 70)
    direct, attached = server.bring()
    assert attached.poll_us == 70
    direct.close()


def test_when_the_server_goes_a_direct_client_hears_it(server):
    direct, _ = server.bring()
    server.requests.close()
    told = pb.Response.FromString(direct.receive())
    assert (told.sequence, told.error.kind) == (0, pb.ErrorDetail.SESSION_LOST)
    direct.close()


def test_who_has_not_the_token_is_told_and_the_one_that_has_goes_on(server):
    direct, _ = server.bring()
    stranger, refused = server.bring(token="x")
    assert refused.error.kind == pb.ErrorDetail.NOT_PERMITTED
    direct.send(RESET.SerializeToString())
    assert pb.Response.FromString(direct.receive()).HasField("reset")
    stranger.close()
    direct.close()


@pytest.mark.parametrize("timeout", [0.3, 60.0])
def test_who_says_who_he_is_in_drips_holds_nobody_up_and_is_closed_out_in_time(server, monkeypatch, timeout):
    monkeypatch.setattr(arrivals, "ADMISSION_TIMEOUT", timeout)
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):  # refused
            ours.sendall((1000).to_bytes(4, "big"))
            while not over.wait(0.02):
                ours.sendall(b"a")
        over.set()

    with ours:
        with theirs:
            send_record(server.control, WorkerCommand.CONNECTION, descriptor=theirs.fileno())
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert server.ask(RESET).HasField("reset")
            if timeout < 1.0:
                assert over.wait(scaled(20.0))
        finally:
            over.set()
            thread.join()


def test_who_is_on_the_way_in_during_a_long_step_is_let_in(server, monkeypatch):
    """Also who has a further turn to take after it, as in a handshake: only then is it heard, and answered."""
    monkeypatch.setattr(arrivals, "ADMISSION_TIMEOUT", 0.9)
    newcomer = server.bring_silent()
    data = pb.Attach(token="t").SerializeToString()
    assert server.ask(RESET).HasField("reset")
    server.requests.send(step(2, "slow").SerializeToString())
    newcomer._socket.sendall(len(data).to_bytes(4, "big"))
    assert server.requests.receive() is not None
    newcomer._socket.sendall(data)
    attached = newcomer.receive()
    assert attached is not None
    assert not pb.Attached.FromString(attached).HasField("error")
    newcomer.close()


def test_who_says_more_than_who_he_is_is_refused_at_once(server):
    direct = server.bring_silent()
    direct._socket.sendall((admission.ATTACH_BYTES + 1).to_bytes(4, "big"))
    assert direct.receive() is None
    direct.close()
    assert server.ask(RESET).HasField("reset")


def test_who_comes_late_does_not_cut_off_who_came_after_it(server):
    """What an attempt sent that its client has given up may arrive after the next attempt's."""
    late = server.bring_silent(number=1)
    direct, _ = server.bring(number=2)
    assert server.hear() == (WorkerEvent.ATTACHED, 2)
    assert not attach(late).HasField("error")
    told = pb.Response.FromString(late.receive())
    assert (told.sequence, told.error.kind) == (0, pb.ErrorDetail.OUT_OF_SEQUENCE)
    assert late.receive() is None
    direct.send(RESET.SerializeToString())
    assert pb.Response.FromString(direct.receive()).HasField("reset")
    late.close()
    direct.close()


def test_who_is_on_the_way_in_when_the_session_is_taken_over_hears_that(server):
    late = server.bring_silent(number=1)
    send_record(server.control, WorkerCommand.TAKEN_OVER)
    for _ in range(2):  # after which it has heard both words
        assert server.ask(RESET).HasField("reset")
    assert not attach(late).HasField("error")
    assert pb.Response.FromString(late.receive()).error.kind == pb.ErrorDetail.OUT_OF_SEQUENCE
    late.close()
    direct, _ = server.bring(number=2)
    assert server.hear() == (WorkerEvent.ATTACHED, 2)
    direct.close()


def test_who_is_on_the_way_in_when_the_owner_is_shut_out_is_closed_out(server):
    late = server.bring_silent()
    send_record(server.control, WorkerCommand.DROP)
    assert late.receive() is None
    late.close()


def test_of_those_on_their_way_in_the_first_makes_room(server):
    silent = [server.bring_silent() for _ in range(arrivals.ARRIVALS_AT_ONCE + 1)]
    assert silent[0].receive() is None
    direct, attached = server.bring()
    assert not attached.HasField("error")
    assert silent[1].receive() is None
    assert not attach(silent[-1]).HasField("error")
    for each in (*silent, direct):
        each.close()


def step(sequence: int, behaviour: str = "step") -> pb.Request:
    return pb.Request(sequence=sequence, step=pb.StepRequest(packed=ACTION[behaviour].to_bytes(8, "little")))


def test_a_drain_lets_the_episode_end_and_begins_no_other(server):
    assert server.ask(RESET).HasField("reset")
    send_record(server.control, WorkerCommand.DRAIN)
    assert server.ask(RESET).HasField("reset")  # the same once more, whose answer may have been lost
    assert server.ask(step(2)).HasField("step")
    ended = server.ask(step(3, "truncate"))
    assert ended.step.truncated_bool
    assert server.ask(step(3, "truncate")) == ended
    refused = server.ask(pb.Request(sequence=4, reset=pb.ResetRequest()))
    assert (refused.sequence, refused.error.kind) == (0, pb.ErrorDetail.SESSION_LOST)
    assert "begins no more episodes" in refused.error.message
    assert server.hear() == (WorkerEvent.DRAINED, 0)


def test_a_drain_that_finds_no_episode_is_told_so(server):
    send_record(server.control, WorkerCommand.DRAIN)
    assert server.hear() == (WorkerEvent.DRAINED, 0)


def test_a_drain_tells_that_the_episode_is_over_though_its_client_asks_for_no_other(server):
    direct, _ = server.bring()
    assert server.hear()[0] == WorkerEvent.ATTACHED
    direct.send(RESET.SerializeToString())
    direct.receive()
    send_record(server.control, WorkerCommand.DRAIN)
    direct.send(step(2, "numpy_flags").SerializeToString())  # terminated by np.True_
    direct.receive()
    assert server.hear() == (WorkerEvent.DRAINED, 0)
    server.requests.close()
    assert "begins no more episodes" in pb.Response.FromString(direct.receive()).error.message
    direct.close()


@pytest.mark.parametrize("way", ["direct", "through the server"])
def test_a_client_that_asks_nothing_is_told_of(server, way):
    send_record(server.control, WorkerCommand.LIMIT_IDLE, 300)
    if way == "direct":
        direct, _ = server.bring()
        assert server.hear()[0] == WorkerEvent.ATTACHED
        direct.send(RESET.SerializeToString())
        direct.receive()
    else:
        server.ask(RESET)
    assert server.hear() == (WorkerEvent.IDLE, 0)
    if way == "direct":
        server.requests.close()
        assert "asked nothing for 0.3 s" in pb.Response.FromString(direct.receive()).error.message
        direct.close()
