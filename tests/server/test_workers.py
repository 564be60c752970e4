"""Starting workers: what the launcher is asked, however busy it is."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from remote_gym.server.launcher import Command
from remote_gym.server.workers import ProcessWorkers

LIMIT = 2**20


@pytest.mark.parametrize("launches", [1, 12])
def test_what_a_busy_launcher_cannot_take_yet_waits_and_nothing_is_lost(launches):
    async def test() -> None:
        workers = ProcessWorkers(None, LIMIT)
        try:
            await workers.launch("first")
            process = workers._process
            os.kill(process.pid, signal.SIGSTOP)
            for _ in range(20_000):  # of workers that do not exist, and so without effect
                workers._send(Command.KILL, 10**9)
            assert workers._outgoing
            waiting = [asyncio.ensure_future(workers.launch(f"{number}")) for number in range(launches)]
            await asyncio.sleep(0.05)
            assert not any(launch.done() for launch in waiting)
            os.kill(process.pid, signal.SIGCONT)
            launched = await asyncio.wait_for(asyncio.gather(*waiting), 30.0)
            assert workers._process is process
            assert not workers._outgoing
            for worker in launched:
                await worker.close(5.0)
                assert worker.exited.result() == "its worker ended with status 0"
        finally:
            await workers.stop()

    asyncio.run(asyncio.wait_for(test(), 60.0))


def test_a_launcher_that_dies_takes_its_workers_along_and_another_is_started():
    async def test() -> None:
        workers = ProcessWorkers(None, LIMIT)
        try:
            first = await workers.launch("first")
            workers._process.kill()
            assert "the launcher" in await asyncio.wait_for(first.gone, 10.0)
            second = await workers.launch("second")
            await second.close(5.0)
            assert second.exited.result() == "its worker ended with status 0"
        finally:
            await workers.stop()

    asyncio.run(asyncio.wait_for(test(), 60.0))
