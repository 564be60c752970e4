"""The records between a server and a worker, and the descriptors that go along."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from processes import open_descriptors
from remote_gym.server.handover import ToServer, ToWorker, hear, tell

pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="descriptors cannot be sent")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_descriptor_arrives_at_a_worker(pair):
    ours, theirs = pair
    tell(theirs, ToWorker.CONNECTION, 3, descriptor=ours.fileno())
    kind, value, descriptor = hear(ours, takes_descriptors=True)
    assert (kind, value) == (ToWorker.CONNECTION, 3)
    os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_server_holds_no_descriptors_that_a_worker_sends(pair):
    ours, theirs = pair
    before = open_descriptors()
    for _ in range(10):
        tell(theirs, ToServer.ATTACHED, descriptor=ours.fileno())
        assert hear(ours, takes_descriptors=False) == (ToServer.ATTACHED, 0, None)
    assert len(open_descriptors()) == len(before)


def test_the_end_is_told(pair):
    ours, theirs = pair
    theirs.close()
    assert hear(ours, takes_descriptors=True) is None
