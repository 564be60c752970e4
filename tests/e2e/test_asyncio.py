"""Environments whose methods are awaited: many at once, cancelled, interrupted, failing over and handed over."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from awaited import LOOPS, run
from environments import ACTION
from remote_gym import (
    AsyncRemoteEnvironment,
    ConfigError,
    ConnectError,
    DeadlineExceeded,
    InvalidAction,
    NotPermitted,
    RemoteEnvironment,
    RemoteEnvironmentError,
    ServerFull,
    SessionError,
    SessionLost,
    create_remote_environment_server,
)
from remote_gym.client.aio import connection as connection_module
from remote_gym.client.rules import servers as servers_module
from remote_gym.testing import LoopbackServer, loopback_server
from waiting import scaled, wait_until

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS)
def run_on(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of loop."""
    return lambda coroutine: run(coroutine, request.param)


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + scaled(20.0)
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_it_is_opened_and_reset_in_one_round_trip_and_not_before(process_server, monkeypatch):
    made: list[str] = []
    begin = connection_module.AsyncConnection._begin

    async def spying(self: Any, method: str, *arguments: Any, **more: Any) -> Any:
        made.append(method)
        return await begin(self, method, *arguments, **more)

    monkeypatch.setattr(connection_module.AsyncConnection, "_begin", spying)

    async def main() -> None:
        async with process_server.async_environment() as environment:
            assert not process_server.server.sessions()
            with pytest.raises(AttributeError, match="await reset"):
                _ = environment.observation_space
            with pytest.raises(ResetNeeded):
                await environment.step(0)
            observation, info = await environment.reset(seed=1, options={"a": 1})
            assert (observation["count"], info["options"]) == (0, {"a": 1})
            assert made == ["Open"]
            assert environment.action_space.n == len(ACTION)
            assert (await environment.step(ACTION["step"]))[0]["count"] == 1
            assert environment.connection_info.connected_over == process_server.client_arguments["connection"]
        assert not process_server.server.sessions()

    run(main())


def test_a_session_whose_agent_thinks_for_longer_than_its_lease_is_still_there():
    """It is connected right after it was opened, and not with the first step."""

    async def main(server: LoopbackServer) -> None:
        async with server.async_environment() as environment:
            await environment.reset()
            await asyncio.sleep(2.5 * lease)
            assert (await environment.step(ACTION["step"]))[0]["count"] == 1

    lease = scaled(0.4)
    with loopback_server({"entrypoint": "environments.py"}, use_thread=True, lease=lease) as server:
        run(main(server), seconds=60.0)


def test_spaces_are_known_before_the_first_reset_where_it_is_opened(server):
    async def main() -> None:
        async with server.async_environment() as environment:
            await environment.open()
            await environment.open()
            assert environment.action_space.n == len(ACTION)
            with pytest.raises(ResetNeeded):
                await environment.step(0)
            assert (await environment.reset())[0]["count"] == 0

    run(main())


