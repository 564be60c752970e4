"""Whose turn it is, beside busy threads and within signals' handlers."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from remote_gym.client import turn as module
from remote_gym.client.turn import Claim, Turn
from waiting import scaled


def soon() -> float:
    return time.monotonic() + scaled(10.0)


def test_a_thread_that_looks_now_and_then_gets_its_turn_beside_one_that_asks_again_at_once():
    turn, stop = Turn(), threading.Event()

    def train() -> None:
        while not stop.is_set():
            claim = Claim()
            assert turn.take(claim, soon())
            time.sleep(0.001)
            claim.over = True

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        for _ in range(20):
            claim = Claim()
            assert turn.take(claim, soon())
            claim.over = True
            time.sleep(0.01)
    finally:
        stop.set()
        trainer.join(scaled(20.0))


def test_turns_come_in_the_order_in_which_they_were_asked_for():
    turn, order = Turn(), []
    first = Claim()
    turn.take(first, soon())
    threads = []

    def wait(number: int) -> None:
        claim = Claim()
        assert turn.take(claim, soon())
        order.append(number)
        claim.over = True

    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(turn._queue) < 2 + number:
            time.sleep(0.001)
    time.sleep(0.05)  # the first ones look more seldom by now
    first.over = True
    for thread in threads:
        thread.join(scaled(20.0))
    assert order == [0, 1, 2, 3, 4]


def in_another_thread(turn: Turn, claim: Claim, deadline: float) -> bool:
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(turn.take(claim, deadline)))
    thread.start()
    thread.join(scaled(20.0))
    return taken[0]


def test_a_claim_that_timed_out_does_not_block_the_next():
    turn, holder, late, next_one = Turn(), Claim(), Claim(), Claim()
    assert turn.take(holder, soon())
    assert not in_another_thread(turn, late, time.monotonic() + 0.01)
    assert late.over
    holder.over = True
    assert in_another_thread(turn, next_one, soon())


def test_whoever_has_the_turn_is_refused_another_at_once_though_others_wait_behind():
    turn, holder, late = Turn(), Claim(), Claim()
    assert turn.take(holder, soon())
    assert not in_another_thread(turn, late, time.monotonic())
    start = time.monotonic()
    assert not turn.take(Claim(), start + scaled(60.0))
    assert time.monotonic() - start < scaled(10.0)
    assert turn.is_mine()
    holder.over = True
    assert not turn.is_mine()


@pytest.mark.parametrize("held", [False, True], ids=["free", "held by another thread"])
def test_a_handler_that_asks_wherever_it_interrupts_the_taking_is_answered_at_once(held):
    """As a signal's would, here by a tracer, between any two operations."""

    def points(at: int) -> tuple[int, float]:
        turn, other = Turn(), Claim()
        if held:
            assert in_another_thread(turn, other, soon())
        reached, longest = 0, 0.0

        def handle(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal reached, longest
            frame.f_trace_opcodes = True
            if event == "opcode":
                reached += 1
                if reached == at:
                    other.over = True
                    sys.settrace(None)
                    claim, start = Claim(), time.monotonic()
                    turn.take(claim, start + scaled(30.0))
                    claim.over = True
                    longest = time.monotonic() - start
            return handle

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            return handle(frame, event, argument) if frame.f_code.co_filename == module.__file__ else None

        claim = Claim()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            taken = turn.take(claim, time.monotonic() + (0.005 if held and at == 0 else scaled(30.0)))
        finally:
            sys.settrace(before)
        assert taken or at == 0
        claim.over = other.over = True
        assert turn.take(Claim(), time.monotonic()), "it is free again"
        return reached, longest

    count, _ = points(0)
    assert count > 20
    for at in range(1, count + 1):
        assert points(at)[1] < scaled(15.0)


def test_an_exception_at_any_line_leaves_no_turn_taken():
    class Struck(Exception):
        pass

    def points(at: int) -> int:
        turn, claim, reached = Turn(), Claim(), 0

        def strike(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal reached
            frame.f_trace_opcodes = True
            if event == "opcode":
                reached += 1
                if reached == at:
                    raise Struck
            return strike

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            return strike(frame, event, argument) if frame.f_code.co_filename == module.__file__ else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            turn.take(claim, soon())
        except Struck:
            pass
        finally:
            sys.settrace(before)
            claim.over = True
        assert in_another_thread(turn, Claim(), time.monotonic())
        return reached

    count = points(0)
    assert count > 20
    for at in range(1, count + 1):
        points(at)
