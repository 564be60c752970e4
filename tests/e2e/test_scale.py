"""Many sessions at once."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc
import pytest

from processes import descendants, open_descriptors, thread_count
from remote_gym import ServerFull
from remote_gym.protocol.constants import PROTOCOL_VERSION, SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.testing import LoopbackServer, loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

STEPS = 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sessions", [64, pytest.param(256, marks=pytest.mark.long)])
def test_many_sessions_step_at_once_and_all_close(obedient, sessions):
    """All on one server and in processes, stepping in turns that overlap; nothing hangs and nothing is left."""
    with loopback_server(obedient) as warm:
        warm.environment().reset()
    descriptors, processes = open_descriptors(), descendants(os.getpid())
    with loopback_server(obedient, max_sessions=sessions) as server:
        threads = thread_count()
        counts = asyncio.run(play_everywhere(server, sessions))
        assert counts == [STEPS] * sessions
        assert thread_count() - threads < 32
        wait_until(lambda: server.server.session_count == 0, timeout=30.0)
        # One more session than there may be would be refused, so the places have come back: each does once its worker's
        # process is gone, and 256 interpreters end for two seconds on two cores.
        wait_until(lambda: has_place(server), timeout=30.0)
    assert descendants(os.getpid()) <= processes
    wait_until(lambda: len(open_descriptors()) <= len(descriptors) + 2)


def has_place(server: LoopbackServer) -> bool:
    try:
        server.environment().reset()
    except ServerFull:
        return False
    return True


async def play_everywhere(server, sessions: int) -> list[int]:
    ca, certificate, key = (path.read_bytes() for path in server.client_credentials_paths)
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    async with grpc.aio.secure_channel(f"localhost:{server.server.port}", credentials) as channel:
        opened = asyncio.Semaphore(16)
        all_open = asyncio.Event()
        still_to_open = [None] * sessions
        return await asyncio.gather(*(play(channel, opened, all_open, still_to_open) for _ in range(sessions)))


async def play(
    channel: grpc.aio.Channel, opened: asyncio.Semaphore, all_open: asyncio.Event, still_to_open: list[None]
) -> int:
    async with opened:
        request = pb.OpenRequest(protocol_version=PROTOCOL_VERSION)
        answer = await channel.unary_unary(f"/{SERVICE_NAME}/Open")(request.SerializeToString(), timeout=120)
    response = pb.OpenResponse.FromString(answer)
    assert response.HasField("session"), response.error
    still_to_open.pop()
    if not still_to_open:
        all_open.set()
    await asyncio.wait_for(all_open.wait(), scaled(240))
    metadata = ((SESSION_KEY, response.session.id), (TOKEN_KEY, response.session.token))
    call = channel.stream_stream(f"/{SERVICE_NAME}/Interact")(metadata=metadata)
    sequence = 0

    async def ask(request: pb.Request) -> pb.Response:
        nonlocal sequence
        sequence += 1
        request.sequence = sequence
        await call.write(request.SerializeToString())
        answer = pb.Response.FromString(await asyncio.wait_for(call.read(), scaled(60)))
        assert answer.sequence == sequence, answer.error
        assert not answer.HasField("error"), answer.error
        return answer

    await ask(pb.Request(reset=pb.ResetRequest()))
    for _ in range(STEPS):
        await ask(pb.Request(step=pb.StepRequest(packed=(0).to_bytes(8, "little"))))
    await ask(pb.Request(close=pb.CloseRequest()))
    await call.done_writing()
    return sequence - 2
