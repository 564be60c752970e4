"""What is taken for gRPC's threads, and when gRPC has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from remote_gym.client.connect import grpc_threads
from remote_gym.client.connect.grpc_threads import AT_REST, Seen, look, wait_for_end

Show = Callable[..., None]


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    """Shows threads as the system does, each by its name, its state, and the hundredths of a second that it ran."""
    monkeypatch.setattr(grpc_threads, "_TASKS", tmp_path)

    def show(*threads: tuple[str, str, int]) -> None:
        for number, (name, state, ran) in enumerate(threads, 1):
            folder = tmp_path / f"{number}"
            folder.mkdir(exist_ok=True)
            (folder / "stat").write_text(f"{number} ({name}) {state} 1 2 3 4 5 6 7 8 9 10 {ran} 0 0 0 20 0\n")

    return show


@pytest.mark.parametrize(
    ("thread", "seen"),
    [
        (("event_engine", "S", 1), Seen.ASLEEP),
        (("grpc_global_tim", "S", 0), Seen.ASLEEP),
        (("lifeguard", "R", 1), Seen.BUSY),
        (("default-executo", "D", 1), Seen.BUSY),
        (("python", "R", 0), Seen.BUSY),  # may be one of gRPC's that has not run yet
        (("python", "D", 0), Seen.BUSY),
        (("a name) S (", "R", 0), Seen.BUSY),
        (("python", "S", 0), Seen.NONE),
        (("python", "R", 1), Seen.NONE),  # computes
    ],
)
def test_a_thread_is_known_by_its_name_or_as_one_that_has_none_yet(
    show: Show, thread: tuple[str, str, int], seen: Seen
) -> None:
    show(("python", "S", 50), thread)
    assert look() is seen


def test_a_thread_that_ends_while_it_is_looked_at_may_have_begun_another(show: Show, tmp_path: Path) -> None:
    show(("python", "S", 50))
    (tmp_path / "7").mkdir()
    assert look() is Seen.BUSY


def test_this_very_thread_is_none_of_grpcs(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_threads.threading, "get_native_id", lambda: 1)
    show(("python", "R", 0))
    assert look() is Seen.NONE


def test_where_the_system_shows_no_threads_grpc_is_taken_for_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grpc_threads, "_TASKS", tmp_path / "none")
    assert look() is Seen.NONE


class Clock:
    """Passes while somebody sleeps, and shows other threads from given seconds on."""

    def __init__(self, *changes: tuple[float, Seen]) -> None:
        self.now = 0.0
        self.changes = changes

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self) -> Seen:
        return [seen for since, seen in self.changes if since <= self.now][-1]


@pytest.mark.parametrize(
    ("changes", "longest", "came_to", "after"),
    [
        ([(0.0, Seen.NONE)], 3.0, Seen.NONE, 0.0),
        ([(0.0, Seen.BUSY), (0.4, Seen.ASLEEP), (2.0, Seen.NONE)], 3.0, Seen.NONE, 2.0),
        ([(0.0, Seen.ASLEEP)], 3.0, Seen.ASLEEP, 3.0),  # it may be waiting for the system, amid its end
        ([(0.0, Seen.ASLEEP)], 0.0, Seen.ASLEEP, AT_REST),  # known to be kept
        ([(0.0, Seen.BUSY), (0.2, Seen.ASLEEP)], 0.0, Seen.ASLEEP, 0.2 + AT_REST),
        ([(0.0, Seen.BUSY), (2.99, Seen.ASLEEP)], 3.0, Seen.ASLEEP, 2.99 + AT_REST),
        ([(0.0, Seen.BUSY)], 3.0, Seen.BUSY, 3.5),
        ([(0.0, Seen.BUSY), (0.48, Seen.ASLEEP)], 0.0, Seen.BUSY, 0.5),
    ],
)
def test_it_is_waited_for_until_it_has_ended_or_is_seen_to_be_kept(
    monkeypatch: pytest.MonkeyPatch, changes: list[tuple[float, Seen]], longest: float, came_to: Seen, after: float
) -> None:
    clock = Clock(*changes)
    monkeypatch.setattr(grpc_threads, "time", clock)
    monkeypatch.setattr(grpc_threads, "look", clock.look)
    assert wait_for_end(longest, 0.5) is came_to
    assert clock.now == pytest.approx(after, abs=0.002)
