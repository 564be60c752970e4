"""The watchdog's judgement, without processes and on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from remote_gym.ipc.counters import Counters
from remote_gym.server.supervision.watchdog import Sight, Watchdog, format_bytes

GIB = 2**30
IDLE = Counters(since=7)


def busy(operation: str = "step", since: int = 7) -> Sight:
    return Sight(counters=Counters(operation=operation, since=since))


@dataclass
class Watched:
    """A watchdog, and the clock that it borrows."""

    dog: Watchdog
    now: float

    def look_after(self, seconds: float, **seen: Sight) -> dict[str, str]:
        self.now += seconds
        return self.dog.look(seen)

    def look_for(self, seconds: float, **seen: Sight) -> dict[str, str]:
        """Again and again, as a server does."""
        until = self.now + seconds
        verdicts: dict[str, str] = {}
        while self.now < until and not verdicts:
            verdicts = self.look_after(self.dog.interval, **seen)
        return verdicts


def watched(**options) -> Watched:
    allowed = {"step_timeout": None, "reset_timeout": None, "memory_limit": None} | options
    found = Watched(None, 1000.0)  # type: ignore[arg-type]
    found.dog = Watchdog(**allowed, clock=lambda: found.now)
    return found


def test_who_steps_for_too_long_is_ended_and_only_then():
    one = watched(step_timeout=4.0)
    assert one.look_for(4.0, a=busy()) == {}
    assert one.look_for(2 * one.dog.interval, a=busy()) == {"a": "its step took over 4 s (ServerOptions.step_timeout)"}


def test_a_verdict_comes_within_two_looks_of_the_timeout():
    one = watched(step_timeout=4.0)
    began = one.now
    assert one.look_for(100.0, a=busy())
    assert 4.0 < one.now - began <= 4.0 + 2 * one.dog.interval


@pytest.mark.parametrize("operation", ["step", "render", "call"])
def test_what_counts_as_a_step(operation):
    assert watched(step_timeout=1.0).look_for(9.0, a=busy(operation))["a"].startswith(f"its {operation} took over 1 s")
    assert watched(reset_timeout=1.0).look_for(9.0, a=busy(operation)) == {}


def test_a_reset_has_a_timeout_of_its_own():
    assert watched(step_timeout=1.0).look_for(9.0, a=busy("reset")) == {}
    reason = watched(reset_timeout=1.0, step_timeout=100.0).look_for(9.0, a=busy("reset"))["a"]
    assert reason == "its reset took over 1 s (ServerOptions.reset_timeout)"


@pytest.mark.parametrize("operation", [None, "close"])
def test_who_waits_or_closes_is_let_be(operation):
    assert watched(step_timeout=1.0, reset_timeout=1.0).look_for(100.0, a=busy(operation)) == {}


def test_each_request_has_its_own_time():
    one = watched(step_timeout=1.0)
    for since in range(1, 200):
        assert one.look_after(one.dog.interval, a=busy(since=since)) == {}
        assert one.look_after(one.dog.interval, a=busy(since=since)) == {}


def test_a_reset_after_a_long_step_begins_anew():
    one = watched(step_timeout=4.0, reset_timeout=4.0)
    assert one.look_for(4.0, a=busy("step")) == {}
    assert one.look_for(4.0, a=busy("reset")) == {}


def test_the_workers_own_clock_is_not_believed():
    one = watched(step_timeout=4.0)
    assert one.look_for(3.0, a=busy(since=0), b=busy(since=2**63)) == {}
    assert one.look_for(3.0, a=busy(since=0), b=busy(since=2**63)).keys() == {"a", "b"}


def test_time_in_which_the_server_itself_stood_still_does_not_count():
    one = watched(step_timeout=4.0)
    one.look_after(0.1, a=busy())
    assert one.look_after(3600.0, a=busy()) == {}
    assert one.look_after(0.1, a=busy()) == {}


def test_one_verdict_leaves_others_alone_and_a_name_that_comes_back_begins_anew():
    one = watched(step_timeout=4.0)
    assert one.look_for(2.0, a=busy()) == {}
    assert one.look_for(3.5, a=busy(), b=busy()).keys() == {"a"}
    assert one.look_after(1.0, b=busy()) == {}
    assert one.look_after(1.0, a=busy()) == {}


def test_who_is_stopped_between_steps_is_ended_and_who_goes_on_in_time_is_not():
    stopped, going = Sight(counters=IDLE, stopped=True), Sight(counters=IDLE)
    one = watched(step_timeout=4.0)
    assert one.look_for(60.0, a=going) == {}
    assert one.look_for(3.0, a=stopped) == {}
    assert one.look_after(1.0, a=going) == {}
    assert one.look_for(4.0, a=stopped) == {}
    reason = "its worker was stopped for over 4 s (ServerOptions.step_timeout)"
    assert one.look_for(2.0, a=stopped) == {"a": reason}
    assert watched(memory_limit=GIB).look_for(60.0, a=stopped) == {}


def test_who_holds_more_than_the_limit_is_ended_at_once():
    one = watched(memory_limit=GIB)
    sight = Sight(counters=IDLE, memory=GIB)
    assert one.look_after(1.0, a=sight, b=replace(sight, memory=None)) == {}
    reason = "its worker held 1.5 GiB of memory, over the 1 GiB of ServerOptions.memory_limit"
    assert one.look_after(1.0, a=replace(sight, memory=3 * GIB // 2), b=sight) == {"a": reason}
    assert watched(step_timeout=1.0).look_for(5.0, a=sight) == {}


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({}, 1.0),
        ({"memory_limit": GIB}, 1.0),
        ({"step_timeout": 3600.0}, 1.0),
        ({"step_timeout": 2.0, "reset_timeout": 3600.0}, 0.5),
        ({"step_timeout": 0.001}, 0.1),
    ],
)
def test_how_often_to_look(options, interval):
    assert watched(**options).dog.interval == interval
    assert watched(**options).dog.is_needed == bool(options)


@pytest.mark.parametrize(("count", "text"), [(300, "300 B"), (2 * GIB, "2 GiB"), (3 * 2**19, "1.5 MiB")])
def test_sizes_are_written_as_people_do(count, text):
    assert format_bytes(count) == text
