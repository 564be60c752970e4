"""Environments that no session has, amid the races of their making, giving, closing and dying.

Nothing but what makes them is not the server's own: the workers have a true handle, at the other end of which is this
test.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError, ServerFull
from remote_gym.ipc.control import WorkerCommand, WorkerEvent, receive_record, send_record
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import LaunchSpec
from remote_gym.server.placement.placement import Placed, Placement
from remote_gym.server.sessions import Sessions
from remote_gym.server.spares import spares as module
from remote_gym.server.spares.making import Maker
from remote_gym.server.spares.spares import Spares
from remote_gym.server.spares.stock import Recipe
from remote_gym.transport.framing import write_length
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error
from waiting import scaled

PLAIN, OTHER = Recipe(environment=""), Recipe(environment="", render_mode="rgb_array")


class Worker(WorkerHandle):
    """A worker that answers whatever it is asked, and ends with its connection, unless it hangs.

    Attributes:
        closes: How often it was closed.
        hangs: Whether it answers nothing.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, lambda: self.set_exited("killed"), 2**20)
        self.closes = 0
        self.hangs = False
        self._answer_with = b""  # rather than with what it was asked; it then does not end, either

    @classmethod
    async def started(cls, name: str) -> Worker:
        worker = cls(name)
        (requests, other), (control, worker._other_control) = socket.socketpair(), socket.socketpair()
        await worker.connect(requests, control)
        worker._other = await asyncio.open_connection(sock=other)
        worker._answering = asyncio.ensure_future(worker._answer_all(*worker._other))
        return worker

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if not self.hangs:
                writer.write(self._answer_with or data)
        if not self._answer_with:
            writer.close()
            self.set_exited("its process ended")

    def die(self) -> None:
        """End by itself."""
        self._other[1].close()
        self.set_exited("it was killed")

    async def leave_as_asked(self) -> None:
        """Answer that its environment waits, once it is to leave its session."""
        heard = await asyncio.get_running_loop().run_in_executor(None, receive_record, self._other_control)
        assert heard is not None
        assert heard[0] == WorkerCommand.LEAVE
        send_record(self._other_control, WorkerEvent.LEFT, 1)

    async def close(self, timeout: float, *, quietly: bool = False) -> None:
        self.closes += 1
        await super().close(timeout, quietly=quietly)


class FakeMaker:
    """Makes each when the test lets it.

    Attributes:
        begun: Of each that is, or was, being made, in this order: what to set to a worker, or to an error.
        deaf: Whether it makes one in spite of being cancelled, as `asyncio.wait_for` may on Python 3.10 and 3.11.
    """

    def __init__(self) -> None:
        self.begun: list[tuple[Recipe, asyncio.Future[Worker]]] = []
        self.deaf = False

    async def make(self, name: str, recipe: Recipe, env_id: int) -> WorkerHandle:
        making: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self.begun.append((recipe, making))
        while True:
            try:
                return await asyncio.shield(making)
            except asyncio.CancelledError:
                if self.deaf:
                    continue
                if making.done():  # as the true one leaves nothing
                    await making.result().close(0.0)
                raise

    async def finish(self, number: int = -1) -> Worker:
        worker = await Worker.started(f"made-{number}")
        self.begun[number][1].set_result(worker)
        return worker


