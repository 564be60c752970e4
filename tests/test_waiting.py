"""Deadlines of tests follow what the machine is found to do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import waiting
from waiting import INTERVAL, KEPT, QUIET, SLOWEST, Pace, becomes_true, scaled, start_and_hand_over, wait_until


@pytest.fixture
def machine():
    """One that takes `times` as long as a quiet one, at the time `now`, with a load of `load`."""
    return SimpleNamespace(times=1.0, load=0.0, now=0.0, measured=0)


@pytest.fixture
def pace(machine):
    def measure() -> float:
        machine.measured += 1
        return machine.times * QUIET

    return Pace(measure, lambda: machine.load, lambda: machine.now)


def test_a_quiet_machine_and_a_quicker_one_scale_nothing(machine, pace):
    machine.times = 0.3
    assert pace.slowness() == 1.0


def test_the_slowest_of_the_last_measurements_counts_and_none_is_older_than_needed(machine, pace):
    assert pace.slowness() == 1.0
    assert machine.measured == KEPT
    machine.times = 6.2
    assert pace.slowness() == 1.0  # so soon after the last
    for _ in range(KEPT):
        machine.now += INTERVAL
        assert pace.slowness() == 6.0
        machine.times = 1.0
    machine.now += INTERVAL
    assert pace.slowness() == 1.0
    assert machine.measured == 2 * KEPT + 1


def test_load_counts_where_a_measurement_was_lucky_and_nothing_is_waited_for_for_ever(machine, pace):
    machine.load = 4.0
    assert pace.slowness() == 4.0
    machine.times, machine.now = 1000.0, INTERVAL
    assert pace.slowness() == SLOWEST


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not let one choose a core")
def test_a_core_that_others_use_is_found_to_be_slow():
    cores = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, {min(cores)})  # which children inherit
        for _ in range(10):
            busy = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        assert max(start_and_hand_over() for _ in range(2 * KEPT)) > QUIET


def test_a_wait_that_began_on_a_quiet_machine_goes_on_on_a_slow_one(machine, pace, monkeypatch):
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(waiting, "PACE", pace)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    machine.times = 3.0
    assert becomes_true(lambda: now >= 2.5, timeout=1.0)
    now = 0.0
    assert not becomes_true(lambda: now >= 3.5, timeout=1.0)
    with pytest.raises(AssertionError, match="not within 1 s, times 3 for a slow machine"):
        wait_until(lambda: False, timeout=1.0)
    assert scaled(0.5) == 1.5


@pytest.mark.timeout(77)
def test_a_test_itself_has_longer_on_a_slow_machine(request):
    first, *others = [marker.args[0] for marker in request.node.iter_markers("timeout")]
    assert others == [77]
    assert 77 <= first <= 77 * SLOWEST
    assert first % 38.5 == 0
