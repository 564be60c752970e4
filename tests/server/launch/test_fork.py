"""Starting workers: what the forkserver is asked, however busy it is."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from processes import descendants, is_alive
from remote_gym.errors import ServerFull
from remote_gym.server.launch import fork
from remote_gym.server.launch import forkserver_client as launching
from remote_gym.server.launch.fork import ForkLauncher
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import LaunchSpec
from remote_gym.worker.forkserver import Command
from waiting import scaled

LIMIT = 2**20


def spec(session: str) -> LaunchSpec:
    return LaunchSpec(session=session)


@pytest.mark.parametrize("launches", [1, 12])
def test_what_a_busy_forkserver_cannot_take_yet_waits_and_nothing_is_lost(launches):
    async def test() -> None:
        workers = ForkLauncher(LIMIT)
        try:
            await workers.launch(spec("first"))
            process = workers._newest[None, ()].process
            os.kill(process.pid, signal.SIGSTOP)
            for _ in range(20_000):  # of workers that do not exist, and so without effect
                workers._newest[None, ()].send(Command.KILL, 10**9)
            assert workers._newest[None, ()]._outgoing
            waiting = [asyncio.ensure_future(workers.launch(spec(f"{number}"))) for number in range(launches)]
            await asyncio.sleep(0.05)
            assert not any(launch.done() for launch in waiting)
            os.kill(process.pid, signal.SIGCONT)
            launched = await asyncio.wait_for(asyncio.gather(*waiting), scaled(30.0))
            assert workers._newest[None, ()].process is process
            assert not workers._newest[None, ()]._outgoing
            for worker in launched:
                await worker.close(5.0)
                assert worker.exited.result() == "its worker ended with status 0"
        finally:
            await workers.stop()

    asyncio.run(asyncio.wait_for(test(), scaled(60.0)))


def test_a_forkserver_that_dies_takes_its_workers_along_and_another_is_started():
    async def test() -> None:
        workers = ForkLauncher(LIMIT)
        try:
            first = await workers.launch(spec("first"))
            workers._newest[None, ()].process.kill()
            assert "the forkserver" in await asyncio.wait_for(first.gone, scaled(10.0))
            second = await workers.launch(spec("second"))
            await second.close(5.0)
            assert second.exited.result() == "its worker ended with status 0"
        finally:
            await workers.stop()

    asyncio.run(asyncio.wait_for(test(), scaled(60.0)))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_forkserver_that_does_not_answer_is_replaced_and_its_workers_go_on(monkeypatch):
    monkeypatch.setattr(launching, "ANSWER_TIMEOUT", 0.5)

    async def test() -> None:
        workers = ForkLauncher(LIMIT)
        try:
            first = await workers.launch(spec("first"))
            stopped = workers._newest[None, ()].process
            os.kill(stopped.pid, signal.SIGSTOP)
            waiting = [workers.launch(spec(f"{number}")) for number in range(12)]  # some wait
            answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), scaled(30.0))
            refused = [answer for answer in answers if isinstance(answer, Exception)]
            assert len(refused) == fork.LAUNCHES_AT_ONCE
            assert {type(error) for error in refused} == {ServerFull}
            assert "has not answered for 0.5 s; try again" in str(refused[0])
            assert workers._newest[None, ()].process is not stopped
            for answer in answers:
                if isinstance(answer, WorkerHandle):
                    await answer.close(5.0)
            # What it was asked for it may do one day. Nobody uses those workers, and they end.
            os.kill(stopped.pid, signal.SIGCONT)
            await until(lambda: len(descendants(stopped.pid)) > 1)
            await until(lambda: descendants(stopped.pid) == {first.pid})
            assert not first.gone.done()
            await first.close(5.0)
            assert first.exited.result() == "its worker ended with status 0"
            await until(lambda: stopped.poll() is not None)
        finally:
            await workers.stop()

    asyncio.run(asyncio.wait_for(test(), scaled(60.0)))


@pytest.mark.parametrize("noticed_by", ["a launch", "the kill itself"])
def test_a_worker_whose_forkserver_does_not_answer_is_killed_without_it(monkeypatch, noticed_by):
    monkeypatch.setattr(launching, "ANSWER_TIMEOUT", 0.3)

    async def test() -> None:
        workers = ForkLauncher(LIMIT)
        try:
            worker, other = await workers.launch(spec("hangs")), await workers.launch(spec("other"))
            forkserver = workers._newest[None, ()].process
            for process in (worker.pid, forkserver.pid):
                os.kill(process, signal.SIGSTOP)
            if noticed_by == "a launch":
                with pytest.raises(ServerFull):
                    await workers.launch(spec("none"))
            await worker.close(0.1)
            await asyncio.wait_for(worker.exited, scaled(10.0))
            assert "its forkserver does not answer" in worker.exited.result()
            await until(lambda: not is_alive(worker.pid))
            assert not other.gone.done()
            assert forkserver.poll() is None
            await other.close(0.1)
            await until(lambda: forkserver.poll() is not None)
        finally:
            await workers.stop()

    asyncio.run(asyncio.wait_for(test(), scaled(60.0)))


def test_a_forkserver_that_is_stopped_does_not_keep_the_server_from_ending(monkeypatch):
    monkeypatch.setattr(fork, "STOP_TIMEOUT", 0.3)

    async def test() -> None:
        workers = ForkLauncher(LIMIT)
        worker = await workers.launch(spec("first"))
        os.kill(workers._newest[None, ()].process.pid, signal.SIGSTOP)
        await workers.stop()
        assert workers._newest[None, ()].process.poll() == -signal.SIGKILL
        assert worker.exited.result() == "the server is stopping"
        await worker.gone

    asyncio.run(asyncio.wait_for(test(), scaled(60.0)))
