"""How a server's clients share its rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from remote_gym.hub.rate import BUSY, KEPT, Rate


def test_what_is_over_the_rate_has_to_wait():
    clock = SimpleNamespace(now=0.0)
    share = Rate(1000, lambda: clock.now).share("here")
    share.spend(1000)  # one second's worth may come at once
    assert share.wait() == 0.0
    share.spend(500)
    assert share.wait() == pytest.approx(0.5)
    clock.now = 0.25
    assert share.wait() == pytest.approx(0.25)
    clock.now = 100.0
    assert share.wait() == 0.0
    share.spend(1001)
    assert share.wait() == pytest.approx(0.001)


def test_without_a_rate_nothing_waits():
    share = Rate(None, lambda: 0.0).share("here")
    share.spend(10**12)
    assert share.wait() == 0.0


def test_addresses_that_are_busy_have_the_same_each():
    clock = SimpleNamespace(now=0.0)
    rate = Rate(1000, lambda: clock.now)
    shares = [rate.share(name) for name in ("a", "b")]
    passed = [0, 0]
    while clock.now < 20.0:
        for number, share in enumerate(shares):
            if not share.wait():
                share.spend(100)
                passed[number] += 100
        clock.now += 0.01
    assert passed == [pytest.approx(10_000, rel=0.12)] * 2


def test_a_stranger_with_many_connections_leaves_others_their_part():
    clock = SimpleNamespace(now=0.0)
    rate = Rate(1000, lambda: clock.now)
    stranger, honest = rate.share("stranger"), rate.share("honest")
    waited: list[float] = []
    for _ in range(2000):
        for _ in range(300):  # connections, each of which sends as soon as it may
            if not stranger.wait():
                stranger.spend(62)
        waited.append(honest.wait())
        if not waited[-1]:
            honest.spend(2)
        clock.now += 0.01
    assert max(waited) == 0.0


def test_an_address_that_is_silent_leaves_its_part_to_others():
    clock = SimpleNamespace(now=0.0)
    rate = Rate(1000, lambda: clock.now)
    one, other = rate.share("one"), rate.share("other")
    other.spend(1)
    clock.now = BUSY + 1.0
    one.spend(1000)
    one.spend(500)
    assert one.wait() == pytest.approx(0.5)


def test_a_debt_outlives_connections_and_is_forgotten_in_the_end():
    clock = SimpleNamespace(now=0.0)
    rate = Rate(1000, lambda: clock.now)
    share = rate.share("here")
    share.spend(5000)
    del share
    assert rate.share("here").wait() == pytest.approx(4.0)
    clock.now = KEPT + 1.0
    assert rate.share("here").wait() == 0.0
