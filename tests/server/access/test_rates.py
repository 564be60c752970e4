from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clocks import Clock
from remote_gym.server.access.rates import REMEMBERED, WINDOW, Rates


def taken(rates: Rates, identity: str, per_second: float) -> int:
    """How often it may happen at once."""
    count = 0
    while rates.take(identity, per_second) == 0.0:
        count += 1
    return count


def test_ten_seconds_worth_may_happen_at_once_and_then_one_by_one():
    clock = Clock()
    rates = Rates(clock)
    assert taken(rates, "alice", 2.0) == 20
    assert rates.take("alice", 2.0) == pytest.approx(0.5)
    clock.now += 0.5
    assert taken(rates, "alice", 2.0) == 1
    clock.now += 1000
    assert taken(rates, "alice", 2.0) == 20


def test_once_may_always_happen_at_first():
    clock = Clock()
    rates = Rates(clock)
    assert taken(rates, "alice", 0.001) == 1
    assert rates.take("alice", 0.001) == pytest.approx(1000.0)
    clock.now += 1000
    assert taken(rates, "alice", 0.001) == 1


def test_each_identity_has_its_own():
    rates = Rates(Clock())
    assert taken(rates, "alice", 1.0) == 10
    assert taken(rates, "bob", 1.0) == 10


def test_memory_is_bounded_and_those_who_are_waiting_are_remembered():
    clock = Clock()
    rates = Rates(clock)
    taken(rates, "flood", 0.5)
    for number in range(3 * REMEMBERED):
        rates.take(f"DNS:{number}", 100.0)
        assert len(rates) <= REMEMBERED
    assert rates.take("flood", 0.5) > 0
    clock.now += 1000
    for number in range(REMEMBERED + 1):
        rates.take(f"URI:{number}", 100.0)
    assert rates.take("flood", 0.5) == 0.0


@given(st.floats(0.05, 50.0), st.lists(st.floats(0.0, 30.0), max_size=100))
def test_over_any_time_no_more_happens_than_was_said(per_second, pauses):
    clock = Clock()
    rates = Rates(clock)
    times = []
    for pause in pauses:
        clock.now += pause
        if rates.take("alice", per_second) == 0.0:
            times.append(clock.now)
    burst = max(1.0, per_second * WINDOW)
    for first, start in enumerate(times):
        for count, end in enumerate(times[first:], 1):
            assert count <= burst + (end - start) * per_second + 1e-6
