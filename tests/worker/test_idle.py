"""When a worker says that its client has been silent for too long."""

from __future__ import annotations

import pytest

from clocks import Clock
from remote_gym.ipc.control import WorkerEvent
from remote_gym.worker.idle import LINGER, IdleClock


@pytest.fixture
def patience(clock: Clock) -> IdleClock:
    return IdleClock(clock)


def test_without_limits_it_is_endless(patience, clock):
    clock.now += 1e6
    assert patience.verdict(between_episodes=True) == (None, None)


def test_an_idle_client_is_told_of_when_its_time_is_over_and_again_after_as_long(patience, clock):
    patience.idle_timeout = 5.0
    clock.now += 4.0
    assert patience.verdict(between_episodes=False) == (None, 1.0)
    clock.now += 1.0
    assert patience.verdict(between_episodes=False) == (WorkerEvent.IDLE, 5.0)
    assert patience.verdict(between_episodes=False) == (None, 5.0)


def test_a_request_begins_the_time_anew(patience, clock):
    patience.idle_timeout = 5.0
    clock.now += 4.0
    patience.restart()
    clock.now += 4.0
    assert patience.verdict(between_episodes=False) == (None, 1.0)


def test_a_drain_lets_an_episode_run_and_what_follows_it_linger(patience, clock):
    patience.draining = True
    clock.now += 100.0
    assert patience.verdict(between_episodes=False) == (None, None)
    patience.restart()
    assert patience.verdict(between_episodes=True) == (None, LINGER)
    clock.now += LINGER
    assert patience.verdict(between_episodes=True) == (WorkerEvent.DRAINED, LINGER)


def test_between_episodes_a_drain_counts_and_within_one_idling(patience, clock):
    """Which the server ignores where nobody is attached, so that it must not begin the time anew."""
    patience.draining = True
    patience.idle_timeout = LINGER / 2
    clock.now += LINGER / 2
    assert patience.verdict(between_episodes=True) == (None, LINGER / 2)
    assert patience.verdict(between_episodes=False)[0] is WorkerEvent.IDLE
    clock.now += LINGER
    assert patience.verdict(between_episodes=True)[0] is WorkerEvent.DRAINED
