"""A worker that serves several sessions, one after the other, at the other end of its two sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counting import Counted
from environments import ACTION
from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost
from remote_gym.ipc.control import WorkerCommand, WorkerEvent, receive_record, send_record
from remote_gym.ipc.counters import Counters, new_page
from remote_gym.transport.framing import MessageSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.autoreset import AutoresetMode
from remote_gym.wire.values import encode_value
from remote_gym.worker import main
from waiting import scaled

ROOT = str(Path(__file__).parents[1])
RESET = pb.Request(sequence=1, reset=pb.ResetRequest())


def step(sequence: int, behaviour: str = "step") -> pb.Request:
    return pb.Request(sequence=sequence, step=pb.StepRequest(packed=ACTION[behaviour].to_bytes(8, "little")))


@dataclass
class Server:
    """What a worker takes for its server."""

    requests: MessageSocket
    control: socket.socket
    thread: threading.Thread
    page: memoryview

    def launch(self, **fields: Any) -> worker_pb2.Launched:
        whole = {"entrypoint": "environments.py", "root": ROOT, "limits": asdict(Limits()), **fields}
        message = worker_pb2.Launch(**whole)
        self.requests.send(message.SerializeToString())
        answer = self.requests.receive()
        assert answer is not None
        return worker_pb2.Launched.FromString(answer)

    def ask(self, request: pb.Request) -> pb.Response:
        self.requests.send(request.SerializeToString())
        answer = self.requests.receive()
        assert answer is not None
        return pb.Response.FromString(answer)

    def hear(self) -> tuple[int, int]:
        heard = receive_record(self.control)
        assert heard is not None
        kind, value, descriptor = heard
        if descriptor is not None:
            os.close(descriptor)
        return kind, value

    def leave(self) -> tuple[int, int]:
        send_record(self.control, WorkerCommand.LEAVE)
        return self.hear()

    def attach(self, token: str) -> tuple[MessageSocket, pb.Attached]:
        ours, theirs = socket.socketpair()
        ours.settimeout(scaled(10.0))
        with theirs:
            send_record(self.control, WorkerCommand.CONNECTION, 1, descriptor=theirs.fileno())
        direct = MessageSocket(ours, Limits())
        direct.send(pb.Attach(token=token).SerializeToString())
        answer = direct.receive()
        assert answer is not None
        return direct, pb.Attached.FromString(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    (requests, theirs), (control, other) = socket.socketpair(), socket.socketpair()
    for sock in (requests, control):
        sock.settimeout(scaled(10.0))
    page = new_page()
    arguments = {"own_process": False, "page": page}
    thread = threading.Thread(target=main.run, args=(theirs, other), kwargs=arguments)
    thread.start()
    running = Server(MessageSocket(requests, Limits()), control, thread, page)
    yield running
    running.requests.close()
    control.close()
    thread.join(scaled(10.0))
    assert not thread.is_alive()


def test_an_environment_made_ahead_becomes_a_sessions(server):
    made = server.launch(session="ahead", ahead=True)
    assert made.HasField("description")
    assert server.launch(session="s", token="t") == made
    assert server.ask(RESET).HasField("reset")


def test_the_next_session_has_the_environment_and_nothing_else(server):
    server.launch(session="one", token="first", keeps=True)
    direct, _ = server.attach("first")
    assert server.hear() == (WorkerEvent.ATTACHED, 1)
    for request in (RESET, step(2)):
        direct.send(request.SerializeToString())
        assert not pb.Response.FromString(direct.receive()).HasField("error")
    send_record(server.control, WorkerCommand.LEAVE)
    assert pb.Response.FromString(direct.receive()).error.kind == pb.ErrorDetail.SESSION_LOST
    assert direct.receive() is None
    direct.close()
    assert server.hear() == (WorkerEvent.DETACHED, 0)
    assert server.hear() == (WorkerEvent.LEFT, 1)
    assert Counters.decode(server.page.tobytes()) == Counters()
    server.launch(session="two", token="second", keeps=True)
    direct, attached = server.attach("first")
    assert attached.error.kind == pb.ErrorDetail.NOT_PERMITTED
    direct.close()
    assert server.ask(pb.Request(sequence=2)).error.kind == pb.ErrorDetail.OUT_OF_SEQUENCE
    assert "before the first reset" in server.ask(step(1)).error.message
    assert server.ask(pb.Request(sequence=2, reset=pb.ResetRequest())).HasField("reset")
    assert server.ask(step(3)).HasField("step")


@pytest.mark.parametrize(
    "request_",
    [
        step(2, "raise"),
        pb.Request(sequence=2, step_many=pb.StepManyRequest(steps=[step(1, "raise").step])),
        pb.Request(sequence=2, call=pb.CallRequest(name="difficulty", assign=pb.Value(text="x"))),
        pb.Request(sequence=2, call=pb.CallRequest(name="fail")),
    ],
    ids=["step", "step_many", "assign", "call"],
)
def test_what_a_session_has_spoilt_no_other_gets(server, request_):
    server.launch(session="one", keeps=True)
    server.ask(RESET)
    server.ask(request_)
    assert server.leave() == (WorkerEvent.LEFT, 0)
    assert server.requests.receive() is None


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium has had masks since 1.1")
def test_of_several_all_are_reset_before_some(server):
    fields = {"num_envs": 2, "autoreset_mode": pb.DISABLED, "keeps": True}
    server.launch(session="one", **fields)
    some = pb.Request(sequence=1, reset=pb.ResetRequest())
    encode_value({"reset_mask": np.array([True, False])}, some.reset.options, strict=True, limits=Limits())
    server.ask(RESET)
    assert server.leave() == (WorkerEvent.LEFT, 1)
    server.launch(session="two", **fields)
    assert "reset_mask before the first reset of all" in server.ask(some).error.message
    assert server.ask(pb.Request(sequence=2, reset=pb.ResetRequest())).HasField("reset")
    some.sequence = 3
    assert server.ask(some).HasField("reset")


def test_without_being_asked_to_it_keeps_nothing(server):
    server.launch(session="one")
    assert server.leave() == (WorkerEvent.LEFT, 0)
    assert server.requests.receive() is None


def test_each_session_may_set_what_its_own_terms_allow(server):
    kwargs = pb.Value()
    encode_value({"log": None}, kwargs, strict=True, limits=Limits())
    fields = {"client_kwargs": kwargs.SerializeToString()}
    server.launch(session="ahead", ahead=True, **fields)
    refused = server.launch(session="s", allowed_arguments=worker_pb2.Names(names=["difficulty"]), **fields)
    assert refused.error.kind == pb.ErrorDetail.NOT_PERMITTED
    assert server.requests.receive() is None


@pytest.mark.parametrize(
    ("launches", "error"),
    [
        ([{"frames": pb.FRAMES_STEP}], "frames were asked for"),
        ([{"ahead": True}, {"frames": pb.FRAMES_STEP}], "frames were asked for"),
        ([{"keeps": True}, {"frames": pb.FRAMES_STEP}], "frames were asked for"),
        ([{"ahead": True}, {"allowed_arguments": worker_pb2.Names(), "client_kwargs": b"x"}], ""),
        ([{"limits": {**asdict(Limits()), "message_bytes": 200}}], "the en..."),  # the environment's description has
    ],
    ids=["frames", "ahead-frames", "kept-frames", "ahead-arguments", "long"],
)
def test_an_environment_is_closed_once_whichever_launch_is_refused(server, tmp_path, launches, error):
    counted = Counted(tmp_path)
    where = {"entrypoint": counted.offer()["entrypoint"], "root": str(tmp_path)}
    *good, refused = launches
    for fields in good:
        assert server.launch(session="one", **where, **fields).HasField("description")
        if not fields.get("ahead"):
            server.ask(RESET)
            assert server.leave() == (WorkerEvent.LEFT, 1)
    answer = server.launch(session="two", **where, **refused)
    assert answer.HasField("error")
    assert error in answer.error.message
    assert server.requests.receive() is None
    server.thread.join(scaled(10.0))
    assert counted.count("closed") == 1


def test_what_a_client_asked_and_nobody_read_is_not_the_next_sessions(server):
    server.launch(session="one", token="first", keeps=True)
    direct, _ = server.attach("first")
    server.hear()
    server.ask(RESET)
    server.requests.send(step(2, "slow").SerializeToString())  # so that both of these are found at once
    send_record(server.control, WorkerCommand.LEAVE)
    direct.send(step(3).SerializeToString())
    server.requests.receive()
    with contextlib.suppress(ConnectionLost):  # since what it sent was not read
        while answer := direct.receive():
            assert pb.Response.FromString(answer).error.kind == pb.ErrorDetail.SESSION_LOST
    assert [server.hear()[0] for _ in range(2)] == [WorkerEvent.DETACHED, WorkerEvent.LEFT]
    server.launch(session="two", token="second", keeps=True)
    assert server.ask(step(1)).error.message
    direct.close()