def test_many_are_used_at_once_by_gather(run_on, server):
    async def main() -> None:
        environments = [server.async_environment() for _ in range(8)]
        try:
            await asyncio.gather(*(each.reset(seed=number) for number, each in enumerate(environments)))
            start = time.monotonic()
            await asyncio.gather(*(each.step(ACTION["slow"]) for each in environments))
            assert time.monotonic() - start < 8.0  # of which each takes one
            found = await asyncio.gather(*(each.step(ACTION["step"]) for each in environments))
            assert [each[0]["count"] for each in found] == [2] * 8
        finally:
            await asyncio.gather(*(each.close() for each in environments))

    run_on(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
def test_one_that_fails_in_a_task_group_cancels_the_others_which_can_be_used_on(run_on, process_server):
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            first, second = [await stack.enter_async_context(process_server.async_environment()) for _ in range(2)]
            await asyncio.gather(first.reset(), second.reset())
            await asyncio.gather(first.step(ACTION["step"]), second.step(ACTION["step"]))  # connected by then

            async def step_both() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(first.step(ACTION["slow"]))
                    group.create_task(second.step(ACTION["raise"]))

            with pytest.raises(BaseExceptionGroup) as raised:  # noqa: F821 - Python 3.11's
                await step_both()
            assert [type(each) for each in raised.value.exceptions] == [RemoteEnvironmentError]
            assert (await first.step(ACTION["step"]))[0]["count"] == 3  # the slow one has run, once
            assert (await second.step(ACTION["step"]))[0]["count"] == 3

    run_on(main())


def test_a_cancelled_await_leaves_an_environment_whose_next_answer_is_its_own(run_on, process_server):
    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            await environment.step(ACTION["step"])
            for count in (3, 5, 7):
                task = asyncio.create_task(environment.step(ACTION["slow"]))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert environment._session.is_behind
                observation, *_, info = await environment.step(ACTION["step"])
                assert (observation["count"], info["action"]) == (count, ACTION["step"])
            assert len(process_server.server.sessions()) == 1

    run_on(main())


def test_awaits_that_are_cancelled_at_any_moment_skip_and_repeat_no_step(run_on, process_server):
    """After each number of the loop's turns that a step takes, and of those in which the missed answer is fetched."""

    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            known, turns = 0, 0
            while True:
                task = asyncio.create_task(environment.step(ACTION["step"]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                was_done = task.done()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                count = (await environment.step(ACTION["step"]))[0]["count"]
                assert known + 1 <= count <= known + 2
                known, turns = count, turns + 1
                if was_done or turns > 60:
                    break
            assert turns > 3
            assert not environment._session.lost

    run_on(main())


def test_an_opening_that_is_cancelled_at_any_moment_leaves_no_session(process_server):
    async def main() -> None:
        environment = process_server.async_environment()
        for turns in range(12):
            task = asyncio.create_task(environment.reset())
            for _ in range(turns):
                await asyncio.sleep(0.002)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert (await environment.reset())[0]["count"] == 0
        await environment.close()
        await eventually(lambda: not process_server.server.sessions())

    run(main())


def test_calls_of_one_environment_run_one_after_another_in_their_order(run_on, server):
    async def main() -> None:
        async with server.async_environment() as environment:
            (_, info), *found = await asyncio.gather(
                environment.reset(), *(environment.step(ACTION["step"]) for _ in range(10))
            )
            assert info["options"] is None
            assert [each[0]["count"] for each in found] == list(range(1, 11))

    run_on(main())


def test_who_waits_too_long_for_another_tasks_call_hears_so(process_server):
    async def main() -> None:
        async with process_server.async_environment(step_timeout=scaled(1.0) / 2) as environment:
            await environment.reset()
            environment._options = type(environment._options)(step_timeout=60.0)
            await environment.step(ACTION["step"])
            task = asyncio.create_task(environment.step(ACTION["slow"]))
            await asyncio.sleep(0)
            environment._options = type(environment._options)(step_timeout=0.01)
            with pytest.raises(DeadlineExceeded, match="another task"):
                await environment.step(ACTION["step"])
            assert (await task)[0]["count"] == 2

    run(main())


def test_a_late_answer_is_waited_for_before_the_next_request(process_server):
    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            await environment.step(ACTION["step"])
            patient = environment._options
            environment._options = type(patient)(step_timeout=0.1)
            with pytest.raises(DeadlineExceeded):
                await environment.step(ACTION["slow"])
            environment._options = patient
            assert (await environment.step(ACTION["step"]))[0]["count"] == 3

    run(main())


def test_a_broken_connection_is_made_again_and_no_step_lost_or_doubled(run_on, process_server):
    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            for count in range(1, 6):
                if count > 1:
                    environment._session._carrier.stream.shut_down()
                assert (await environment.step(ACTION["step"]))[0]["count"] == count
            task = asyncio.create_task(environment.step(ACTION["slow"]))
            await asyncio.sleep(0.05)
            environment._session._carrier.stream.shut_down()
            assert (await task)[0]["count"] == 6

    run_on(main())


def test_a_close_ends_the_call_of_another_task(process_server):
    async def main() -> None:
        environment = process_server.async_environment()
        await environment.reset()
        await environment.step(ACTION["step"])
        task = asyncio.create_task(environment.step(ACTION["slow"]))
        await asyncio.sleep(0.05)
        await environment.close()
        with pytest.raises(SessionLost, match="closed"):
            await task
        assert (await environment.reset())[0]["count"] == 0
        await environment.close()

    run(main())


def test_a_lost_session_is_told_and_replaced_by_the_next_reset(process_server):
    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            with pytest.raises(SessionLost):
                await environment.step(ACTION["exit"])
            with pytest.raises((SessionLost, ResetNeeded)):
                await environment.step(ACTION["step"])
            assert (await environment.reset())[0]["count"] == 0

    run(main())


def test_a_lost_session_ends_the_episode_where_it_is_to(process_server):
    async def main() -> None:
        async with process_server.async_environment(on_session_lost="truncate") as environment:
            before, _ = await environment.reset()
            observation, reward, terminated, truncated, info = await environment.step(ACTION["kill"])
            assert (observation["count"], reward, terminated, truncated) == (before["count"], 0.0, False, True)
            _, info = await environment.reset()
            assert info["pid"]

    run(main())


def test_a_reset_outlasts_a_server_that_restarts():
    arguments: dict[str, Any] = {"entrypoint": "environments.py"}

    async def main(server: Any, port: int) -> None:
        options: dict[str, Any] = {"on_session_lost": "truncate", "recover_timeout": 30.0, "reconnect_timeout": 0.5}
        async with AsyncRemoteEnvironment(port=port, connect_timeout=1.0, **options) as environment:
            await environment.reset()
            await asyncio.to_thread(server.stop)
            assert (await environment.step(ACTION["step"]))[3] is True
            task = asyncio.create_task(environment.reset())
            await asyncio.sleep(0.3)
            restarted = create_remote_environment_server(arguments, "localhost", port, use_thread=True, check=False)
            try:
                observation, _ = await task
                assert observation["count"] == 0
                await environment.close()
            finally:
                await asyncio.to_thread(restarted.stop)

    server = create_remote_environment_server(arguments, "localhost", 0, use_thread=True, check=False)
    run(main(server, server.port))


def test_of_several_servers_the_least_loaded_is_chosen_and_a_dead_one_left_out(monkeypatch):
    monkeypatch.setattr(servers_module, "LOAD_TIMEOUT", 0.5)
    arguments: dict[str, Any] = {"entrypoint": "environments.py"}

    async def main(addresses: list[str], one: Any, two: Any) -> None:
        environments = [AsyncRemoteEnvironment(addresses=addresses) for _ in range(6)]
        for each in environments:
            await each.reset()
        assert (len(one.sessions()), len(two.sessions())) == (3, 3)
        full = AsyncRemoteEnvironment(addresses=addresses)
        with pytest.raises(ServerFull, match="; "):
            await full.reset()
        await asyncio.gather(*(each.close() for each in environments))
        with pytest.raises(ConnectError):
            await AsyncRemoteEnvironment(addresses=addresses[:1], connect_timeout=0.3).reset()
        with pytest.raises(ConnectError, match="; "):
            await AsyncRemoteEnvironment(addresses=[addresses[0], "localhost:1"], connect_timeout=0.3).reset()

    with socket.socket() as reserved:
        reserved.bind(("localhost", 0))
        dead = f"localhost:{reserved.getsockname()[1]}"
        options: dict[str, Any] = {"use_thread": True, "max_sessions": 3, "check": False}
        with create_remote_environment_server(arguments, "localhost", 0, **options) as one:
            with create_remote_environment_server(arguments, "localhost", 0, **options) as two:
                run(main([dead, one.address, two.address], one, two))


def test_tickets_go_from_one_kind_of_client_to_the_other_and_back(server):
    async def take_over(ticket: Any) -> Any:
        async with server.async_environment(resume=ticket) as environment:
            await environment.open()
            assert environment.resumed.executed == 0
            assert environment.resumed.returned[0]["count"] == 1
            assert (await environment.step(ACTION["step"]))[0]["count"] == 2
            with pytest.raises(ConfigError):
                AsyncRemoteEnvironment(resume="ticket")
            return await environment.detach()

    async def resume_by_stepping(ticket: Any) -> None:
        async with server.async_environment(resume=ticket) as environment:
            assert (await environment.step(ACTION["step"]))[0]["count"] == 4

    first = RemoteEnvironment(**server._arguments({}))
    first.reset()
    first.step(ACTION["step"])
    ticket = run(take_over(first.detach()))
    second = RemoteEnvironment(**server._arguments({}), resume=ticket)
    assert second.step(ACTION["step"])[0]["count"] == 3
    run(resume_by_stepping(second.detach()))


def test_several_steps_in_one_round_trip_and_the_one_that_fails(server):
    async def main() -> None:
        async with server.async_environment() as environment:
            await environment.reset()
            found = await environment.step_many([ACTION["step"]] * 3)
            assert [each[0]["count"] for each in found] == [1, 2, 3]
            with pytest.raises(RemoteEnvironmentError) as raised:
                await environment.step_many([ACTION["step"], ACTION["raise"]])
            assert [each[0]["count"] for each in raised.value.transitions] == [4]

    run(main())


def test_what_is_exposed_is_called_read_and_set(server):
    async def main() -> None:
        async with server.async_environment() as environment:
            with pytest.raises(ResetNeeded):
                await environment.call("add", 1)
            await environment.reset()
            assert await environment.call("add", 1, b=2) == 3
            assert await environment.call("difficulty") == 3
            await environment.set("difficulty", 5)
            assert await environment.call("difficulty") == 5
            with pytest.raises(AttributeError, match="hidden"):
                await environment.call("hidden")
            with pytest.raises(AttributeError, match="method"):
                await environment.set("add", 5)
            with pytest.raises(AttributeError, match=r"await environment\.call"):
                _ = environment.difficulty
            with pytest.raises(RemoteEnvironmentError, match="nothing here"):
                await environment.call("fail")

    run(main())


@pytest.mark.parametrize("frames", ["auto", "step", "on_demand"])
def test_frames_are_those_of_the_newest_observation(server, frames):
    async def main() -> None:
        async with server.async_environment(render_mode="rgb_array", frames=frames) as environment:
            assert await environment.render() is None
            await environment.reset()
            for count in range(1, 4):
                await environment.step(ACTION["step"])
                assert np.array_equal(await environment.render(), np.full((4 + count, 6, 3), count, np.uint8))

    run(main())


def test_a_window_is_refused_and_what_would_do():
    with pytest.raises(ConfigError, match="'rgb_array'"):
        AsyncRemoteEnvironment(render_mode="human")


def test_an_action_that_does_not_fit_is_not_sent(server):
    async def main() -> None:
        async with server.async_environment() as environment:
            await environment.reset()
            with pytest.raises(InvalidAction):
                await environment.step("up")
            assert (await environment.step(ACTION["step"]))[0]["count"] == 1

    run(main())


@pytest.mark.parametrize("connection", ["auto", "direct"])
def test_a_server_without_direct_connections_is_used_over_grpc_unless_they_are_insisted_on(connection):
    async def main(server: LoopbackServer) -> None:
        async with server.async_environment(connection=connection) as environment:
            if connection == "direct":
                with pytest.raises(ConnectError, match="no direct"):
                    await environment.reset()
            else:
                await environment.reset()
                await environment.step(ACTION["step"])
                assert environment.connection_info.connected_over == "grpc"
        assert not server.server.sessions()

    with loopback_server({"entrypoint": "environments.py"}, use_thread=True, direct=False) as server:
        run(main(server))


def test_one_that_is_refused_says_why_as_the_blocking_one_does():
    async def main(server: LoopbackServer, arguments: dict[str, Any]) -> None:
        with pytest.raises((ConnectError, NotPermitted)) as awaited:
            await server.async_environment(**arguments).reset()
        with pytest.raises((ConnectError, NotPermitted)) as blocking:
            RemoteEnvironment(**server._arguments(arguments))
        assert type(awaited.value) is type(blocking.value)
        assert str(awaited.value) == str(blocking.value)

    with loopback_server({"entrypoint": "environments.py"}, use_thread=True) as server:
        for arguments in (
            {"client_credentials_paths": None, "connect_timeout": 1.0},
            {"remote_args": {"entrypoint": "elsewhere.py"}},
        ):
            run(main(server, arguments))


def test_one_that_is_used_in_another_loop_says_so_and_is_closed_there(process_server):
    environment = process_server.async_environment()

    async def use(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    run(use(environment.reset))
    with pytest.raises((SessionLost, SessionError), match="event loop"):
        run(use(lambda: environment.step(ACTION["step"])))
    run(use(environment.close))
    wait_until(lambda: not process_server.server.sessions())
    assert run(use(environment.reset))[0]["count"] == 0
    run(use(environment.close))


def test_a_pickled_copy_opens_a_session_of_its_own(process_server):
    async def main() -> None:
        async with process_server.async_environment() as environment:
            await environment.reset()
            await environment.step(ACTION["step"])
            async with pickle.loads(pickle.dumps(environment)) as copied:
                assert (await copied.reset())[0]["count"] == 0
            assert (await environment.step(ACTION["step"]))[0]["count"] == 2

    run(main())
