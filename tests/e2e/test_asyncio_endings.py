"""Asynchronous environments that are closed, dropped, or left by their loop, their process or a fork: nothing stays."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from awaited import LOOPS, new_loop, run
from environments import ACTION
from remote_gym import AsyncRemoteEnvironment, SessionLost
from remote_gym.client.aio import channel, grpc_stream
from remote_gym.testing import LoopbackServer
from waiting import becomes_true, scaled, wait_until

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS)
def run_on(request: pytest.FixtureRequest) -> Run:
    return lambda coroutine: run(coroutine, request.param)


def is_empty(server: LoopbackServer) -> bool:
    return not server.server.sessions()


def threads() -> set[str]:
    """Names of threads, but for those of the loop itself, in which names are resolved and files of keys looked at."""
    return {each.name for each in threading.enumerate() if not each.name.startswith(("asyncio_", "uvloop_"))}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")
def test_nothing_is_left_of_closed_ones_in_a_loop_that_goes_on(run_on, process_server):
    async def use() -> None:
        environments = [process_server.async_environment() for _ in range(4)]
        await asyncio.gather(*(each.reset() for each in environments))
        await asyncio.gather(*(each.step(ACTION["step"]) for each in environments))
        environments[0]._session._carrier.stream.shut_down()
        task = asyncio.create_task(environments[1].step(ACTION["slow"]))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, *(each.step(ACTION["step"]) for each in environments), return_exceptions=True)
        await asyncio.gather(*(each.close() for each in environments))

    async def main() -> None:
        # Other tests may have left environments open in this process, to their servers' fixtures.
        others, known = asyncio.all_tasks(), threads()
        await use()
        await asyncio.sleep(0.2)
        before = descriptors(), known | (threads() - {"remote_gym-dropped"})
        for _ in range(2):
            await use()
            assert asyncio.all_tasks() == others
        gc.collect()
        for _ in range(100):
            now = descriptors(), threads()
            if now[0] <= before[0] and now[1] <= before[1]:
                break
            await asyncio.sleep(0.05)
        assert now[0] <= before[0]
        assert now[1] <= before[1]
        assert not channel._servers[asyncio.get_running_loop()]

    run_on(main())


def test_sessions_of_one_loop_share_a_channel_and_a_thread_is_not_one_for_each(process_server):
    async def main() -> None:
        before = threading.active_count()
        environments = [process_server.async_environment() for _ in range(20)]
        await asyncio.gather(*(each.reset() for each in environments))
        await asyncio.gather(*(each.step(ACTION["step"]) for each in environments))
        assert len({id(each._session._connection._channel) for each in environments}) == 1
        # Those that close what is dropped, 16 at most, gRPC's own, and those in which names are resolved.
        assert threading.active_count() - before <= 16 + 1 + (os.cpu_count() or 1) + 4
        await asyncio.gather(*(each.close() for each in environments))

    run(main())


@pytest.mark.parametrize("what", ["plain", "broken", "cancelled"])
def test_what_grpc_has_is_freed_by_the_close_and_not_by_the_garbage_collector(process_server, what):
    """It ends with the last of its objects, and with it a thread, sockets and descriptors."""

    async def main() -> None:
        environment = process_server.async_environment()
        await environment.reset()
        await environment.step(ACTION["step"])
        if what == "broken":
            environment._session._carrier.stream.shut_down()
        elif what == "cancelled":
            task = asyncio.create_task(environment.step(ACTION["step"]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            del task
        await environment.step(ACTION["step"])
        freed = [weakref.ref(environment._session), weakref.ref(environment._session._connection._channel)]
        await environment.close()
        await asyncio.sleep(0.1)
        assert [each() for each in freed] == [None, None]

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_more_sessions_than_a_connection_takes_calls_have_more_channels(process_server, monkeypatch):
    monkeypatch.setattr(channel, "MOST_SESSIONS", 2)

    async def main() -> None:
        environments = [process_server.async_environment() for _ in range(5)]
        await asyncio.gather(*(each.reset() for each in environments))
        assert len({id(each._session._connection._channel) for each in environments}) == 3
        await asyncio.gather(*(each.close() for each in environments))

    run(main())


def test_calls_over_grpc_are_ended_and_not_taken_back(process_server, monkeypatch):
    """A server cuts off clients that take back many calls soon."""
    noted: list[object] = []
    conduct = process_server.server._conduct if hasattr(process_server.server, "_conduct") else None
    if conduct is not None:
        monkeypatch.setattr(conduct, "note_reset", noted.append)
    cancelled: list[object] = []
    close = grpc_stream.AsyncGrpcStream.close

    def spying(self: Any) -> None:
        close(self)
        self._call.add_done_callback(lambda call: cancelled.append(call) if call.cancelled() else None)

    monkeypatch.setattr(grpc_stream.AsyncGrpcStream, "close", spying)

    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            for _ in range(3):
                await environment.step(ACTION["step"])
                environment._session._carrier.detach()
        await asyncio.sleep(0)

    run(main())
    assert not cancelled
    assert not noted


def test_a_dropped_one_gives_its_place_back_at_once(run_on, process_server):
    async def main() -> None:
        environment = process_server.async_environment()
        await environment.reset()
        await environment.step(ACTION["step"])
        assert not is_empty(process_server)
        del environment
        gc.collect()
        for _ in range(200):
            if is_empty(process_server):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("its lease is a minute")

    run_on(main())


@pytest.mark.parametrize("shuts_down", [True, False], ids=["as asyncio.run ends it", "merely closed"])
@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_whose_loop_has_ended_gives_its_place_back(process_server, kind, shuts_down):
    environment = process_server.async_environment()

    async def use() -> None:
        await environment.reset()
        await environment.step(ACTION["step"])

    loop = new_loop(kind)
    loop.run_until_complete(use())
    if shuts_down:
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    if shuts_down:
        wait_until(lambda: is_empty(process_server))
    with pytest.raises(Exception, match="event loop"):
        run(environment.step(ACTION["step"]))

    async def again() -> int:
        async with process_server.async_environment() as other:
            await other.reset()
        await environment.close()
        return 1

    assert run(again()) == 1
    wait_until(lambda: is_empty(process_server))
    gc.collect()  # of what such a loop leaves asyncio itself complains, here and not in another test


@pytest.mark.parametrize("how", ["left in a loop", "left after asyncio.run", "killed by an exception"])
def test_what_a_process_leaves_open_is_closed_as_it_ends(process_server, how):
    script = f"""
    import asyncio, sys
    from pathlib import Path
    from remote_gym import AsyncRemoteEnvironment
    paths = {tuple(map(str, process_server.client_credentials_paths))!r}
    environments = [
        AsyncRemoteEnvironment(
            port={process_server.server.port}, client_credentials_paths=paths,
            connection={process_server.client_arguments["connection"]!r},
        )
        for _ in range(5)
    ]
    async def main():
        await asyncio.gather(*(each.reset() for each in environments))
        await asyncio.gather(*(each.step(0) for each in environments))
        if {how!r} == "killed by an exception":
            raise SystemExit(3)
    if {how!r} == "left in a loop":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
    else:
        asyncio.run(main())
    """
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=scaled(60.0),
        check=False,
    )
    assert finished.returncode == (3 if how == "killed by an exception" else 0), finished.stderr
    assert becomes_true(lambda: is_empty(process_server), scaled(2.0)), "the lease is a minute"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_says_what_it_cannot_do_and_the_parent_goes_on(tmp_path):
    """In a process of its own: a child of one that runs gRPC for a server, too, is not what users fork.

    Unless gRPC's own code ends the child, which begins threads there as soon as it is forked: some were gone in 2 ms.
    """
    script = """
    import asyncio, os, sys
    from pathlib import Path
    from remote_gym import AsyncRemoteEnvironment, ConnectError, SessionError, create_remote_environment_server

    def child(environment, arguments, told):
        async def main():
            try:
                await environment.step(0)
            except SessionError as error:
                told.append(str(error))
            try:
                await AsyncRemoteEnvironment(**arguments).reset()
            except ConnectError as error:
                told.append(str(error))
        asyncio.run(main())

    async def main(port):
        arguments = {"port": port, "connection": "grpc"}
        async with AsyncRemoteEnvironment(**arguments) as environment:
            await environment.reset()
            await environment.step(0)
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                told = []
                try:
                    child(environment, arguments, told)
                finally:
                    Path(sys.argv[1]).write_text("\\n".join(told))
                    os._exit(0)
            for count in range(2, 7):
                await asyncio.sleep(0.02)
                assert (await environment.step(0))[0]["count"] == count
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            print(os.waitstatus_to_exitcode(status))

    asyncio.run(main(int(sys.argv[2])))
    """
    told = tmp_path / "told"
    server = (
        "import sys\n"
        "from remote_gym import create_remote_environment_server\n"
        "server = create_remote_environment_server({'entrypoint': 'environments.py'}, 'localhost', 0, check=False)\n"
        "print(server.port, flush=True)\n"
        "sys.stdin.read()\n"
        "server.stop()\n"
    )
    folder = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    ) as serving:
        assert serving.stdout is not None
        port = serving.stdout.readline().strip()
        finished = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(told), port],
            capture_output=True,
            text=True,
            timeout=scaled(60.0),
            check=False,
        )
        assert serving.stdin is not None
        serving.stdin.close()
    assert finished.returncode == 0, finished.stderr
    if int(finished.stdout) in (-signal.SIGABRT, -signal.SIGSEGV):
        return
    assert int(finished.stdout) == 0
    first, second = told.read_text().splitlines()
    assert "fork" in first
    assert "gRPC cannot be used in this process" in second


def test_a_closed_one_says_so_and_can_be_opened_again(process_server):
    async def main() -> None:
        environment: AsyncRemoteEnvironment = process_server.async_environment()
        await environment.reset()
        session = environment._session
        await environment.close()
        await environment.close()
        assert session.lost
        with pytest.raises(SessionLost, match="closed"):
            await session.ask(None, 1.0)
        with pytest.raises(Exception, match="was closed"):
            await environment.step(0)
        await environment.reset()
        await environment.close()

    run(main())
