"""The server's end of a worker that it ends, at the other end of which is this test."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from pathlib import Path

import pytest

from processes import open_descriptors
from remote_gym.errors import SessionLost
from remote_gym.ipc.control import WorkerEvent, send_record
from remote_gym.server.launch.disconnects import Disconnects
from remote_gym.server.launch.handle import WorkerHandle
from waiting import scaled

LIMIT = 2**20


async def stacks() -> str:
    return 'File "a.py", line 1 in step\n\x1b[31mforged\r\n'


def test_who_is_ended_sees_nothing_of_it_until_dead_and_who_asks_is_told_the_reason(caplog):
    async def test() -> None:
        killed = asyncio.Event()
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        worker = WorkerHandle("name", killed.set, LIMIT, stacks=stacks)
        worker.pid = 2**22 + 1
        await worker.connect(*ours)
        assert not worker.ending
        asked = asyncio.ensure_future(worker.ask(b"question"))
        ending = asyncio.ensure_future(worker.end("it hung"))
        await killed.wait()
        for _ in range(10):  # turns of the loop, in which a connection that was closed would end
            await asyncio.sleep(0)
        # What it saw now it would tell a direct client, as a reason of its own.
        theirs[0].setblocking(False)
        theirs[0].recv(100)
        with pytest.raises(BlockingIOError):
            theirs[0].recv(100)
        assert not worker.gone.done()
        assert worker.ending, "whoever asks what became of it waits for the reason"
        worker.set_exited("its worker was ended by SIGKILL")
        await ending
        assert await worker.gone == "it hung"
        assert theirs[0].recv(100) == b""
        with pytest.raises(SessionLost, match="session name: it hung"):
            await asked
        await worker.end("something else")
        assert worker.gone.result() == "it hung"
        for end in theirs:
            end.close()

    caplog.set_level(logging.WARNING, logger="remote_gym")
    asyncio.run(asyncio.wait_for(test(), scaled(30)))
    (record,) = caplog.records
    first, *lines = record.getMessage().split("\n")
    assert first == "session name: it hung; killing it; where it is:"
    assert lines == ['  | File "a.py", line 1 in step', r"  | \x1b[31mforged"]


def test_a_thread_is_let_go_at_once_since_it_cannot_be_killed():
    async def test() -> None:
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        worker = WorkerHandle("name", lambda: None, LIMIT, stacks=stacks)
        await worker.connect(*ours)
        await worker.end("it hung")
        assert await worker.gone == "it hung"
        assert not worker.exited.done()
        for end in theirs:
            end.close()

    asyncio.run(asyncio.wait_for(test(), scaled(30)))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_has_the_server_hold_one_connection_and_nothing_else():
    async def test() -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        disconnects = Disconnects()
        worker = WorkerHandle("name", lambda: None, LIMIT)
        words: list[int] = []
        worker.on_event = lambda word, _: words.append(word)
        await worker.connect(*ours, disconnects=disconnects)
        client, other = socket.socketpair()
        with client, other, Path("/dev/null").open() as file:
            send_record(theirs[1], WorkerEvent.ATTACHED, 1, descriptor=client.fileno())
            while len(words) < 1:
                await asyncio.sleep(0.001)
            held = len(open_descriptors())
            sent = [(WorkerEvent.ATTACHED, client), (WorkerEvent.ATTACHED, client), (WorkerEvent.DRAINED, client)]
            for word, what in [*sent, (WorkerEvent.DETACHED, client), (WorkerEvent.ATTACHED, file)]:
                send_record(theirs[1], word, 1, descriptor=what.fileno())
            while len(words) < 6:
                await asyncio.sleep(0.001)
            assert len(open_descriptors()) == held - 1
        worker.set_exited("it ended")
        await worker.close(1.0)
        await worker.gone
        disconnects.close()
        for end in theirs:
            end.close()

    asyncio.run(asyncio.wait_for(test(), scaled(30)))


def test_what_a_session_has_yet_to_ask_when_it_ends_is_not_asked_of_the_next_one():
    async def test() -> None:
        requests, theirs = socket.socketpair()
        control, other = socket.socketpair()
        worker = WorkerHandle("one", lambda: None, 2**20)
        await worker.connect(requests, control, disconnects=Disconnects())
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        first, second = (asyncio.ensure_future(worker.ask(data)) for data in (b"first", b"second"))
        assert await loop.sock_recv(theirs, 100) == b"\0\0\0\5first"
        assert worker.is_asked
        worker.assign("two")
        await loop.sock_sendall(theirs, b"\0\0\0\1a")
        assert await first == b"a"
        with pytest.raises(SessionLost, match="session one: its client closed it"):
            await second
        third = asyncio.ensure_future(worker.ask(b"third"))
        assert await loop.sock_recv(theirs, 100) == b"\0\0\0\5third"
        worker.set_exited("it has ended")
        theirs.close()
        other.close()
        with pytest.raises(SessionLost, match="session two"):
            await third
        await worker.close(0.0)

    asyncio.run(asyncio.wait_for(test(), scaled(30)))


@pytest.mark.parametrize("says", [1, 0, None])
def test_a_worker_says_whether_it_waits_for_another_session(says):
    async def test() -> None:
        requests, theirs = socket.socketpair()
        control, other = socket.socketpair()
        worker = WorkerHandle("one", lambda: None, 2**20)
        await worker.connect(requests, control, disconnects=Disconnects())
        leaving = asyncio.ensure_future(worker.leave(0.1 if says is None else scaled(10.0)))
        await asyncio.sleep(0)
        if says is not None:
            send_record(other, WorkerEvent.DETACHED, 3)
            send_record(other, WorkerEvent.LEFT, says)
        assert await leaving is (says == 1)
        worker.set_exited("it has ended")
        theirs.close()
        other.close()
        await worker.close(0.0)

    asyncio.run(asyncio.wait_for(test(), scaled(30)))
