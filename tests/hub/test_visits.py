"""Clients that wait for their server to dial back: by ids that are good once, and no more of them than may wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from remote_gym.config import HubOptions
from remote_gym.hub.registry import RefusedError, Registered, Registry
from remote_gym.hub.visits import Visits
from remote_gym.protocol.hub import ID_BYTES
from waiting import scaled


def registered(*names: str) -> Registered[str]:
    return Registry[str](HubOptions(), lambda: 0.0).add(names, b"1", "link")


def on_a_loop(check: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), scaled(10.0)))


def test_a_connection_is_given_to_the_client_whose_id_it_has_and_once():
    async def check() -> None:
        visits, server = Visits(8), registered("a")
        with socket.socket() as sock, visits.one(server, "here") as one, visits.one(server, "here") as other:
            assert len(one.id) == len(other.id) == ID_BYTES
            assert one.id != other.id
            assert len(visits) == 2
            assert not visits.take(bytes(ID_BYTES), sock)
            assert visits.take(other.id, sock)
            assert other.came.result() is sock
            assert not one.came.done()
            assert not visits.take(other.id, sock)
            assert len(visits) == 1
        assert not len(visits)

    on_a_loop(check)


def test_an_id_is_good_no_longer_than_its_client_waits():
    async def check() -> None:
        visits = Visits(8)
        with visits.one(registered("a"), "here") as visit:
            pass
        with socket.socket() as sock:
            assert not visits.take(visit.id, sock)
            assert sock.fileno() >= 0  # it is still its owner's

    on_a_loop(check)


def test_a_connection_that_came_for_a_client_that_is_gone_is_closed():
    async def wait(visits: Visits) -> None:
        with visits.one(registered("a"), "here") as visit:
            await asyncio.wait({visit.came})

    async def check() -> None:
        visits, sock = Visits(8), socket.socket()
        waiting = asyncio.ensure_future(wait(visits))
        await asyncio.sleep(0)
        (visit_id,) = visits._waiting
        assert visits.take(visit_id, sock)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert sock.fileno() == -1
        assert not len(visits)

    on_a_loop(check)


def test_one_address_has_a_quarter_of_those_that_wait_for_a_server_and_all_have_the_whole():
    async def check() -> None:
        visits, server = Visits(4), registered("a")
        with visits.one(server, "1"):
            with pytest.raises(
                RefusedError, match=r"^1 clients from there wait for a to dial back, as many as one addr"
            ):
                with visits.one(server, "1"):
                    pass
            with visits.one(server, "2"), visits.one(server, "3"), visits.one(server, "4"):
                with pytest.raises(RefusedError, match=r"^4 clients wait for a .*, as many as HubOptions.max_pending"):
                    with visits.one(server, "5"):
                        pass
                with visits.one(registered("b"), "1"):  # another server's are its own
                    assert len(visits) == 5
        with visits.one(server, "1"):  # the counts have gone down again
            assert len(visits) == 1
        assert not visits._counts
        assert not visits._hosts

    on_a_loop(check)


def test_one_may_wait_where_a_quarter_is_less_than_one():
    async def check() -> None:
        visits, server = Visits(2), registered("a")
        with visits.one(server, "1"), visits.one(server, "2"), pytest.raises(RefusedError, match="max_pending"):
            with visits.one(server, "3"):
                pass

    on_a_loop(check)
