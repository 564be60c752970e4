"""More than a server can take: what is refused is told, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest

from environments import ACTION
from processes import descendants, family
from raw_client import RawSession, channel_to, method, open_request, step
from remote_gym import DeadlineExceeded, ServerFull
from remote_gym.testing import loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

OPENS = 400
KINDS = pb.ErrorDetail.Kind


@pytest.mark.timeout(300)
@pytest.mark.parametrize("max_sessions", [24, pytest.param(OPENS + 1, marks=pytest.mark.long)])
def test_400_opens_at_once_are_all_answered_and_an_idle_session_survives_them(obedient, max_sessions):
    before = descendants(os.getpid())
    with loopback_server(obedient, secure=False, max_sessions=max_sessions, open_timeout=280.0) as server:
        idle = server.environment()
        idle.reset()
        answers = asyncio.run(open_all_at_once(server.server.address))
        opened = min(max_sessions - 1, OPENS)
        assert answers == Counter({"session": opened, "SERVER_FULL": OPENS - opened}) - Counter()
        assert idle.step(ACTION["step"])[0]["count"] == 1
        assert server.server.session_count == opened + 1
    assert descendants(os.getpid()) <= before


async def open_all_at_once(address: str) -> Counter[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(method("Open"))
        answers = await asyncio.gather(*(call(open_request(), timeout=290.0) for _ in range(OPENS)))
    responses = map(pb.OpenResponse.FromString, answers)
    return Counter("session" if one.HasField("session") else KINDS.Name(one.error.kind) for one in responses)


def test_opens_that_are_cancelled_give_their_places_back_and_never_hold_more_workers_than_there_are(obedient):
    before = descendants(os.getpid())
    slow = {**obedient, "entrypoint_kwargs": {"delay": 60.0}}
    with loopback_server(slow, secure=False, max_sessions=3, close_timeout=scaled(0.5)) as server:
        with channel_to(server) as channel:
            for _ in range(4):
                calls = [
                    channel.unary_unary(method("Open")).future(open_request(), timeout=scaled(60.0)) for _ in range(6)
                ]
                # Three have a worker each, and three are refused; the forkserver is one more process.
                wait_until(lambda calls=calls: sum(call.done() for call in calls) == 3)
                wait_until(lambda: len(family(os.getpid()) - before) == 4)
                for call in calls:
                    call.cancel()
                wait_until(lambda: len(family(os.getpid()) - before) == 1)
                # The server hears of a process's end a little later than we can see it.
                wait_until(lambda: not server.server._service._sessions._places)


def test_an_environment_that_hangs_in_a_thread_keeps_its_place_and_its_env_id(obedient, tmp_path):
    log = tmp_path / "log"
    with loopback_server(obedient, use_thread=True, max_sessions=2, close_timeout=scaled(0.2)) as server:
        arguments = {"entrypoint_kwargs": {"log": str(log)}}
        hung = server.environment(step_timeout=scaled(0.3), close_timeout=scaled(0.5), remote_args=arguments)
        assert hung.reset()[1]["env_id"] == 0
        with pytest.raises(DeadlineExceeded):
            hung.step(ACTION["wait_for_release"])
        hung.close()
        other = server.environment()
        assert other.reset()[1]["env_id"] == 1
        with pytest.raises(ServerFull, match="1 sessions, and 1 more are closing"):
            server.environment()
        other.close()
        log.with_suffix(".release").touch()
        # Once the step has returned after all, the place and the number are free again.
        wait_until(lambda: env_ids_of_two(server) == [0, 1])


def env_ids_of_two(server) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(2):
            try:
                environment = server.environment()
            except ServerFull:
                break
            stack.callback(environment.close)
            found.append(environment.reset()[1]["env_id"])
        return found


def test_steps_that_nobody_waits_for_do_not_pile_up_in_the_server(obedient):
    script = SERVER.format(arguments=obedient, options={}, before="")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = read_port(process)
            with grpc.insecure_channel(f"localhost:{port}", options=[("grpc.max_send_message_length", -1)]) as channel:
                session = RawSession.open(channel)
                session.ask("Reset", pb.Request(sequence=1, reset=pb.ResetRequest()))
                hang = session.begin("Step", step(2, "hang"))
                large = pb.Request(sequence=3, step=pb.StepRequest(packed=bytes(5 * 2**20)))
                before = resident_bytes(process.pid)
                for _ in range(30):
                    call = session.begin("Step", large)
                    wait_until_sent(channel)
                    call.cancel()
                # What was cancelled last may take a moment to be let go; what piled up would stay while it hangs.
                wait_until(lambda: resident_bytes(process.pid) - before < 50 * 2**20)
                hang.cancel()
        finally:
            process.kill()


def wait_until_sent(channel: grpc.Channel) -> None:
    """The server has read what was sent before this on the same connection, as it answers what comes after."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=scaled(30.0))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_many(channel: grpc.Channel, opened: list[RawSession]) -> None:
    while len(opened) < 64:
        opened.append(RawSession.open(channel))


SERVER = """
import resource
{before}
from remote_gym import create_remote_environment_server
server = create_remote_environment_server({arguments!r}, "localhost", 0, **{options!r})
print("port", server.port, flush=True)
server.wait_for_termination()
"""


def read_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    match = re.fullmatch(r"port (\d+)\n", process.stdout.readline())
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize("use_thread", [False, True])
def test_a_server_without_descriptors_left_refuses_and_those_that_it_has_go_on(obedient, use_thread):
    # A thread shares the descriptors, so that it may be its environment's creation that finds none left.
    reason = r"ulimit -n|Too many open files" if use_thread else "ulimit -n"
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    script = SERVER.format(arguments=obedient, options={"use_thread": use_thread, "direct": False}, before=few)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = read_port(process)
            with grpc.insecure_channel(f"localhost:{port}") as channel:
                first = RawSession.open(channel)
                opened: list[RawSession] = []
                with pytest.raises(AssertionError, match=reason):
                    open_many(channel, opened)
                assert len(opened) > 1
                assert first.ask("Reset", pb.Request(sequence=1, reset=pb.ResetRequest())).HasField("reset")
                # With one closed there is room for another.
                opened.pop().ask("Close", pb.Request(sequence=1, close=pb.CloseRequest()))
                RawSession.open(channel)
        finally:
            process.kill()
