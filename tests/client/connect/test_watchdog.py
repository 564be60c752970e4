"""The deadlines of requests that share one gRPC call."""

from __future__ import annotations

import gc
import queue
import threading
import time

from remote_gym.client.connect.grpc_stream import _Watchdog
from waiting import scaled, wait_until


class Call:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def begin() -> tuple[_Watchdog, Call, queue.SimpleQueue]:
    call, requests = Call(), queue.SimpleQueue()
    return _Watchdog(call, requests), call, requests


def test_a_request_past_its_deadline_is_struck():
    watchdog, call, requests = begin()
    watchdog.watch(time.monotonic() + scaled(0.05))
    wait_until(lambda: call.cancelled)
    assert watchdog.expired
    assert requests.get(timeout=scaled(30.0)) is None  # which ends the thread of gRPC that reads them


def test_an_answered_request_is_not_struck_whatever_the_time():
    watchdog, call, _ = begin()
    watchdog.watch(time.monotonic() - 1.0)
    watchdog.rest()
    watchdog.look()
    assert not call.cancelled
    assert not watchdog.expired
    watchdog.stop()


def test_the_next_request_is_not_struck_for_the_last_ones_deadline(monkeypatch):
    """The watchdog has seen the time of the last request's end, and then this one is answered and another asked."""
    watchdog, call, _ = begin()
    watchdog._stopped.set()  # ends its thread, which strikes nothing; from here on this test looks in its place
    watchdog.watch(time.monotonic() + 1000.0)
    now = time.monotonic()
    looking, answered, judged = threading.Event(), threading.Event(), threading.Event()
    clock = time.monotonic

    def slow_clock() -> float:
        if threading.current_thread().name != "looker":
            return clock()
        looking.set()
        answered.wait(scaled(0.3))  # as if the thread were put to sleep here
        judged.set()
        return now + 2000.0

    monkeypatch.setattr(time, "monotonic", slow_clock)
    looker = threading.Thread(target=watchdog.look, name="looker")
    looker.start()
    assert looking.wait(scaled(10.0))
    watchdog.rest()  # has to wait until the judgement is passed
    assert judged.is_set()
    watchdog.watch(now + 5000.0)
    answered.set()
    looker.join(scaled(10.0))
    # Either the first was struck before it was answered, or nothing was; never the second for the first's deadline.
    assert watchdog._to_cancel == [call]
    assert not watchdog.expired


def test_a_dropped_watchdog_ends_its_thread_and_the_one_that_reads_requests():
    before = set(threading.enumerate())
    watchdog, call, requests = begin()
    del watchdog, call
    gc.collect()
    assert requests.get(timeout=scaled(30.0)) is None
    wait_until(lambda: set(threading.enumerate()) <= before)
