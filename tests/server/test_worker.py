"""A worker's loop, at the other end of its two sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from environments import ACTION
from remote_gym.config import Limits
from remote_gym.server import worker
from remote_gym.server.handover import ToServer, ToWorker, hear, tell
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.stream import MessageSocket


@dataclass
class Server:
    """What a worker takes for its server."""

    requests: MessageSocket
    handover: socket.socket
    thread: threading.Thread

    def ask(self, request: pb.Request) -> pb.Response:
        self.requests.send(request.SerializeToString())
        answer = self.requests.receive()
        assert answer is not None
        return pb.Response.FromString(answer)

    def bring(self, token: str = "t") -> tuple[MessageSocket, pb.Attached]:
        """A direct connection."""
        ours, theirs = socket.socketpair()
        ours.settimeout(10.0)
        with theirs:
            tell(self.handover, ToWorker.CONNECTION, descriptor=theirs.fileno())
        direct = MessageSocket(ours, Limits())
        direct.send(pb.Attach(token=token).SerializeToString())
        answer = direct.receive()
        assert answer is not None
        return direct, pb.Attached.FromString(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    (requests, theirs), (handover, other) = socket.socketpair(), socket.socketpair()
    for sock in (requests, handover):
        sock.settimeout(10.0)
    thread = threading.Thread(target=worker.run, args=(theirs, other), kwargs={"own_process": False})
    thread.start()
    running = Server(MessageSocket(requests, Limits()), handover, thread)
    root = str(Path(__file__).parents[1])
    launch = worker_pb2.Launch(session="s", entrypoint="environments.py", root=root, token="t", limits=asdict(Limits()))
    running.requests.send(launch.SerializeToString())
    launched = running.requests.receive()
    assert launched is not None
    assert worker_pb2.Launched.FromString(launched).HasField("description")
    yield running
    running.requests.close()
    handover.close()
    thread.join(10.0)
    assert not thread.is_alive()


RESET = pb.Request(sequence=1, reset=pb.ResetRequest())


def test_a_server_that_closes_the_handover_with_word_of_a_client_unread_can_still_ask(server):
    direct, attached = server.bring()
    assert not attached.HasField("error")
    server.handover.close()  # and so ATTACHED is never read, which breaks the connection
    assert server.ask(RESET).HasField("reset")
    direct.send(pb.Request(sequence=1).SerializeToString())
    assert pb.Response.FromString(direct.receive()).HasField("reset")
    direct.close()


def test_the_server_is_told_of_who_comes_and_goes(server):
    direct, _ = server.bring()
    assert hear(server.handover) == (ToServer.ATTACHED, 0, None)
    tell(server.handover, ToWorker.CUT)
    told = pb.Response.FromString(direct.receive())
    assert (told.sequence, told.error.kind) == (0, pb.ErrorDetail.OUT_OF_SEQUENCE)
    assert direct.receive() is None
    assert hear(server.handover) == (ToServer.DETACHED, 0, None)
    assert server.ask(RESET).HasField("reset")
    direct.close()


def test_a_client_that_leaves_as_it_is_cut_off_does_not_hold_up_the_next(server):
    """Both are found at once, by a worker that was busy when they came."""
    direct, _ = server.bring()
    assert server.ask(RESET).HasField("reset")
    slow = pb.StepRequest(packed=ACTION["slow"].to_bytes(8, "little"))
    server.requests.send(pb.Request(sequence=2, step=slow).SerializeToString())
    tell(server.handover, ToWorker.CUT)
    direct.close()
    assert pb.Response.FromString(server.requests.receive()).HasField("step")
    direct, attached = server.bring()
    assert not attached.HasField("error")
    direct.close()


def test_a_client_is_told_for_how_long_the_worker_polls(server):
    tell(server.handover, ToWorker.POLL, 70)
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
