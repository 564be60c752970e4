"""A worker's client as the server holds on to it: its connection ends with the worker, whoever else has it open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from processes import open_descriptors
from remote_gym.ipc.control import RECORD, WorkerEvent, send_record
from remote_gym.ipc.records import receive_descriptors
from remote_gym.server.launch.disconnects import Disconnects
from remote_gym.server.launch.handle import WorkerHandle
from waiting import scaled

pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="descriptors cannot be sent")


@dataclass
class Ends:
    """Both ends of what a worker has: here the test is the worker, its client, and what the worker has forked."""

    ours: tuple[socket.socket, ...]
    theirs: tuple[socket.socket, ...]
    client: socket.socket
    held: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    pairs = [socket.socketpair() for _ in range(3)]
    requests, control, connection = pairs
    with contextlib.ExitStack() as stack:
        for pair in pairs:
            for end in pair:
                stack.enter_context(end)
        yield Ends((requests[0], control[0]), (requests[1], control[1]), *connection)


def has_ended(client: socket.socket, timeout: float = 0.0) -> bool:
    ready, _, _ = select.select([client], [], [], timeout)
    return bool(ready) and client.recv(100) == b""


async def connected(ends: Ends, disconnects: Disconnects) -> WorkerHandle:
    worker = WorkerHandle("name", lambda: None, 2**20)
    await worker.connect(*ends.ours, disconnects=disconnects)
    return worker


async def attached(ends: Ends, worker: WorkerHandle) -> None:
    heard = asyncio.Event()
    worker.on_event = lambda word, _: heard.set()
    send_record(ends.theirs[1], WorkerEvent.ATTACHED, 1, descriptor=ends.held.fileno())
    await heard.wait()


def run(test) -> None:
    asyncio.run(asyncio.wait_for(test(), scaled(30)))


def test_a_client_loses_its_connection_with_its_worker(ends):
    async def test() -> None:
        worker = await connected(ends, disconnects := Disconnects())
        await attached(ends, worker)
        ends.held.sendall(b"the last answer")
        worker.set_exited("its worker was ended by SIGKILL")
        assert ends.client.recv(100) == b"the last answer"
        assert has_ended(ends.client)
        await worker.gone
        disconnects.close()

    run(test)


def test_a_client_that_came_just_before_its_workers_end_loses_its_connection(ends):
    async def test() -> None:
        worker = await connected(ends, disconnects := Disconnects())
        send_record(ends.theirs[1], WorkerEvent.DRAINED)
        send_record(ends.theirs[1], WorkerEvent.ATTACHED, 1, descriptor=ends.held.fileno())
        worker.set_exited("its worker was ended by SIGKILL")  # of which the server hears first
        assert has_ended(ends.client)
        await worker.gone
        disconnects.close()

    run(test)


def test_a_client_whose_session_is_closed_is_its_workers_to_tell_until_that_has_ended(ends):
    async def test() -> None:
        worker = await connected(ends, disconnects := Disconnects())
        await attached(ends, worker)
        closing = asyncio.ensure_future(worker.close(10.0))
        await worker.gone
        assert not has_ended(ends.client)
        ends.held.sendall(b"farewell")
        assert ends.client.recv(100) == b"farewell"
        worker.set_exited("its worker ended with status 0")
        assert has_ended(ends.client)
        await closing
        disconnects.close()

    run(test)


def test_a_client_of_a_worker_that_cannot_be_killed_loses_its_connection(ends, monkeypatch):
    monkeypatch.setattr("remote_gym.server.launch.handle.KILL_TIMEOUT", 0.05)

    async def test() -> None:
        worker = await connected(ends, disconnects := Disconnects())
        await attached(ends, worker)
        await worker.close(0.05)
        assert has_ended(ends.client)
        disconnects.close()

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_that_has_ended_leaves_nothing_though_another_goes_on_sending(ends):
    stop = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                ends.theirs[1].sendall(RECORD.pack(WorkerEvent.DRAINED, 0) * 100)

    async def test() -> None:
        before = set(open_descriptors())
        worker = await connected(ends, disconnects := Disconnects())
        await attached(ends, worker)
        sender = threading.Thread(target=flood)
        sender.start()
        worker.set_exited("its worker was ended by SIGKILL")
        assert has_ended(ends.client)
        await worker.gone
        stop.set()
        await asyncio.to_thread(sender.join)
        disconnects.close()
        assert set(open_descriptors()) <= before

    run(test)


def test_no_program_inherits_a_received_descriptor(ends):
    sender, receiver = ends.theirs[0], ends.ours[0]
    socket.send_fds(sender, [b"x"], [ends.client.fileno(), ends.held.fileno()])
    data, descriptors = receive_descriptors(receiver, 1, 4)
    assert (data, len(descriptors)) == (b"x", 2)
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
