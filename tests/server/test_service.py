"""The service, with real environments in threads and no gRPC."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clocks import Clock
from environments import ACTION
from raw_client import opening
from remote_gym.config import Limits, ServerOptions, TlsFiles
from remote_gym.errors import NotPermitted, OutOfSequence, RemoteGymError, ServerFull, SessionLost
from remote_gym.ipc.control import WorkerCommand
from remote_gym.protocol.attempt import Attempt
from remote_gym.server.access.clients import Client, Clients
from remote_gym.server.access.policy import Policy, Rule, Terms
from remote_gym.server.attachment import Attachment
from remote_gym.server.launch import connections as clients_module
from remote_gym.server.launch import handle as link_module
from remote_gym.server.launch.fork import ForkLauncher
from remote_gym.server.launch.handle import WorkerHandle, describe_exit
from remote_gym.server.launch.launcher import Launcher, LaunchSpec
from remote_gym.server.launch.thread import ThreadLauncher
from remote_gym.server.service import Service
from remote_gym.transport import busy_poll
from remote_gym.transport.framing import MessageSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error
from remote_gym.wire.values import decode_value, encode_value
from waiting import scaled

KIND = pb.ErrorDetail
LIMIT = 2**20
ALICE, ANONYMOUS = Client("alice"), Client("")
DIRECT = pb.DirectAddress(port=1)
"""Where nobody listens: the tests hand sockets over themselves."""


@pytest.fixture(autouse=True)
def _at_the_entrypoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


@asynccontextmanager
async def running(
    clock: Callable[[], float] = lambda: 0.0,
    *,
    processes: bool = False,
    launcher: Launcher | None = None,
    clients: Clients | None = None,
    reuse: bool = False,
    **options,
) -> AsyncIterator[Service]:
    launcher = launcher or (ForkLauncher(LIMIT) if processes else ThreadLauncher(LIMIT))
    arguments = {"entrypoint": "environments.py", "reuse": reuse}
    service = Service(launcher, arguments, ServerOptions(**options), clients=clients, direct=DIRECT, clock=clock)
    try:
        yield service
    finally:
        await service.close()
        await launcher.stop()


def run(test: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(test(), scaled(30)))


async def open_session(service: Service, client: Client = ALICE, **fields) -> pb.Session:
    response = await service.open(opening(**fields), client)
    assert not response.HasField("error"), response.error
    return response.session


def is_asked(service: Service) -> bool:
    """Whether a worker has a request, or something to create, and has not answered yet."""
    return any(found.worker._answer is not None for found in service._live)


async def refusal(attachment: Attachment, data: bytes) -> int:
    """The kind of the error by which the session, rather than the environment, answers."""
    with pytest.raises(RemoteGymError) as caught:
        await attachment.ask(data)
    return encode_error(caught.value).kind


def slow_to_open(seconds: float) -> worker_pb2.Opening:
    return opening(entrypoint_kwargs=encoded({"delay": seconds}))


@pytest.mark.parametrize("what", ["keep", "close"])
def test_a_session_whose_end_fails_has_ended_and_leaves_its_place(what, monkeypatch, caplog):
    async def fail(*_: object, **__: object) -> bool:
        raise OSError("no more of anything")

    async def test() -> None:
        async with running(max_sessions=1) as service:
            opened = await open_session(service)
            [session] = service._live
            if what == "keep":
                monkeypatch.setattr(service._spares, "keep", fail)
            else:
                session.worker.at_end = fail
            await asyncio.wait_for(service.close_session(opened.id, opened.token, ALICE), scaled(10.0))
            assert session.worker.exited.done()
            await open_session(service)

    run(test)
    assert [f"could not be {'kept' if what == 'keep' else 'closed'}" in line for line in caplog.messages].count(
        True
    ) == 1


def test_the_log_names_whose_environment_could_not_be_created(caplog):
    async def test() -> None:
        async with running() as service:
            request = opening(entrypoint_kwargs=encoded({"no_such_argument": 1.0}))
            for identity in ("DNS:alice", ""):
                assert (await service.open(request, Client(identity))).HasField("error")

    caplog.set_level(logging.INFO, "remote_gym")
    run(test)
    ends = [line for line in caplog.messages if "could not be created" in line]
    assert [line.split(" ended: ")[0].split(" of ")[1] for line in ends] == ["DNS:alice", "an anonymous client"]


def encoded(kwargs: dict[str, str]) -> pb.Value:
    message = pb.Value()
    encode_value(kwargs, message, strict=True, limits=Limits())
    return message


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
            attachment = service.attach(session.id, session.token, ALICE, lambda reason: None)
            await attachment.ask(reset(1))
            first = await attachment.ask(step(2))
            assert await attachment.ask(step(2)) == first
            assert error_kind(await attachment.ask(step(5))) == KIND.OUT_OF_SEQUENCE
            assert pb.Response.FromString(await attachment.ask(step(3))).HasField("step")
            attachment.detach()

    run(test)


def test_a_first_request_is_answered_with_the_opening():
    async def test() -> None:
        async with running() as service:
            first = pb.Request(sequence=1, reset=pb.ResetRequest())
            session = await open_session(service, first=first)
            assert pb.Response.FromString(session.first).HasField("reset")
            answer = await service.ask(session.id, session.token, ALICE, step(2))
            assert pb.Response.FromString(answer).HasField("step")

    run(test)


def test_a_first_request_that_takes_too_long_gives_the_session_up():
    async def test() -> None:
        async with running(
            processes=True, open_timeout=scaled(2.5), close_timeout=scaled(0.2), max_sessions=1
        ) as service:
            first = pb.Request(sequence=1)
            first.reset.options.dict.names.append("do")
            first.reset.options.dict.values.add().text = "hang"
            response = await service.open(opening(first=first), ALICE)
            assert response.error.kind == KIND.SESSION_LOST
            assert "first reset" in response.error.message
            assert len(service) == 0
            while True:  # the hung worker is killed, and its place comes back
                response = await service.open(opening(), ALICE)
                if response.HasField("session"):
                    return
                assert response.error.kind == KIND.SERVER_FULL
                await asyncio.sleep(0.01)

    run(test)


def test_unary_calls_and_an_attachment_share_one_sequence():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            await service.ask(session.id, session.token, ALICE, reset(1))
            attachment = service.attach(session.id, session.token, ALICE, lambda reason: None)
            assert pb.Response.FromString(await attachment.ask(step(2))).HasField("step")
            answer = await service.ask(session.id, session.token, ALICE, step(3))
            assert pb.Response.FromString(answer).HasField("step")

    run(test)


def test_another_version_is_refused():
    async def test() -> None:
        async with running() as service:
            response = await service.open(opening(protocol_version=2), ALICE)
            assert response.error.kind == KIND.PROTOCOL_MISMATCH
            assert len(service) == 0

    run(test)


@pytest.mark.parametrize(
    ("identity", "change", "kind"),
    [("mallory", 0, KIND.NOT_PERMITTED), ("alice", 1, KIND.NOT_PERMITTED), ("alice", 2, KIND.SESSION_LOST)],
)
def test_only_the_identity_that_opened_it_with_the_token_may_ask(identity, change, kind):
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            token = "x" if change == 1 else session.token
            session_id = "x" if change == 2 else session.id
            assert error_kind(await service.ask(session_id, token, Client(identity), reset(1))) == kind
            assert (await service.spaces(session_id, token, Client(identity))).error.kind == kind
            with pytest.raises((NotPermitted, SessionLost)):
                service.attach(session_id, token, Client(identity), lambda reason: None)

    run(test)


def test_spaces_are_told_again():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            assert (await service.spaces(session.id, session.token, ALICE)).description == session.description

    run(test)


def test_a_newer_attachment_cuts_off_the_older():
    async def test() -> None:
        cut = []
        async with running() as service:
            session = await open_session(service)
            older = service.attach(session.id, session.token, ALICE, lambda reason: cut.append(f"older: {reason}"))
            newer = service.attach(session.id, session.token, ALICE, lambda reason: cut.append(f"newer: {reason}"))
            assert [text.split()[0] for text in cut] == ["older:"]
            assert "newer connection" in cut[0]
            assert await refusal(older, reset(1)) == KIND.OUT_OF_SEQUENCE
            older.detach()
            assert pb.Response.FromString(await newer.ask(reset(1))).HasField("reset")
        assert "the server is stopping" in cut[1]

    run(test)


def test_a_call_that_arrives_after_its_clients_next_one_does_not_cut_that_off():
    async def test() -> None:
        cut = []
        async with running() as service:
            session = await open_session(service)
            key = (session.id, session.token, ALICE)
            newer = service.attach(*key, cut.append, Attempt("x", 7))
            with pytest.raises(OutOfSequence):
                service.attach(*key, cut.append, Attempt("x", 6))
            assert pb.Response.FromString(await newer.ask(reset(1))).HasField("reset")
            assert not cut
            another = service.attach(*key, cut.append, Attempt("y", 1))  # whose numbers are its own
            assert len(cut) == 1
            newer.detach()
            another.detach()
            service.attach(*key, cut.append).detach()  # who tells nothing attaches as ever

    run(test)


@pytest.mark.parametrize(("attempt", "closes"), [("x", False), ("y", True), (None, True)])
def test_a_session_is_closed_by_whoever_attached_last_or_does_not_say_who_it_is(attempt, closes):
    async def test() -> None:
        async with running() as service:
            session = await open_session(service)
            key = (session.id, session.token, ALICE)
            for user in ("x", "y"):
                service.attach(*key, lambda reason: None, Attempt(user, 1)).detach()
            answer = pb.Response.FromString(await service.close_session(*key, attempt and Attempt(attempt, 2)))
            assert answer.HasField("close") is closes
            assert len(service) == (0 if closes else 1)
            if not closes:
                assert answer.error.kind == KIND.OUT_OF_SEQUENCE

    run(test)


def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_ones(tmp_path):
    log = tmp_path / "log"

    async def test() -> None:
        async with running() as service:
            session = await open_session(service, entrypoint_kwargs=encoded({"log": str(log)}))
            older = service.attach(session.id, session.token, ALICE, lambda reason: None)
            await older.ask(reset(1))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(older.ask(step(2, "wait_for_release")), scaled(0.1))
            newer = service.attach(session.id, session.token, ALICE, lambda reason: None)
            older.detach()
            log.with_suffix(".release").touch()
            assert pb.Response.FromString(await newer.ask(step(2, "wait_for_release"))).sequence == 2
            assert pb.Response.FromString(await newer.ask(step(3))).sequence == 3

    run(test)


def test_a_session_that_nobody_uses_expires():
    async def test() -> None:
        clock = Clock(0.0)
        async with running(clock, lease=60.0) as service:
            session = await open_session(service)
            attachment = service.attach(session.id, session.token, ALICE, lambda reason: None)
            clock.now = 100.0
            service.expire()
            assert len(service) == 1
            attachment.detach()
            clock.now = 161.0
            service.expire()
            assert len(service) == 0
            assert error_kind(await service.ask(session.id, session.token, ALICE, reset(1))) == KIND.SESSION_LOST
            assert await refusal(attachment, reset(1)) == KIND.SESSION_LOST

    run(test)


def test_the_lease_stands_still_during_a_call_by_itself():
    async def test() -> None:
        clock = Clock(0.0)
        async with running(clock, lease=60.0) as service:
            session = await open_session(service)
            await service.ask(session.id, session.token, ALICE, reset(1))
            call = asyncio.ensure_future(service.ask(session.id, session.token, ALICE, step(2, "slow")))
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
                request = opening(entrypoint_kwargs=kwargs)
                response = await service.open(request, ALICE)
                assert response.error.kind == KIND.ENVIRONMENT
                assert response.error.remote_type == "builtins.TypeError"
            assert (await open_session(service)).id

    run(test)


def test_an_environment_that_takes_too_long_to_create_is_given_up():
    async def test() -> None:
        async with running(processes=True, open_timeout=scaled(0.5), close_timeout=scaled(0.2)) as service:
            kwargs = pb.Value()
            kwargs.dict.names.append("delay")
            kwargs.dict.values.add().number = 60.0
            request = opening(entrypoint_kwargs=kwargs)
            response = await service.open(request, ALICE)
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
            while not service._live:
                await asyncio.sleep(0)
            (session,) = (each.entry for each in service._live)
            assert (await service.spaces(session.id, session.token, ALICE)).error.kind == KIND.SESSION_LOST
            await opening

    run(test)


def test_a_launch_that_fails_gives_its_place_back():
    async def launch(spec: LaunchSpec) -> WorkerHandle:
        raise ServerFull("no more processes")

    async def test() -> None:
        launcher = ThreadLauncher(LIMIT)
        launcher.launch = launch
        async with running(launcher=launcher, max_sessions=1) as service:
            for _ in range(2):
                response = await service.open(opening(), ALICE)
                assert response.error.message == "no more processes"
            assert len(service) == 0

    run(test)


def test_a_worker_that_breaks_the_rules_is_cut_off():
    """Too long a message, or one that nobody asked for."""

    async def test() -> None:
        for words, reason in ((b"\xff\xff\xff\xff", "limit"), (b"\0\0\0\0", "without being asked")):
            ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
            worker = WorkerHandle("name", lambda: None, LIMIT)
            await worker.connect(*ours)
            theirs[0].sendall(words)
            assert reason in await worker.gone
            for end in theirs:
                end.close()

    run(test)


# --------------------------------------------------------------------------------------------------------------
# Direct connections


async def come_directly(service: Service, session: pb.Session, token: str | None = None) -> MessageSocket:
    """As a client does whose connection the listener has taken: say the token, and be answered."""
    ours, theirs = socket.socketpair()
    with theirs:
        assert service.hand_over(service._live.address(session.id).routing_id, theirs)
    ours.settimeout(scaled(10.0))
    direct = MessageSocket(ours, Limits())
    direct.send(pb.Attach(token=token or session.token).SerializeToString())
    answer = await asyncio.to_thread(direct.receive)
    assert answer is not None
    assert pb.Attached.FromString(answer).HasField("error") == (token is not None)
    return direct


async def ask_directly(direct: MessageSocket, data: bytes) -> pb.Response:
    direct.send(data)
    answer = await asyncio.to_thread(direct.receive)
    assert answer is not None
    return pb.Response.FromString(answer)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.parametrize("processes", [False, True])
def test_a_direct_connection_goes_on_with_the_sessions_numbers_and_holds_its_lease(processes):
    async def test() -> None:
        clock = Clock(0.0)
        async with running(clock, processes=processes, lease=60.0) as service:
            session = await open_session(service, ANONYMOUS)
            await service.ask(session.id, session.token, ANONYMOUS, reset(1))
            direct = await come_directly(service, session)
            assert (await ask_directly(direct, step(2))).HasField("step")
            assert (await ask_directly(direct, step(2))).sequence == 2
            clock.now = 100.0
            service.expire()
            assert len(service) == 1
            direct.close()
            await until(lambda: not service._live[session.id].direct)
            clock.now = 159.9
            service.expire()
            assert len(service) == 1
            clock.now = 160.0
            service.expire()
            assert len(service) == 0

    run(test)


def test_the_newest_connection_of_either_kind_cuts_off_the_others():
    async def test() -> None:
        cut: list[str] = []
        async with running() as service:
            session = await open_session(service, ANONYMOUS)
            attachment = service.attach(session.id, session.token, ANONYMOUS, lambda reason: cut.append(str(reason)))
            await attachment.ask(reset(1))
            direct = await come_directly(service, session)
            await until(lambda: cut)
            assert "a newer connection" in cut[0]
            assert await refusal(attachment, step(2)) == KIND.OUT_OF_SEQUENCE
            attachment.detach()
            assert (await ask_directly(direct, step(2))).HasField("step")
            newest = service.attach(session.id, session.token, ANONYMOUS, lambda reason: None)
            told = pb.Response.FromString(await asyncio.to_thread(direct.receive))
            assert (told.sequence, told.error.kind) == (0, KIND.OUT_OF_SEQUENCE)
            assert await asyncio.to_thread(direct.receive) is None
            assert pb.Response.FromString(await newest.ask(step(3))).HasField("step")
            direct.close()

    run(test)


def test_a_direct_connection_with_a_wrong_token_changes_nothing():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service, ANONYMOUS)
            attachment = service.attach(session.id, session.token, ANONYMOUS, lambda reason: None)
            (await come_directly(service, session, token="x")).close()
            assert pb.Response.FromString(await attachment.ask(reset(1))).HasField("reset")
            assert not service._live[session.id].direct

    run(test)


def test_nobody_is_handed_to_a_session_that_is_not_there():
    async def test() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with running() as service:
                session = await open_session(service, ANONYMOUS)
                assert not service.hand_over(bytes(16), theirs)
                await service.close_session(session.id, session.token, ANONYMOUS)
                assert not service.hand_over(session.direct.routing_id, theirs)

    run(test)


def test_workers_poll_only_while_each_has_a_core_and_the_clients_another(monkeypatch):
    monkeypatch.setattr(busy_poll, "core_count", lambda: 3)

    async def test() -> None:
        async with running(poll_us=70) as service:
            sessions = [await open_session(service, ANONYMOUS) for _ in range(3)]
            told: dict[str, list[int]] = {session.id: [] for session in sessions}
            for session in sessions:
                monkeypatch.setattr(service._live[session.id].worker, "set_polling", told[session.id].append)
            directs = []
            for session in sessions:
                directs.append(await come_directly(service, session))
                await until(lambda session=session: service._live[session.id].direct)
            first, second, third = (told[session.id] for session in sessions)
            assert (first[-1], second[-1], third) == (0, 0, [0, 0])
            assert (first[:3], second[:2]) == ([70, 70, 70], [70, 70])
            directs.pop().close()
            await until(lambda: not service._live[sessions[2].id].direct)
            assert (first[-1], second[-1]) == (70, 70)
            for direct in directs:
                direct.close()

    run(test)


def test_workers_are_told_for_how_long_to_poll_when_that_changes(monkeypatch):
    monkeypatch.setattr(busy_poll, "core_count", lambda: 3)
    told: list[tuple[int, int]] = []
    tell = clients_module.send_record

    def count(sock: socket.socket, kind: int, value: int = 0, descriptor: int | None = None) -> None:
        if kind == WorkerCommand.POLL:
            told.append((sock.fileno(), value))
        tell(sock, kind, value, descriptor)

    monkeypatch.setattr(clients_module, "send_record", count)

    async def test() -> None:
        async with running(poll_us=70) as service:
            sessions = [await open_session(service, ANONYMOUS) for _ in range(6)]
            directs = []
            for session in sessions:
                directs.append(await come_directly(service, session))
                await until(lambda session=session: service._live[session.id].direct)
            assert [value for _, value in told] == [70, 70, 0, 0]
            told.clear()
            for session in sessions[:5]:
                await service.close_session(session.id, session.token, ANONYMOUS)
            assert [value for _, value in told] == [70, 70]
            for direct in directs:
                direct.close()

    run(test)


# --------------------------------------------------------------------------------------------------------------
# Ends


def test_a_session_is_closed_in_whatever_state_it_is_and_answered_when_it_is_gone():
    async def test() -> None:
        async with running(processes=True, close_timeout=scaled(0.2), max_sessions=1) as service:
            session = await open_session(service)
            cut: list[str] = []
            attachment = service.attach(session.id, session.token, ALICE, lambda reason: cut.append(str(reason)))
            await attachment.ask(reset(1))
            hung = asyncio.ensure_future(refusal(attachment, step(2, "hang")))
            await until(lambda: is_asked(service))
            assert error_kind(await service.close_session(session.id, "x", ALICE)) == KIND.NOT_PERMITTED
            assert not cut
            closed = await service.close_session(session.id, session.token, ALICE)
            assert pb.Response.FromString(closed).HasField("close")
            assert "its client closed it" in cut[0]
            assert await hung == KIND.SESSION_LOST
            await open_session(service)  # in its place
            assert error_kind(await service.close_session(session.id, session.token, ALICE)) == KIND.SESSION_LOST

    run(test)


def test_a_thread_that_hangs_keeps_its_place_until_it_ends(monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setattr(link_module, "KILL_TIMEOUT", 0.1)

    async def test() -> None:
        async with running(close_timeout=scaled(0.1), max_sessions=1) as service:
            session = await open_session(service, entrypoint_kwargs=encoded({"log": str(log)}))
            await service.ask(session.id, session.token, ALICE, reset(1))
            slow = asyncio.ensure_future(service.ask(session.id, session.token, ALICE, step(2, "wait_for_release")))
            await until(lambda: "step" in log.read_text())
            await service.close_session(session.id, session.token, ALICE)
            request = opening()
            assert (await service.open(request, ALICE)).error.kind == KIND.SERVER_FULL
            log.with_suffix(".release").touch()
            await slow
            while (await service.open(request, ALICE)).HasField("error"):
                await asyncio.sleep(0.02)

    run(test)


def test_closing_ends_though_all_that_it_waits_for_has_ended_already():
    async def test() -> None:
        async with running() as service:
            ended = asyncio.ensure_future(asyncio.sleep(0))
            await ended
            service._live._closing.add(ended)
            ended.add_done_callback(service._live._closing.discard)

    run(test)


def test_who_asks_while_a_worker_is_ending_hears_how_it_ended():
    async def test() -> None:
        async with running(processes=True) as service:
            session = await open_session(service)
            answer = pb.Response.FromString(await service.ask(session.id, session.token, ALICE, reset(1)))
            pid = decode_value(answer.reset.info, Limits())["pid"]
            os.kill(pid, signal.SIGKILL)
            worker = service._live[session.id].worker
            await until(lambda: worker.ending)
            assert not worker.gone.done()
            told = await service.spaces(session.id, session.token, ALICE)
            assert told.error.kind == KIND.SESSION_LOST
            assert "SIGKILL" in told.error.message

    run(test)


def test_a_draining_service_opens_nothing_and_waits_for_what_is_open():
    async def test() -> None:
        async with running(time.monotonic) as service:
            session = await open_session(service)
            draining = asyncio.ensure_future(service.drain(20.0))
            await asyncio.sleep(0)
            response = await service.open(opening(), ALICE)
            assert response.error.kind == KIND.SERVER_FULL
            assert "stopping" in response.error.message
            await service.ask(session.id, session.token, ALICE, reset(1))
            assert not draining.done()
            await service.close_session(session.id, session.token, ALICE)
            await asyncio.wait_for(draining, scaled(5.0))

    run(test)


def test_draining_waits_no_longer_than_its_grace():
    async def test() -> None:
        async with running(time.monotonic) as service:
            session = await open_session(service)
            await service.ask(session.id, session.token, ALICE, reset(1))
            before = time.monotonic()
            await service.drain(1.5)
            assert time.monotonic() - before >= 1.5
            assert len(service) == 1

    run(test)


def test_a_drain_can_be_hurried():
    async def test() -> None:
        async with running(time.monotonic) as service:
            session = await open_session(service)
            await service.ask(session.id, session.token, ALICE, reset(1))
            draining = asyncio.ensure_future(service.drain(1000.0))
            await asyncio.sleep(0)
            service.end_drain(2000.0)
            service.end_drain(0.0)
            await asyncio.wait_for(draining, scaled(10.0))

    run(test)


@pytest.mark.parametrize("way", ["unary", "attached"])
def test_a_drained_session_ends_at_its_next_reset_with_the_reason(way):
    async def test() -> None:
        async with running(time.monotonic) as service:
            session = await open_session(service)
            reasons: list[Exception] = []
            attachment = service.attach(session.id, session.token, ALICE, reasons.append)
            ask = attachment.ask
            if way == "unary":
                attachment.detach()

                async def ask(data: bytes) -> bytes:
                    return await service.ask(session.id, session.token, ALICE, data)

            await ask(reset(1))
            draining = asyncio.ensure_future(service.drain(1000.0))
            await asyncio.sleep(0)
            assert pb.Response.FromString(await ask(step(2))).HasField("step")
            try:
                answer = pb.Response.FromString(await ask(reset(3)))
            except SessionLost as error:  # which ends an attachment
                answer = pb.Response(error=encode_error(error))
            assert answer.error.kind == KIND.SESSION_LOST
            assert "begins no more episodes" in answer.error.message
            await asyncio.wait_for(draining, scaled(10.0))
            assert [type(reason) for reason in reasons] == ([SessionLost] if way == "attached" else [])

    run(test)


@pytest.mark.parametrize("launched", [False, True])
def test_a_session_that_is_opening_when_the_drain_begins_is_refused(launched):
    async def test() -> None:
        release = asyncio.Event()
        launcher = ThreadLauncher(LIMIT)
        start = launcher.launch

        async def launch(spec: LaunchSpec) -> WorkerHandle:
            worker = await start(spec)
            if not launched:
                await release.wait()
            return worker

        launcher.launch = launch
        async with running(time.monotonic, launcher=launcher) as service:
            opening = asyncio.ensure_future(service.open(slow_to_open(1.0), ALICE))
            await until(lambda: len(service))
            await until(lambda: service._live or not launched)
            draining = asyncio.ensure_future(service.drain(1000.0))
            await asyncio.sleep(0)
            release.set()
            response = await asyncio.wait_for(opening, scaled(10.0))
            assert response.error.kind == KIND.SERVER_FULL
            assert "stopping" in response.error.message
            await asyncio.wait_for(draining, scaled(10.0))
            assert len(service) == 0

    run(test)


def test_who_opens_while_the_service_closes_hears_that_it_stops():
    async def test() -> None:
        launcher = ThreadLauncher(LIMIT)
        start = launcher.launch

        async def launch(spec: LaunchSpec) -> WorkerHandle:
            await asyncio.sleep(0.5)
            return await start(spec)

        launcher.launch = launch
        async with running(time.monotonic, launcher=launcher) as service:
            opened = asyncio.ensure_future(service.open(opening(), ALICE))
            await until(lambda: len(service))
            await service.drain(0.0)
            await service.close()
            assert opened.done()
            assert opened.result().error.kind == KIND.SERVER_FULL
            assert len(service) == 0

    run(test)


def test_a_client_may_name_the_default_environment():
    async def test() -> None:
        async with running() as service:
            session = await open_session(service, environment="default")
            assert list(session.environments) == ["default"]
            response = await service.open(opening(environment="hard"), ALICE)
            assert "no environment 'hard'; it offers default" in response.error.message

    run(test)


def test_who_waits_for_a_place_gets_the_next_and_in_turn():
    async def test() -> None:
        async with running(time.monotonic, max_sessions=1, queue_timeout=scaled(20.0)) as service:
            first = await open_session(service)
            second = asyncio.ensure_future(open_session(service))
            await until(lambda: service.load().waiting == 1)
            third = asyncio.ensure_future(open_session(service))
            await until(lambda: service.load().waiting == 2)
            await service.close_session(first.id, first.token, ALICE)
            opened = await second
            assert (len(service), service.load().capacity, service.load().waiting) == (1, 1, 1)
            assert not third.done()
            await service.close_session(opened.id, opened.token, ALICE)
            await third

    run(test)


def test_who_waited_long_enough_hears_how_many_still_do():
    async def test() -> None:
        async with running(time.monotonic, max_sessions=1, queue_timeout=scaled(0.3)) as service:
            await open_session(service)
            response = await service.open(opening(), ALICE)
            assert response.error.kind == KIND.SERVER_FULL
            assert "1 client waits" in response.error.message
            assert service.load().waiting == 0

    run(test)


def test_who_gives_up_leaves_the_queue_and_a_drain_ends_it():
    async def test() -> None:
        async with running(time.monotonic, max_sessions=1, queue_timeout=1000.0) as service:
            await open_session(service)
            waiting = [asyncio.ensure_future(open_session(service)) for _ in range(2)]
            await until(lambda: service.load().waiting == 2)
            waiting[0].cancel()
            await until(lambda: service.load().waiting == 1)
            late = asyncio.ensure_future(service.open(opening(), Client("bob")))
            await until(lambda: service.load().waiting == 2)
            waiting[1].cancel()
            await until(lambda: service.load().waiting == 1)
            await service.drain(0.0)
            response = await asyncio.wait_for(late, scaled(10.0))
            assert "stopping" in response.error.message
            assert service.load().waiting == 0

    run(test)


def test_whoever_waits_for_a_place_opens_on_the_terms_that_hold_when_it_gets_one():
    def policy(*arguments: str) -> Policy:
        return Policy({"*": Rule(terms=Terms(arguments=arguments))})

    async def test() -> None:
        async with running(time.monotonic, max_sessions=1, queue_timeout=1000.0) as service:
            service.set_policy(policy("delay"))
            first = await open_session(service)
            late = asyncio.ensure_future(service.open(slow_to_open(0.0), Client("bob")))
            await until(lambda: service.load().waiting == 1)
            service.set_policy(policy())
            await service.close_session(first.id, first.token, ALICE)
            response = await asyncio.wait_for(late, scaled(10.0))
            assert response.error.kind == KIND.NOT_PERMITTED
            assert "'delay'; it may set: none" in response.error.message

    run(test)


def test_whoever_may_open_it_no_more_while_it_opens_hears_so():
    async def test() -> None:
        async with running(time.monotonic) as service:
            opening = asyncio.ensure_future(service.open(slow_to_open(1.0), ALICE))
            await until(lambda: is_asked(service))
            service.set_policy(Policy({}))
            response = await asyncio.wait_for(opening, scaled(10.0))
            assert response.error.kind == KIND.SESSION_LOST
            assert "it may no longer be open: the server's policy has no rule for 'alice'" in response.error.message

    run(test)


def test_what_was_kept_for_a_client_is_closed_when_it_may_have_it_no_more():
    async def test() -> None:
        async with running(time.monotonic, processes=True, reuse=True) as service:
            for client in ALICE, Client("bob"):
                session = await open_session(service, client)
                await service.close_session(session.id, session.token, client)
            assert service.spare_count == 2
            service.set_policy(Policy({"bob": Rule()}))
            assert service.spare_count == 1
            service.set_policy(Policy({}))
            assert service.spare_count == 0
            await until(lambda: not service.watched_workers())

    run(test)


def test_a_client_that_opens_too_often_is_refused_and_the_log_names_it(caplog):
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with running(max_opens_per_second=0.1) as service:
            service.check_rate(ALICE, take=True)
            with pytest.raises(ServerFull, match=r"which is 0\.1 a second"):
                service.check_rate(ALICE)
            assert "refused a session to alice: " in caplog.text

    run(test)


def test_a_session_that_is_ended_after_its_workers_answer_is_not_told_to_be_open():
    async def test() -> None:
        launcher = ThreadLauncher(LIMIT)
        start = launcher.launch

        async def launch(spec: LaunchSpec) -> WorkerHandle:
            worker = await start(spec)
            ask = worker.ask

            async def ask_and_lose_the_right(data: bytes) -> bytes:
                answer = await ask(data)
                asyncio.get_running_loop().call_soon(service.set_policy, Policy({}))
                return answer

            worker.ask = ask_and_lose_the_right
            return worker

        launcher.launch = launch
        async with running(launcher=launcher) as service:
            response = await service.open(opening(), ALICE)
            assert response.error.kind == KIND.SESSION_LOST
            assert "it may no longer be open: the server's policy has no rule for 'alice'" in response.error.message
            assert not service._live._routes._sessions

    run(test)


@pytest.mark.parametrize("processes", [False, True])
def test_an_attached_session_that_asks_nothing_ends_and_a_detached_one_lives_its_lease(processes):
    async def test() -> None:
        idle = scaled(0.4)
        limits = {"idle_timeout": idle, "lease": 1000.0}
        async with running(time.monotonic, processes=processes, **limits) as service:
            attached, left, other = [await open_session(service, ANONYMOUS) for _ in range(3)]
            reasons: list[Exception] = []
            service.attach(attached.id, attached.token, ANONYMOUS, reasons.append)
            direct = await come_directly(service, other)
            await until(lambda: len(service) == 1)
            assert f"asked nothing for {idle:g} s" in str(reasons[0])
            told = pb.Response.FromString(await asyncio.to_thread(direct.receive))
            assert f"asked nothing for {idle:g} s" in told.error.message
            for session in (attached, other):
                with pytest.raises(SessionLost, match=r"asked nothing for"):
                    service.attach(session.id, session.token, ANONYMOUS, reasons.append)
            answer = await service.ask(left.id, left.token, ANONYMOUS, reset(1))
            assert pb.Response.FromString(answer).HasField("reset")
            direct.close()

    run(test)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="only Linux tells of an end without what comes before it")
def test_a_lease_begins_though_the_worker_hangs_and_does_not_see_that_its_direct_client_is_gone():
    async def test() -> None:
        async with running(time.monotonic, processes=True, lease=scaled(0.3), close_timeout=scaled(0.2)) as service:
            session = await open_session(service, ANONYMOUS)
            direct = await come_directly(service, session)
            await ask_directly(direct, reset(1))
            direct.send(step(2, "hang"))
            await until(lambda: service._live[session.id].direct)
            direct.close()
            await until(lambda: not service._live[session.id].direct)
            while len(service):
                service.expire()
                await asyncio.sleep(0.01)

    run(test)


def test_workers_are_told_the_servers_files():
    clients = Clients(TlsFiles(certificate="/c", private_key="/k", ca="/a"), ServerOptions())
    asked: list[worker_pb2.Launch] = []

    class Listener(WorkerHandle):
        async def ask(self, data: bytes) -> bytes:
            asked.append(worker_pb2.Launch.FromString(data))
            raise SessionLost("enough")

        async def close(self, timeout: float) -> None:
            self.exited.set_result("closed")

    async def launch(spec: LaunchSpec) -> WorkerHandle:
        return Listener(spec.session, lambda: None, LIMIT)

    async def test() -> None:
        launcher = ThreadLauncher(LIMIT)
        launcher.launch = launch
        async with running(launcher=launcher, clients=clients) as service:
            await service.open(opening(), ALICE)
        assert asked[0].tls == worker_pb2.Tls(certificate="/c", private_key="/k", ca="/a")
        assert (asked[0].identity, asked[0].env_id) == ("alice", 0)

    run(test)


def test_exits_are_told_in_words():
    assert describe_exit(7) == "its worker ended with status 7"
    assert describe_exit(-9) == "its worker was ended by SIGKILL"
    assert describe_exit(-63) == "its worker was ended by signal 63"
