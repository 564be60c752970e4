"""The server's end of the relay, while the relay is slow, or dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from remote_gym.server.frontends.relay.process import CUT
from waiting import scaled

if sys.platform != "linux":
    pytest.skip("elsewhere there is no relay", allow_module_level=True)

from remote_gym.server.frontends.relay import control as control_module
from remote_gym.server.frontends.relay.control import RelayControl

NOBODY = 10**9
"""No connection's number."""


@contextlib.asynccontextmanager
async def controlled() -> AsyncIterator[tuple[RelayControl, Callable[[], socket.socket]]]:
    """A relay to a socket at which nobody reads, and what makes a client of it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp"))
        upstream = stack.enter_context(socket.socket(socket.AF_UNIX))
        upstream.bind(f"{folder}/grpc")
        upstream.listen(100)
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def client() -> socket.socket:
            stack.enter_context(socket.create_connection(listening.getsockname()))
            return stack.enter_context(listening.accept()[0])

        relay = RelayControl(f"{folder}/grpc", "")
        try:
            yield relay, client
        finally:
            await relay.stop()


async def until(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + scaled(20.0)
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def stop_and_fill(relay: RelayControl) -> int:
    """Have the relay read no command, and no further one fit."""
    assert relay.pid is not None
    os.kill(relay.pid, signal.SIGSTOP)
    with contextlib.suppress(BlockingIOError):
        while True:
            relay._command(CUT, NOBODY)
    return relay.pid


def test_a_cut_that_did_not_fit_is_made_later():
    async def run() -> None:
        async with controlled() as (relay, client):
            await relay.carry(client(), b"x", "ipv4:10.0.0.1:4321")
            pid = stop_and_fill(relay)
            assert [relay.cut(1), relay.cut(1), relay.cut(NOBODY)] == [True, False, False]
            os.kill(pid, signal.SIGCONT)
            await until(lambda: len(relay) == 0)
            assert not relay.cut(1)

    asyncio.run(run())


def test_a_connection_that_waits_while_its_relay_dies_is_the_next_ones_and_counts():
    async def run() -> None:
        async with controlled() as (relay, client):
            await relay.carry(client(), b"x", "ipv4:10.0.0.1:4321")
            pid = stop_and_fill(relay)
            carried = asyncio.ensure_future(relay.carry(client(), b"x", "ipv4:10.0.0.1:4322"))
            await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            await carried
            assert len(relay) == 1
            assert relay.pid is not None
            other = psutil.Process(relay.pid)
            await until(lambda: len(other.net_connections("tcp")) == 1)
            assert relay.cut(2)
            await until(lambda: len(relay) == 0)

    asyncio.run(run())


def test_a_relay_that_does_not_answer_is_killed_and_the_next_one_carries(monkeypatch, caplog):
    monkeypatch.setattr(control_module, "PING_EVERY", scaled(0.3))

    async def run() -> None:
        async with controlled() as (relay, client):
            await relay.carry(client(), b"x", "ipv4:10.0.0.1:4321")
            await until(lambda: relay._unanswered == 0)
            first = relay.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)
            await until(lambda: relay.pid is None)
            assert len(relay) == 0
            await relay.carry(client(), b"x", "ipv4:10.0.0.1:4322")
            assert relay.pid not in (None, first)

    asyncio.run(run())
    assert "does not answer; killing it" in caplog.text
