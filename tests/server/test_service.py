"""The service, with real environments in threads and no gRPC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from environments import ACTION
from remote_gym.config import ServerOptions
from remote_gym.errors import NotPermitted, ServerFull, SessionLost
from remote_gym.protocol import PROTOCOL_VERSION
from remote_gym.server.link import Worker, describe_exit
from remote_gym.server.service import Service
from remote_gym.server.workers import ProcessWorkers, ThreadWorkers
from remote_gym.v1 import remote_gym_pb2 as pb

KIND = pb.ErrorDetail
LIMIT = 2**20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _at_the_entrypoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


@asynccontextmanager
async def running(
    clock: Callable[[], float] = lambda: 0.0, *, processes: bool = False, launch=None, **options
) -> AsyncIterator[Service]:
    workers = ProcessWorkers(None, LIMIT) if processes else ThreadWorkers(LIMIT)
    arguments = {"entrypoint": "environments.py"}
    service = Service(launch or workers.launch, arguments, ServerOptions(**options), clock)
    try:
        yield service
    finally:
        await service.close()
        await workers.stop()


def run(test: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def open_session(service: Service, owner: str = "alice", **fields) -> pb.Session:
    response = await service.open(pb.OpenRequest(protocol_version=PROTOCOL_VERSION, **fields), owner)
    assert not response.HasField("error"), response.error
    return response.session


def reset(sequence: int) -> bytes:
    return pb.Request(sequence=sequence, reset=pb.ResetRequest()).SerializeToString()


def step(sequence: int, behaviour: str = "step") -> bytes:
    action = pb.StepRequest(packed=ACTION[behaviour].to_bytes(8, "little"))
    return pb.Request(sequence=sequence, step=action).SerializeToString()


def error_kind(data: bytes) -> int:
    response = pb.Response.FromString(data)
    assert response.HasField("error"), response
    return response.error.kind


def test_one_step_and_its_replay():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            attachment = service.attach(session.id, session.token, "alice", lambda reason: None)
            await attachment.ask(reset(1))
            first = await attachment.ask(step(2))
            assert await attachment.ask(step(2)) == first
            assert error_kind(await attachment.ask(step(5))) == KIND.OUT_OF_SEQUENCE
            assert pb.Response.FromString(await attachment.ask(step(3))).HasField("step")
            attachment.detach()

    run(test)


def test_unary_calls_and_an_attachment_share_one_sequence():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            await service.ask(session.id, session.token, "alice", reset(1))
            attachment = service.attach(session.id, session.token, "alice", lambda reason: None)
            assert pb.Response.FromString(await attachment.ask(step(2))).HasField("step")
            answer = await service.ask(session.id, session.token, "alice", step(3))
            assert pb.Response.FromString(answer).HasField("step")

    run(test)


def test_another_version_is_refused():
    async def test() -> None:
        async with running() as service:
            response = await service.open(pb.OpenRequest(protocol_version=2), "alice")
            assert response.error.kind == KIND.PROTOCOL_MISMATCH
            assert len(service) == 0

    run(test)


@pytest.mark.parametrize(
    ("owner", "change", "kind"),
    [("mallory", 0, KIND.NOT_PERMITTED), ("alice", 1, KIND.NOT_PERMITTED), ("alice", 2, KIND.SESSION_LOST)],
)
def test_only_the_owner_with_the_token_may_ask(owner, change, kind):
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            token = "x" if change == 1 else session.token
            session_id = "x" if change == 2 else session.id
            assert error_kind(await service.ask(session_id, token, owner, reset(1))) == kind
            assert (await service.spaces(session_id, token, owner)).error.kind == kind
            with pytest.raises((NotPermitted, SessionLost)):
                service.attach(session_id, token, owner, lambda reason: None)

    run(test)


def test_spaces_are_told_again():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            assert (await service.spaces(session.id, session.token, "alice")).description == session.description

    run(test)


def test_a_newer_attachment_cuts_off_the_older():
    async def test() -> None:
        cut = []
        async with running() as service:
            session = await open_session(service)
            older = service.attach(session.id, session.token, "alice", lambda reason: cut.append(f"older: {reason}"))
            newer = service.attach(session.id, session.token, "alice", lambda reason: cut.append(f"newer: {reason}"))
            assert [text.split()[0] for text in cut] == ["older:"]
            assert "newer connection" in cut[0]
            assert error_kind(await older.ask(reset(1))) == KIND.OUT_OF_SEQUENCE
            older.detach()
            assert pb.Response.FromString(await newer.ask(reset(1))).HasField("reset")
        assert "the server is stopping" in cut[1]

    run(test)


def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_ones():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            older = service.attach(session.id, session.token, "alice", lambda reason: None)
            await older.ask(reset(1))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(older.ask(step(2, "slow")), 0.1)
            newer = service.attach(session.id, session.token, "alice", lambda reason: None)
            assert pb.Response.FromString(await newer.ask(step(2, "slow"))).sequence == 2
            assert pb.Response.FromString(await newer.ask(step(3))).sequence == 3

    run(test)


def test_a_session_that_nobody_uses_expires():
    async def test() -> None:
        clock = Clock()
        async with running(clock, lease=60.0) as service:
            session = await open_session(service)
            attachment = service.attach(session.id, session.token, "alice", lambda reason: None)
            clock.now = 100.0
            service.expire()
            assert len(service) == 1
            attachment.detach()
            clock.now = 161.0
            service.expire()
            assert len(service) == 0
            assert error_kind(await service.ask(session.id, session.token, "alice", reset(1))) == KIND.SESSION_LOST
            assert error_kind(await attachment.ask(reset(1))) == KIND.SESSION_LOST

    run(test)


def test_the_lease_stands_still_during_a_call_by_itself():
    async def test() -> None:
        clock = Clock()
        async with running(clock, lease=60.0) as service:
            session = await open_session(service)
            await service.ask(session.id, session.token, "alice", reset(1))
            call = asyncio.ensure_future(service.ask(session.id, session.token, "alice", step(2, "slow")))
            await asyncio.sleep(0)
            clock.now = 100.0
            service.expire()
            assert pb.Response.FromString(await call).HasField("step")

    run(test)


def test_an_environment_that_cannot_be_created_gives_its_place_back():
    async def test() -> None:
        async with running(max_sessions=1) as service:
            for _ in range(2):
                kwargs = pb.Value()
                kwargs.dict.names.append("log")
                kwargs.dict.values.add().integer = 1
                request = pb.OpenRequest(protocol_version=PROTOCOL_VERSION, entrypoint_kwargs=kwargs)
                response = await service.open(request, "alice")
                assert response.error.kind == KIND.ENVIRONMENT
                assert response.error.remote_type == "builtins.TypeError"
            assert (await open_session(service)).id

    run(test)


def test_an_environment_that_takes_too_long_to_create_is_given_up():
    async def test() -> None:
        async with running(processes=True, open_timeout=0.5, close_timeout=0.2) as service:
            kwargs = pb.Value()
            kwargs.dict.names.append("delay")
            kwargs.dict.values.add().number = 60.0
            request = pb.OpenRequest(protocol_version=PROTOCOL_VERSION, entrypoint_kwargs=kwargs)
            response = await service.open(request, "alice")
            assert response.error.kind == KIND.SESSION_LOST
            assert "open_timeout" in response.error.message
            assert len(service) == 0

    run(test)


def test_a_client_that_stops_waiting_for_its_session_leaves_none():
    async def test() -> None:
        async with running() as service:
            opening = asyncio.ensure_future(open_session(service))
            while len(service) == 0:
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert len(service) == 0

    run(test)


def test_a_session_cannot_be_used_while_it_opens():
    async def test() -> None:
        async with running() as service:
            opening = asyncio.ensure_future(open_session(service))
            while not service._open:
                await asyncio.sleep(0)
            (session,) = (found.session for found in service._open.values())
            assert (await service.spaces(session.id, session.token, "alice")).error.kind == KIND.SESSION_LOST
            await opening

    run(test)


def test_a_launch_that_fails_gives_its_place_back():
    async def launch(session: str) -> Worker:
        raise ServerFull("no more processes")

    async def test() -> None:
        async with running(launch=launch, max_sessions=1) as service:
            for _ in range(2):
                response = await service.open(pb.OpenRequest(protocol_version=PROTOCOL_VERSION), "alice")
                assert response.error.message == "no more processes"
            assert len(service) == 0

    run(test)


def test_a_worker_that_breaks_the_rules_is_cut_off():
    """Too long a message, or one that nobody asked for."""

    async def test() -> None:
        for words, reason in ((b"\xff\xff\xff\xff", "limit"), (b"\0\0\0\0", "without being asked")):
            ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
            worker = Worker("name", lambda: None, LIMIT)
            await worker.connect(*ours)
            theirs[0].sendall(words)
            assert reason in await worker.gone
            for end in theirs:
                end.close()

    run(test)


def test_exits_are_told_in_words():
    assert describe_exit(7) == "its worker ended with status 7"
    assert describe_exit(-9) == "its worker was ended by SIGKILL"
    assert describe_exit(-63) == "its worker was ended by signal 63"
