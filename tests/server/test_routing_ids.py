"""Routing ids: each for one connection, for a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from remote_gym.server.routing_ids import ROUTES_AT_ONCE, RoutingIds
from remote_gym.transport.direct_socket import ROUTING_ID_BYTES, ROUTING_ID_LIFETIME
from remote_gym.v1 import remote_gym_pb2 as pb

DIRECT = pb.DirectAddress(port=7, tls=True)


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=100.0)


@pytest.fixture
def routes(clock) -> RoutingIds:
    return RoutingIds(DIRECT, lambda: clock.now)


def new_id(routes: RoutingIds, session: str = "s") -> bytes:
    address = routes.address(session)
    assert address is not None
    return address.routing_id


def test_an_id_leads_to_its_session_once(routes):
    one, other = new_id(routes, "one"), new_id(routes, "other")
    assert len({one, other}) == 2
    assert routes.take(one) == "one"
    assert routes.take(one) is None
    assert routes.take(other) == "other"


def test_an_address_is_the_listeners_with_an_id_of_its_own(routes):
    address = routes.address("s")
    assert (address.port, address.tls, len(address.routing_id)) == (7, True, ROUTING_ID_BYTES)
    assert DIRECT.routing_id == b""


def test_where_nobody_listens_there_is_no_address(clock):
    assert RoutingIds(None, clock).address("s") is None


@pytest.mark.parametrize(("seconds", "found"), [(-0.1, "s"), (0.0, None)])
def test_an_id_is_good_for_a_while(routes, clock, seconds, found):
    routing_id = new_id(routes)
    clock.now += ROUTING_ID_LIFETIME + seconds
    assert routes.take(routing_id) == found


def test_of_one_session_only_the_newest_are_good(routes):
    others = new_id(routes, "another")
    ids = [new_id(routes) for _ in range(ROUTES_AT_ONCE + 2)]
    assert [routes.take(routing_id) for routing_id in ids] == [None, None, *["s"] * ROUTES_AT_ONCE]
    assert routes.take(others) == "another"


def test_a_session_that_ends_takes_its_ids_along(routes):
    ids, others = [new_id(routes) for _ in range(2)], new_id(routes, "another")
    routes.take(ids[0])
    routes.forget("s")
    routes.forget("s")
    assert routes.take(ids[1]) is None
    assert routes.take(others) == "another"
    routes.forget("another")
    assert not routes._sessions
    assert not routes._good_until


def test_an_id_that_nobody_was_told_leads_nowhere(routes):
    new_id(routes)
    assert routes.take(bytes(ROUTING_ID_BYTES)) is None
