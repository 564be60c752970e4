"""Clients that wait for their server to dial back: by ids that are good once, and no more of them than may wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from remote_gym.config import HubOptions
from remote_gym.hub.dial_backs import DialBacks
from remote_gym.hub.registry import RefusedError, Registered, Registry
from remote_gym.protocol.hub import ID_BYTES
from waiting import scaled


def registered(*names: str) -> Registered[str]:
    return Registry[str](HubOptions(), lambda: 0.0).add(names, b"1", "link")


def on_a_loop(check: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), scaled(10.0)))


def test_a_connection_is_given_to_the_client_whose_id_it_has_and_once():
    async def check() -> None:
        dial_backs, server = DialBacks(8), registered("a")
        with (
            socket.socket() as sock,
            dial_backs.expect(server, "here") as one,
            dial_backs.expect(server, "here") as other,
        ):
            assert len(one.id) == len(other.id) == ID_BYTES
            assert one.id != other.id
            assert len(dial_backs) == 2
            assert not dial_backs.take(bytes(ID_BYTES), sock)
            assert dial_backs.take(other.id, sock)
            assert other.came.result() is sock
            assert not one.came.done()
            assert not dial_backs.take(other.id, sock)
            assert len(dial_backs) == 1
        assert not len(dial_backs)

    on_a_loop(check)


def test_an_id_is_good_no_longer_than_its_client_waits():
    async def check() -> None:
        dial_backs = DialBacks(8)
        with dial_backs.expect(registered("a"), "here") as dial_back:
            pass
        with socket.socket() as sock:
            assert not dial_backs.take(dial_back.id, sock)
            assert sock.fileno() >= 0  # it is still its owner's

    on_a_loop(check)


def test_a_connection_that_came_for_a_client_that_is_gone_is_closed():
    async def wait(dial_backs: DialBacks) -> None:
        with dial_backs.expect(registered("a"), "here") as dial_back:
            await asyncio.wait({dial_back.came})

    async def check() -> None:
        dial_backs, sock = DialBacks(8), socket.socket()
        waiting = asyncio.ensure_future(wait(dial_backs))
        await asyncio.sleep(0)
        (dial_back_id,) = dial_backs._waiting
        assert dial_backs.take(dial_back_id, sock)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert sock.fileno() == -1
        assert not len(dial_backs)

    on_a_loop(check)


def test_one_address_has_a_quarter_of_those_that_wait_for_a_server_and_all_have_the_whole():
    async def check() -> None:
        dial_backs, server = DialBacks(4), registered("a")
        with dial_backs.expect(server, "1"):
            with pytest.raises(
                RefusedError, match=r"^1 clients from there wait for a to dial back, as many as one addr"
            ):
                with dial_backs.expect(server, "1"):
                    pass
            with dial_backs.expect(server, "2"), dial_backs.expect(server, "3"), dial_backs.expect(server, "4"):
                with pytest.raises(RefusedError, match=r"^4 clients wait for a .*, as many as HubOptions.max_pending"):
                    with dial_backs.expect(server, "5"):
                        pass
                with dial_backs.expect(registered("b"), "1"):  # another server's are its own
                    assert len(dial_backs) == 5
        with dial_backs.expect(server, "1"):  # the counts have gone down again
            assert len(dial_backs) == 1
        assert not dial_backs._counts
        assert not dial_backs._hosts

    on_a_loop(check)


def test_one_may_wait_where_a_quarter_is_less_than_one():
    async def check() -> None:
        dial_backs, server = DialBacks(2), registered("a")
        with (
            dial_backs.expect(server, "1"),
            dial_backs.expect(server, "2"),
            pytest.raises(RefusedError, match="max_pending"),
        ):
            with dial_backs.expect(server, "3"):
                pass

    on_a_loop(check)
