"""Who makes a call, and when."""

from __future__ import annotations

import pytest

from remote_gym.protocol.attempt import Attempt, Attempts


def test_each_attempt_is_newer_and_of_the_same_user_and_no_two_users_are_the_same():
    one, other = Attempts(), Attempts()
    first, second = one.next(), one.next()
    assert first.user == second.user
    assert first.number < second.number
    assert other.next().user != first.user


def test_what_is_written_is_read():
    attempt = Attempts().next()
    assert Attempt.parse(str(attempt)) == attempt


@pytest.mark.parametrize(
    "text", ["", ".", "a", "a.", ".1", "a.-1", "a.1.", "a b.1", "a.1\n", "\N{GREEK SMALL LETTER ALPHA}.1", "a.\u0661"]
)
def test_anything_else_tells_nothing(text):
    assert Attempt.parse(text) is None


@pytest.mark.parametrize("text", ["a" * 65 + ".1", "a." + "9" * 19])
def test_what_is_too_long_tells_nothing(text):
    assert Attempt.parse(text) is None
