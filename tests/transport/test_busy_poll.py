"""How long an end looks before it sleeps."""

from __future__ import annotations

import pytest

from remote_gym.transport.busy_poll import LONGEST, REST, Wakefulness, look

BASE = 50e-6


def test_the_base_is_looked_for_at_first():
    assert Wakefulness(BASE).seconds == BASE


@pytest.mark.parametrize("waited", [0.0, BASE / 10, BASE / 2])
def test_short_waits_change_nothing(waited):
    wakefulness = Wakefulness(BASE)
    wakefulness.learn(waited)
    assert wakefulness.seconds == BASE


def test_twice_a_longer_wait_is_looked_through_up_to_the_longest():
    wakefulness = Wakefulness(BASE)
    wakefulness.learn(6 * BASE)
    assert wakefulness.seconds == pytest.approx(12 * BASE)
    wakefulness.learn(0.9 * LONGEST * BASE)
    assert wakefulness.seconds == pytest.approx(LONGEST * BASE)


def test_after_a_wait_that_was_too_long_to_look_through_it_sleeps_again():
    wakefulness = Wakefulness(BASE)
    wakefulness.learn(6 * BASE)
    wakefulness.learn(1.01 * LONGEST * BASE)
    assert wakefulness.seconds == BASE


@pytest.mark.parametrize("waited", [0.0, 1e-6, 1.0])
def test_who_is_not_to_look_never_does(waited):
    wakefulness = Wakefulness(0.0)
    wakefulness.learn(waited)
    assert wakefulness.seconds == 0.0


def test_another_base_leaves_what_was_learnt():
    wakefulness = Wakefulness(BASE)
    wakefulness.learn(4 * BASE)
    learnt = wakefulness.seconds
    for base in (BASE, 0.0, 0.0, BASE, BASE / 2):
        wakefulness.set_base(base)
        assert wakefulness.base == base
        assert wakefulness.seconds == (learnt if base else 0.0)
    wakefulness.set_base(learnt / LONGEST / 2)
    assert wakefulness.seconds == learnt / 2
    wakefulness.set_base(2 * learnt)
    assert wakefulness.seconds == 2 * learnt


def test_after_others_needed_the_core_it_looks_no_longer_for_a_while():
    wakefulness = Wakefulness(BASE)
    wakefulness.learn(6 * BASE)
    wakefulness.rest()
    for _ in range(REST):
        assert wakefulness.seconds == BASE
        wakefulness.learn(6 * BASE)
    assert wakefulness.seconds == BASE
    wakefulness.learn(6 * BASE)
    assert wakefulness.seconds == pytest.approx(12 * BASE)


class Time:
    """Passes by so much at every look at it."""

    def __init__(self, *steps: float) -> None:
        self.now = 0.0
        self.looks = 0
        self._steps = steps

    def __call__(self) -> float:
        self.now += self._steps[min(self.looks, len(self._steps) - 1)]
        self.looks += 1
        return self.now


def used_to(waited: float) -> Wakefulness:
    wakefulness = Wakefulness(BASE)
    wakefulness.learn(waited)
    return wakefulness


def test_it_is_looked_until_something_comes():
    answers = iter([[], [], [(7, 1)]])
    assert look(lambda _: next(answers), Wakefulness(BASE), Time(BASE / 10)) == [(7, 1)]


@pytest.mark.parametrize("waited", [0.0, 5 * BASE, 2 * LONGEST * BASE])
def test_it_is_looked_no_longer_than_patience_lasts(waited):
    wakefulness, time = used_to(waited), Time(BASE / 10)
    assert look(lambda _: [], wakefulness, time) == []
    assert time.now == pytest.approx(wakefulness.seconds, abs=BASE)


@pytest.mark.parametrize("comes", [[], [(7, 1)]])
def test_who_did_not_get_the_core_back_at_once_rests(comes):
    wakefulness, time = used_to(5 * BASE), Time(0.0, BASE / 10, 2 * BASE)
    answers = iter([[], comes])
    assert look(lambda _: next(answers, []), wakefulness, time) == comes
    assert wakefulness.seconds == BASE
    wakefulness.learn(5 * BASE)
    assert wakefulness.seconds == BASE
