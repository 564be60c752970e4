"""The records between a server and a worker, and the descriptors that go along."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from processes import open_descriptors
from remote_gym.ipc.control import RECORD, WorkerCommand, WorkerEvent, receive_record, send_record

pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="descriptors cannot be sent")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_descriptor_arrives_at_a_worker(pair):
    ours, theirs = pair
    send_record(theirs, WorkerCommand.CONNECTION, 3, descriptor=ours.fileno())
    kind, value, descriptor = receive_record(ours)
    assert (kind, value) == (WorkerCommand.CONNECTION, 3)
    os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_of_many_descriptors_one_is_taken(pair):
    ours, theirs = pair
    before = open_descriptors()
    record = RECORD.pack(WorkerEvent.ATTACHED, 0)
    for index in range(len(record)):
        socket.send_fds(theirs, [record[index : index + 1]], [ours.fileno()] * 20)
    _, _, descriptor = receive_record(ours)
    assert len(open_descriptors()) == len(before) + 1
    os.close(descriptor)


def test_the_end_is_told(pair):
    ours, theirs = pair
    theirs.close()
    assert receive_record(ours) is None
