"""When an address that failed is tried again, by a clock of the tests' own."""

from __future__ import annotations

import pytest

from clocks import Clock
from remote_gym.client.connect.circuit import FIRST_COOL_DOWN, LONGEST_COOL_DOWN, SHORTLY, Circuit


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(clock)


def cool_down(circuit: Circuit, clock: Clock) -> float:
    return circuit.next_trial - clock.now


def test_an_address_is_used_until_it_fails(circuit):
    assert not circuit.is_open
    circuit.begin()
    assert not circuit.is_open
    circuit.failed()
    assert circuit.is_open


def test_the_cool_down_doubles_up_to_the_longest(circuit, clock):
    found = []
    for _ in range(10):
        circuit.failed()
        found.append(cool_down(circuit, clock))
    assert found[:3] == [FIRST_COOL_DOWN, 2 * FIRST_COOL_DOWN, 4 * FIRST_COOL_DOWN]
    assert found[-1] == LONGEST_COOL_DOWN


def test_after_the_cool_down_one_attempt_is_made_and_others_wait_for_its_outcome(circuit, clock):
    circuit.failed()
    clock.now += FIRST_COOL_DOWN
    assert not circuit.is_open
    circuit.begin()
    assert circuit.is_open
    circuit.succeeded()
    assert not circuit.is_open


def test_an_attempt_that_fails_opens_it_for_longer(circuit, clock):
    circuit.failed()
    clock.now += FIRST_COOL_DOWN
    circuit.begin()
    circuit.failed()
    assert cool_down(circuit, clock) == 2 * FIRST_COOL_DOWN


def test_one_lost_session_is_forgiven_and_a_second_one_shortly_after_is_not(circuit, clock):
    circuit.lost()
    assert not circuit.is_open
    clock.now += SHORTLY
    circuit.lost()
    assert not circuit.is_open
    clock.now += SHORTLY - 1
    circuit.lost()
    assert circuit.is_open


def test_an_address_that_opens_sessions_and_loses_them_cools_down_for_longer_each_time(circuit, clock):
    circuit.lost()
    found = []
    for _ in range(3):
        circuit.succeeded()
        circuit.lost()
        found.append(cool_down(circuit, clock))
        clock.now += found[-1]
        circuit.begin()
    assert found == [FIRST_COOL_DOWN, 2 * FIRST_COOL_DOWN, 4 * FIRST_COOL_DOWN]


def test_what_was_long_ago_is_forgotten(circuit, clock):
    for _ in range(4):
        circuit.failed()
    clock.now += SHORTLY
    circuit.begin()
    circuit.succeeded()
    circuit.failed()
    assert cool_down(circuit, clock) == FIRST_COOL_DOWN
