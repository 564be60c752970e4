"""How long an end looks before it sleeps."""

from __future__ import annotations

import pytest

from remote_gym.wire.patience import LONGEST, Patience

BASE = 50e-6


def test_the_base_is_looked_for_at_first():
    assert Patience(BASE).seconds == BASE


@pytest.mark.parametrize("waited", [0.0, BASE / 10, BASE / 2])
def test_short_waits_change_nothing(waited):
    patience = Patience(BASE)
    patience.learn(waited)
    assert patience.seconds == BASE


def test_twice_a_longer_wait_is_looked_through_up_to_the_longest():
    patience = Patience(BASE)
    patience.learn(6 * BASE)
    assert patience.seconds == pytest.approx(12 * BASE)
    patience.learn(0.9 * LONGEST * BASE)
    assert patience.seconds == pytest.approx(LONGEST * BASE)


def test_after_a_wait_that_was_too_long_to_look_through_it_sleeps_again():
    patience = Patience(BASE)
    patience.learn(6 * BASE)
    patience.learn(1.01 * LONGEST * BASE)
    assert patience.seconds == BASE


@pytest.mark.parametrize("waited", [0.0, 1e-6, 1.0])
def test_who_is_not_to_look_never_does(waited):
    patience = Patience(0.0)
    patience.learn(waited)
    assert patience.seconds == 0.0
