"""What closes sessions that nobody closed, without a server."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from remote_gym.address import Place
from remote_gym.client import dropped
from remote_gym.client.connect.registry import Registry
from waiting import scaled, wait_until


class Open:
    """An open session."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.closed: list[float] = []

    def before_fork(self, deadline: float) -> None:
        pass

    def close_at_exit(self, timeout: float) -> None:
        self.closed.append(timeout)


class Server:
    """Where sessions are closed, which takes until `answers` is set."""

    def __init__(self, name: str) -> None:
        self.place = (name, 1)
        self.answers = threading.Event()
        self.asked: list[float] = []

    def close(self, timeout: float) -> None:
        self.asked.append(timeout)
        self.answers.wait(timeout)


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "remote_gym-dropped"]


@pytest.fixture
def closing(monkeypatch):
    """A process's, in which nothing is open."""
    before = len(threads())
    closing = dropped._Closing()
    monkeypatch.setattr(dropped, "SESSIONS", Registry())
    monkeypatch.setattr(dropped, "_closing", closing)
    yield closing
    gc.collect()
    wait_until(lambda: len(threads()) <= before)  # they end with what they are for


def test_a_silent_server_holds_up_no_other(closing):
    silent, other = Server("silent"), Server("other")
    other.answers.set()
    for _ in range(2 * dropped.THREADS):
        dropped.see_to(Open(silent.place), silent.close, 60.0)
    gc.collect()
    wait_until(lambda: len(silent.asked) == dropped.THREADS)  # at once
    dropped.see_to(Open(other.place), other.close, 60.0)
    gc.collect()
    wait_until(lambda: other.asked == [60.0])
    silent.answers.set()
    wait_until(lambda: len(silent.asked) == 2 * dropped.THREADS)


def test_one_that_cannot_be_closed_keeps_no_other_from_it(closing):
    def fail(timeout: float) -> None:
        raise ValueError("no")

    server = Server("server")
    server.answers.set()
    kept = Open(server.place)
    forget = dropped.see_to(kept, server.close, 1.0)
    dropped.see_to(Open(server.place), fail, 1.0)
    dropped.see_to(Open(server.place), server.close, 1.0)
    gc.collect()
    wait_until(lambda: server.asked == [1.0])
    forget()


def test_what_was_closed_otherwise_is_closed_no_more(closing):
    server = Server("server")
    session = Open(server.place)
    forget = dropped.see_to(session, server.close, 1.0)
    forget()
    forget()
    wait_until(lambda: not closing._servers)
    del session
    gc.collect()
    assert not server.asked


def test_an_exit_takes_no_longer_than_it_may_however_many_are_left(closing, monkeypatch):
    monkeypatch.setattr(dropped, "LONGEST_EXIT", 1.0)
    silent = Server("silent")

    class Silent(Open):
        def close_at_exit(self, timeout: float) -> None:
            forget[self]()
            silent.close(timeout)

    kept = [Silent(silent.place) for _ in range(300)]
    forget = {each: dropped.see_to(each, silent.close, 60.0) for each in kept}
    start = time.monotonic()
    closing.close_all()
    assert time.monotonic() - start < 1.0 + scaled(1.0)
    assert max(silent.asked) <= 0.5  # nothing goes on when the interpreter ends
    assert len(silent.asked) >= dropped.THREADS


def test_an_exit_closes_all_at_once_and_what_was_dropped_before(closing):
    """Each takes as long as all together: they wait for one another."""
    server = Server("server")
    together = threading.Barrier(dropped.THREADS, timeout=scaled(20.0))

    class Together(Open):
        def close_at_exit(self, timeout: float) -> None:
            forget[self]()
            together.wait()
            super().close_at_exit(timeout)

    def close(timeout: float) -> None:
        together.wait()
        server.asked.append(timeout)

    kept = [Together(server.place) for _ in range(dropped.THREADS - 1)]
    forget = {each: dropped.see_to(each, close, 60.0) for each in kept}
    dropped.see_to(Open(server.place), close, 60.0)
    gc.collect()
    closing.close_all()
    assert [len(each.closed) for each in kept] == [1] * len(kept)
    [asked] = server.asked
    assert asked == 60.0 or asked < dropped.LONGEST_EXIT  # by a thread that began before the exit, or after


def test_an_exit_closes_where_no_thread_can_be_started(closing, monkeypatch):
    """As from CPython 3.12 on, for what is opened as the interpreter ends."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    session = Open(("server", 1))
    dropped.see_to(session, Server("server").close, 60.0)
    closing.close_all()
    assert len(session.closed) == 1


def test_nothing_here_loads_multiprocessing():
    code = """
    import sys
    from remote_gym.client import dropped
    class Session:
        place = ("server", 1)
        def close_at_exit(self, timeout):
            pass
    already = "multiprocessing.util" in sys.modules
    session = Session()
    dropped.see_to(session, print, 1.0)()
    print(already or "multiprocessing.util" not in sys.modules)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=scaled(60.0),
        check=False,
    )
    assert (finished.stdout, finished.stderr) == ("True\n", "")
