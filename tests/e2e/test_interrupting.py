"""Exceptions that come from elsewhere in the midst of a request: signal handlers', time limits', Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from environments import ACTION
from remote_gym import RemoteVectorEnv
from waiting import scaled

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs SIGALRM")


class TooSlow(Exception):
    """A time limit of the trainer's."""


@contextlib.contextmanager
def alarm(error: BaseException, seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("error", [TooSlow(), KeyboardInterrupt()], ids=["exception", "ctrl-c"])
def test_what_interrupts_a_step_leaves_the_session_with_the_step_taken_once(process_server, error):
    environment = process_server.environment()
    environment.reset()
    environment.step(ACTION["step"])
    with pytest.raises(type(error)), alarm(error, 0.2):
        environment.step(ACTION["slow"])
    observation, *_ = environment.step(ACTION["step"])
    assert observation["count"] == 3
    environment.close()


def test_a_reset_after_an_interrupt_takes_no_longer_than_the_step_that_it_waits_for(process_server):
    environment = process_server.environment(close_timeout=scaled(20.0))
    _, info = environment.reset()
    with pytest.raises(KeyboardInterrupt), alarm(KeyboardInterrupt(), 0.2):
        environment.step(ACTION["slow"])
    done = threading.Event()
    watch = threading.Timer(scaled(15.0), done.set)
    watch.start()
    _, after = environment.reset()
    assert not done.is_set()
    watch.cancel()
    assert after["pid"] == info["pid"]  # the same environment, which owed one answer
    environment.close()


def test_a_reset_after_an_interrupt_waits_no_longer_than_its_own_time(process_server):
    """And not until the deadline of the step, whose answer it waits for."""
    environment = RemoteVectorEnv(
        **process_server._arguments({}),
        num_envs=2,
        workers=2,
        step_timeout=scaled(60.0),
        close_timeout=0.5,
    )
    environment.reset()
    with pytest.raises(KeyboardInterrupt), alarm(KeyboardInterrupt(), 0.2):
        environment.step([ACTION["hang"]] * 2)
    start = time.monotonic()
    environment.reset()
    assert time.monotonic() - start < scaled(30.0)
    environment.close()
