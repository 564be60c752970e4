"""That what looks for growth sees it, and that nothing grows in a short while of the real thing."""

from __future__ import annotations

import os
import sys

import pytest

from endurance.scale import come_and_go, hold
from endurance.serving import children, descriptors, memory, private, serving, slope, threads
from endurance.soak import Sample, judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def samples(**grown_by: float) -> list[Sample]:
    """Half an hour, a sample each five seconds, in which something grows by so much from one to the next."""
    flat = {"server_memory": 50.0, "client_memory": 90.0, "workers_memory": 20.0, "server_descriptors": 30}
    flat |= {
        "client_descriptors": 40,
        "server_threads": 10,
        "client_threads": 20,
        "processes": 4,
        "p50": 0.5,
        "p99": 3.0,
    }
    noise = (0.0, 0.4, -0.3, 0.2, -0.4)
    return [
        Sample(
            seconds=5.0 * number,
            **{name: value + noise[number % 5] / 10 + number * grown_by.get(name, 0.0) for name, value in flat.items()},
        )
        for number in range(360)
    ]


def test_what_is_flat_is_found_flat():
    assert judge(samples(), wave=8) == []


@pytest.mark.parametrize(
    ("name", "grown_by"),
    [
        ("server_memory", 0.02),
        ("workers_memory", 0.01),
        ("server_descriptors", 0.1),
        ("processes", 0.1),
        ("p50", 0.005),
    ],
)
def test_what_grows_is_told(name, grown_by):
    [fault] = judge(samples(**{name: grown_by}), wave=8)
    assert fault.startswith(f"{name} grows by ")


def test_slope_is_that_of_the_line():
    assert slope([1, 2, 3], [5.0, 7.0, 9.0]) == pytest.approx(2.0)
    assert slope([1], [5.0]) == 0.0


def test_this_process_has_memory_threads_and_descriptors():
    own = os.getpid()
    assert memory(own) >= private(own) > 2**20
    assert threads(own) >= 1
    reader, writer = os.pipe()
    more = descriptors(own)
    os.close(reader)
    os.close(writer)
    assert more - descriptors(own) == 2
    assert own in children(os.getppid())


def test_a_few_sessions_step_and_leave_nothing_behind(capsys):
    with serving(max_sessions=12) as served:
        assert hold(served, sessions=3, busy=2, seconds=0.1, at_once=3) == []
        assert come_and_go(served, cycles=8, at_once=4) == []
    printed = capsys.readouterr().out
    assert "opened 3 sessions" in printed
    assert "8 cycles in" in printed
