"""What is done for many workers at once: every failure is told, and Ctrl-C ends the waiting, not only the asking."""

from __future__ import annotations

import signal
import threading

import pytest

from remote_gym.client.vector.gather import in_threads
from remote_gym.client.vector.shard import Shard
from remote_gym.errors import ServerFull
from waiting import scaled


def shards(count: int) -> list[Shard]:
    def never(*_):
        raise AssertionError("nothing is opened here")

    return [Shard(number, number + 1, never) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_all_are_done_and_those_that_failed_are_told_in_their_order(count):
    chosen, done = shards(count), []

    def do(each: Shard) -> None:
        done.append(each)
        if each.start % 3 == 0:
            raise ServerFull(str(each))

    failures = in_threads(chosen, do)
    assert sorted(each.start for each in done) == list(range(count))
    assert [(each.start, str(error)) for each, error in failures] == [
        (start, f"environment {start}") for start in range(0, count, 3)
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_fault_of_ours_is_raised_where_it_is_waited_for(count):
    def do(each: Shard) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_threads(shards(count), do)


def test_ctrl_c_ends_the_waiting_and_tells_those_that_work():
    given_up, ended = threading.Event(), threading.Semaphore(0)
    begun = threading.Barrier(3)

    def interrupt() -> None:
        begun.wait(scaled(10.0))
        signal.raise_signal(signal.SIGINT)

    def do(each: Shard) -> None:
        begun.wait(scaled(10.0))
        assert given_up.wait(scaled(30.0))
        ended.release()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        in_threads(shards(2), do, given_up)
    assert given_up.is_set()
    for _ in range(2):
        assert ended.acquire(timeout=scaled(10.0))


def test_what_cannot_be_given_up_has_ended_before_ctrl_c_is_raised():
    ended = []
    begun, may_end = threading.Barrier(3), threading.Event()

    def interrupt() -> None:
        begun.wait(scaled(10.0))
        signal.raise_signal(signal.SIGINT)
        may_end.set()

    def do(each: Shard) -> None:
        begun.wait(scaled(10.0))
        assert may_end.wait(scaled(30.0))
        ended.append(each)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        in_threads(shards(2), do)
    assert len(ended) == 2
