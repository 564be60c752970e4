"""What is done too often, and what only now and then."""

from __future__ import annotations

from clocks import Clock
from remote_gym.server.frontends.budget import Budget

BURST, RATE = 100, 20.0


def test_a_burst_is_let_pass_and_what_is_beyond_it_is_not():
    budget = Budget(BURST, RATE, Clock())
    assert [budget.note(1) for _ in range(BURST)] == [False] * BURST
    assert all(budget.note(1) for _ in range(1000))


def test_each_is_counted_apart():
    budget = Budget(BURST, RATE, Clock())
    assert not any(budget.note(key) for _ in range(BURST) for key in range(20))
    assert all(budget.note(key) for key in range(20))


def test_what_is_done_slowly_is_never_too_often():
    clock = Clock()
    budget = Budget(BURST, RATE, clock)
    for _ in range(10 * BURST):
        assert not budget.note(1)
        clock.now += 1.1 / RATE


def test_what_was_too_often_is_forgiven_as_fast_as_the_rate_says():
    clock = Clock()
    budget = Budget(BURST, RATE, clock)
    for _ in range(10_000):
        budget.note(1)
    clock.now += 1.01
    assert [budget.note(1) for _ in range(21)] == [False] * 20 + [True]


def test_nothing_is_kept_of_those_that_do_it_no_more():
    clock = Clock()
    budget = Budget(BURST, RATE, clock)
    for key in range(10_000):
        budget.note(key)
        clock.now += 0.01
    assert len(budget._counts) < 2 * BURST / RATE / 0.01
