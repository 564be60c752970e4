"""When a broken connection is made again, by a clock and random numbers of the tests' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent import futures

import grpc
import pytest

from clocks import Clock
from remote_gym.client.connect.channel import channel_options
from remote_gym.client.connect.retry import FIRST_REACH, NOTICED_LATER, STEADY_AFTER, Retry
from remote_gym.config import Limits, RetryPolicy
from remote_gym.errors import ConnectError, ConnectionLost, DeadlineExceeded

BROKE = ConnectionLost("the line broke")
UNREACHABLE = ConnectError("nobody there")


def begin(
    clock: Clock,
    *,
    connect_timeout: float = 10.0,
    reconnect_timeout: float | None = 900.0,
    lease: float = 60.0,
    timeout: float = 1000.0,
    draw: Callable[[], float] = lambda: 1.0,
    **policy,
) -> Retry:
    return Retry(
        RetryPolicy(**policy),
        BROKE,
        connect_timeout=connect_timeout,
        reconnect_timeout=reconnect_timeout,
        lease=lease,
        deadline=clock.now + timeout,
        clock=clock,
        draw=draw,
    )


def test_pauses_double_up_to_the_longest(clock):
    retry = begin(clock, first_pause=0.5, longest_pause=3.0)
    assert [retry.pause_after(UNREACHABLE) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_pause_is_any_part_of_its_longest_and_grows_all_the_same(clock):
    parts = iter([0.0, 0.5, 0.25])
    retry = begin(clock, first_pause=1.0, longest_pause=8.0, draw=lambda: next(parts))
    assert [retry.pause_after(UNREACHABLE) for _ in range(3)] == [0.0, 1.0, 1.0]


def test_a_server_that_is_not_reached_within_the_reconnect_timeout_ends_it_and_the_error_names_the_option(clock):
    retry = begin(clock, reconnect_timeout=3.0)
    clock.now += 2.0
    retry.pause_after(UNREACHABLE)
    clock.now += 2.0
    with pytest.raises(ConnectionLost, match=r"within 3 s \(ClientOptions.reconnect_timeout\): nobody there"):
        retry.pause_after(UNREACHABLE)


def test_unless_set_it_is_tried_for_as_long_as_the_server_keeps_the_session(clock):
    retry = begin(clock, reconnect_timeout=None, lease=60.0)
    clock.now += 60.0 + NOTICED_LATER - 1.0
    retry.pause_after(UNREACHABLE)
    clock.now += 1.1
    with pytest.raises(ConnectionLost, match=r"within 70 s"):
        retry.pause_after(UNREACHABLE)


def test_no_attempt_outlasts_the_connect_timeout_or_the_reconnect_timeout(clock):
    retry = begin(clock, connect_timeout=4.0, reconnect_timeout=10.0)
    assert retry.reach_timeout() == FIRST_REACH
    assert retry.reach_timeout() == 4.0
    clock.now += 7.0
    assert retry.reach_timeout() == 3.0


def test_a_connection_that_was_made_gives_the_next_one_the_whole_reconnect_timeout(clock):
    retry = begin(clock, connect_timeout=10.0, reconnect_timeout=3.0)
    retry.reach_timeout()
    clock.now += 2.9
    retry.made()
    clock.now += 2.0
    retry.pause_after(ConnectionLost("again"))
    assert retry.reach_timeout() == 3.0


def test_connections_that_break_at_once_are_counted(clock):
    retry = begin(clock, attempts=3)
    for _ in range(2):
        retry.made()
        retry.pause_after(BROKE)
    retry.made()
    with pytest.raises(ConnectionLost, match="made again 3 times"):
        retry.pause_after(BROKE)


def test_one_that_stood_for_a_while_begins_the_count_and_the_pauses_anew(clock):
    retry = begin(clock, attempts=2, first_pause=0.5)
    for _ in range(10):
        retry.made()
        retry.pause_after(BROKE)
        retry.made()
        clock.now += STEADY_AFTER
        assert retry.pause_after(BROKE) == 0.5


def test_attempts_that_made_none_do_not_count_as_breaks(clock):
    retry = begin(clock, attempts=1)
    for _ in range(10):
        retry.pause_after(UNREACHABLE)


def test_the_deadline_of_the_request_comes_first_and_does_not_give_the_session_up(clock):
    retry = begin(clock, timeout=2.0, connect_timeout=50.0, longest_pause=5.0, first_pause=1.0)
    assert (retry.reach_timeout(), retry.reach_timeout()) == (FIRST_REACH, 2.0)
    retry.pause_after(UNREACHABLE)
    clock.now += 1.0
    for error in (UNREACHABLE, BROKE):
        with pytest.raises(DeadlineExceeded, match="the line broke; it was not made again before the deadline"):
            retry.pause_after(error)


@pytest.fixture
def refusing() -> tuple[int, list[int]]:
    """Port of a gRPC server that answers every call UNAVAILABLE, and how often it was called."""
    calls: list[int] = []

    def refuse(data: bytes, context: grpc.ServicerContext) -> bytes:
        calls.append(1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    handlers = {"Step": grpc.unary_unary_rpc_method_handler(refuse)}
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", handlers),))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield port, calls
    server.stop(None).wait(10.0)


@pytest.mark.parametrize(("changed", "executions"), [({}, 1), ({"grpc.enable_retries": 1}, 3)])
def test_grpc_repeats_no_request_by_itself_even_where_a_service_config_asks_for_it(refusing, changed, executions):
    port, calls = refusing
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = {**dict(channel_options(Limits())), "grpc.service_config": config, **changed}
    with grpc.insecure_channel(f"localhost:{port}", options=list(options.items())) as channel:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/s/Step")(b"", timeout=20.0)
    assert len(calls) == executions


def test_a_server_that_is_reached_and_offers_no_way_in_is_tried_for_the_connect_timeout(clock):
    retry = begin(clock, connect_timeout=10.0)
    for _ in range(3):  # not reached, however often, is something else
        retry.reach_timeout()
        clock.now += retry.pause_after(UNREACHABLE) + 5.0

    def refused() -> None:
        while True:
            retry.reach_timeout()
            retry.made()
            clock.now += retry.pause_after(UNREACHABLE)

    with pytest.raises(ConnectionLost, match=r"reached for 10 s \(ClientOptions.connect_timeout\), and yet: nobody"):
        refused()
    assert clock.now < 100.0 + 3 * 10.0 + 15.0
