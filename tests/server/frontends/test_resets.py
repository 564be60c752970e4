"""Calls that are taken back: many at once cut a connection, once, and some now and then do not."""

from __future__ import annotations

from remote_gym.server.frontends.resets import BURST, RATE, Resets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_pass_and_what_is_beyond_it_cuts_once():
    resets = Resets(Clock())
    assert [resets.note(1) for _ in range(int(BURST))] == [False] * int(BURST)
    assert resets.note(1)
    assert not any(resets.note(1) for _ in range(1000))


def test_connections_are_counted_apart():
    resets = Resets(Clock())
    assert not any(resets.note(number) for _ in range(int(BURST)) for number in range(20))
    assert all(resets.note(number) for number in range(20))


def test_those_that_come_slowly_never_cut():
    clock = Clock()
    resets = Resets(clock)
    for _ in range(10 * int(BURST)):
        assert not resets.note(1)
        clock.now += 1.1 / RATE


def test_nothing_is_kept_of_connections_that_take_back_no_more():
    clock = Clock()
    resets = Resets(clock)
    for number in range(10_000):
        resets.note(number)
        clock.now += 0.01
    assert len(resets._counts) < 2 * BURST / RATE / 0.01