class House:
    """Spares beside sessions that have none of the environments, yet."""

    def __init__(self, maker: FakeMaker, **options: Any) -> None:
        default_args = {"warm": options.pop("warm", 1), "reuse": True}
        made = ServerOptions(max_sessions=options.pop("max_sessions", 4), **options)
        self.maker = maker
        self.spares = Spares(None, default_args, made, Placement())  # type: ignore[arg-type] # its maker needs none
        self.sessions = Sessions(
            max_sessions=made.max_sessions, lease=60.0, clock=time.monotonic, env_ids=self.spares.env_ids
        )
        self.spares.start(self.sessions)

    def session(self, identity: str = "alice") -> Any:
        entry = self.sessions.open(identity)
        entry.environment = ""
        return entry

    async def give(self, recipe: Recipe = PLAIN, entry: Any = None) -> Any:
        return await self.spares.give(recipe, entry or self.session(), worker_pb2.Launch(session="s"))

    async def make(self) -> Worker:
        """Have one more that waits for a session."""
        count = self.spares.count
        worker = await self.maker.finish()
        await until(lambda: self.spares.count == count + 1)
        return worker


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), scaled(10.0))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test with spares, closes these, and sees that nothing is left of them and no task has failed unseen."""

    def run(test: Callable[[House], Awaitable[None]], **options: Any) -> None:
        failed: list[dict[str, Any]] = []

        async def whole() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
            maker = FakeMaker()
            monkeypatch.setattr(module, "Maker", lambda *_: maker)
            house = House(maker, **options)
            await test(house)
            await house.spares.close()
            assert (len(house.spares._stock), house.spares.count) == (0, 0)
            assert not house.spares._making
            for _, making in maker.begun:
                if making.done() and not making.cancelled() and making.exception() is None:
                    worker = making.result()
                    assert worker.exited.done()
                    worker._other_control.close()
            await asyncio.sleep(0)
            gc.collect()  # by which a task tells that nobody has looked at its error

        asyncio.run(asyncio.wait_for(whole(), scaled(30.0)))
        assert not failed

    return run


@pytest.mark.parametrize("turns", range(4))
def test_one_that_is_made_in_spite_of_its_cancellation_is_closed_once(run, turns):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        house.maker.deaf = True
        worker = await Worker.started("made")
        house.spares.end_all()
        for _ in range(turns):
            await asyncio.sleep(0)
        house.maker.begun[0][1].set_result(worker)
        await house.spares.close()
        assert worker.closes == 1
        assert house.spares.env_ids.take(1) == 0, "its number is free again"

    run(test)


@pytest.mark.parametrize("turns", range(6))
def test_one_that_is_made_as_it_has_to_end_is_closed_once(run, turns):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.maker.finish()
        for _ in range(turns):
            await asyncio.sleep(0)
        house.spares.end_all()
        await house.spares.close()
        assert worker.closes == 1

    run(test)


def test_what_cannot_be_made_as_it_has_to_end_is_gone_and_no_failure(run, caplog):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        house.maker.deaf = True
        house.spares.end_all()
        await asyncio.sleep(0)
        house.maker.begun[0][1].set_exception(ConfigError("no"))
        await house.spares.close()

    run(test)
    assert not caplog.records


def test_what_cannot_be_made_is_tried_again(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        house.maker.begun[0][1].set_exception(ConfigError("no"))
        await until(lambda: len(house.spares._stock) == 0)
        assert house.spares.env_ids.take(1) == 0
        house.spares.env_ids.give_back(0, 1)
        await until(lambda: len(house.maker.begun) == 2)

    run(test)


def test_a_session_waits_until_one_that_is_made_in_its_way_is_gone(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        house.maker.deaf = True
        house.session()
        making_room = asyncio.ensure_future(house.spares.make_room(""))
        await asyncio.sleep(0.01)
        assert not making_room.done()
        worker = await house.maker.finish()
        await making_room
        assert worker.closes == 1
        assert worker.exited.done()
        assert len(house.maker.begun) == 1, "there is no room for another one"

    run(test, max_sessions=1)


def test_a_thread_that_does_not_end_keeps_its_place(run, monkeypatch):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        worker.exited, exited = asyncio.get_running_loop().create_future(), worker.exited
        monkeypatch.setattr(worker, "_kill", lambda: None)
        monkeypatch.setattr(worker, "set_exited", lambda how: exited.set_result(how))
        monkeypatch.setattr("remote_gym.server.launch.handle.KILL_TIMEOUT", 0.01)
        house.session()
        with pytest.raises(ServerFull, match="does not end"):
            await house.spares.make_room("")
        assert len(house.spares._stock) == 1
        worker.exited.set_result("at last")
        await until(lambda: len(house.spares._stock) == 0)
        await house.spares.make_room("")

    run(test, max_sessions=1, close_timeout=0.01)


def test_one_is_given_to_one_session_and_another_made(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        first, second = house.session(), house.session()
        given = await asyncio.gather(house.give(entry=first), house.give(entry=second))
        assert [each is not None for each in given] == [True, False]
        assert given[0][0] is worker
        assert first.env_id == 0
        assert first.env_id != second.env_id
        await until(lambda: len(house.maker.begun) == 2)
        await worker.close(1.0)

    run(test)


def test_one_that_dies_while_it_is_given_is_no_sessions(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        worker.hangs = True
        giving = asyncio.ensure_future(house.give())
        await until(lambda: worker.is_asked)
        worker.die()
        assert await giving is None
        assert worker.closes == 1
        assert house.spares.count == 0

    run(test)


def test_one_whose_session_is_cancelled_meanwhile_is_closed(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        worker.hangs = True
        giving = asyncio.ensure_future(house.give())
        await until(lambda: worker.is_asked)
        giving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving
        await until(lambda: worker.exited.done())
        assert worker.closes == 1

    run(test)


def test_one_that_is_of_no_use_is_killed_also_if_its_session_is_cancelled_meanwhile(run, monkeypatch):
    monkeypatch.setattr(module, "ASSIGN_TIMEOUT", 0.01)

    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        looked_at = asyncio.Event()

        async def stacks() -> str:
            await looked_at.wait()
            return ""

        worker.hangs, worker._answer_with, worker._stacks = True, b"so that it does not end", stacks
        giving = asyncio.ensure_future(house.give())
        await until(lambda: worker.closes == 1)
        giving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving
        looked_at.set()
        await house.spares.close()
        assert worker.exited.done()
        assert worker.exited.result() == "killed"
        worker.die()

    run(test)


def test_one_that_dies_while_it_waits_is_closed_once_and_replaced(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        worker.die()
        await until(lambda: house.spares.count == 0)
        house.spares.look()
        await until(lambda: len(house.maker.begun) == 2)
        assert worker.closes == 1

    run(test)


def test_one_that_dies_as_all_are_closed_is_closed_once(run):
    async def test(house: House) -> None:
        await until(lambda: len(house.maker.begun) == 1)
        worker = await house.make()
        worker.die()
        house.spares.end_all()
        await house.spares.close()
        assert worker.closes == 1
        assert house.spares.env_ids.take(1) == 0

    run(test)


def test_what_a_client_has_closed_is_its_next_sessions(run):
    async def test(house: House) -> None:
        worker = await Worker.started("s")
        entry = house.session()
        left = asyncio.ensure_future(worker.leave_as_asked())
        assert await house.spares.keep(entry, OTHER, worker, 5.0)
        await left
        assert await house.give(OTHER, house.session("bob")) is None
        given = await house.give(OTHER)
        assert given is not None
        assert given[0] is worker
        await worker.close(1.0)
        worker._other_control.close()

    run(test)


def test_nothing_is_kept_of_who_leaves_as_the_server_stops(run):
    async def test(house: House) -> None:
        worker = await Worker.started("s")
        keeping = asyncio.ensure_future(house.spares.keep(house.session(), PLAIN, worker, 5.0))
        await asyncio.sleep(0)
        house.spares.end_all()
        await worker.leave_as_asked()
        assert not await keeping
        assert not worker.closes, "who asked for it closes it"
        await worker.close(1.0)
        worker._other_control.close()

    run(test)


def test_one_whose_making_fails_as_it_has_to_end_is_closed_to_the_end(monkeypatch):
    ended: list[bool] = []

    class Launcher:
        async def launch(self, spec: LaunchSpec) -> WorkerHandle:
            self.worker = await Worker.started(spec.session)
            monkeypatch.setattr(self.worker, "_answer_with", failure)
            return self.worker

    async def leave(_: Placed, is_settled: bool) -> None:
        ended.append(is_settled)

    async def test() -> None:
        launcher = Launcher()
        options = ServerOptions(close_timeout=0.2)
        maker = Maker(launcher, {"id": "CartPole-v1"}, options, Placement())  # type: ignore[arg-type] # ends nothing
        making = asyncio.ensure_future(maker.make("ahead-1", PLAIN, 0))
        await until(lambda: hasattr(launcher, "worker") and launcher.worker.closes == 1)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert launcher.worker.exited.result() == "killed"
        assert ended == [False]
        launcher.worker.die()
        launcher.worker._other_control.close()

    error = worker_pb2.Launched(error=encode_error(RuntimeError("no simulator for you"), limits=Limits()))
    data = error.SerializeToString()
    failure = write_length(len(data)) + data
    monkeypatch.setattr(Placed, "leave", leave)
    asyncio.run(asyncio.wait_for(test(), scaled(30.0)))
