"""Opening a session in place of a lost one: which errors are tried again, for how long, and what is raised then."""

from __future__ import annotations

import pytest

from remote_gym import ClientOptions, ConnectError, NotPermitted, ServerFull
from remote_gym.client.recovery import open_again


class Openings:
    """Attempts that take a second each, of which the first few raise; and the clock that they share with pauses."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> str:
        self.now += 1.0
        if self.errors:
            raise self.errors.pop(0)
        return "session"

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def opened(attempts: Openings, recover_timeout: float, **more) -> str:
    options = ClientOptions(recover_timeout=recover_timeout, on_session_lost="truncate")
    return open_again(attempts, options, clock=lambda: attempts.now, sleep=attempts.pause, **more)


def test_what_opens_at_once_is_not_waited_for():
    attempts = Openings()
    assert opened(attempts, 100.0) == "session"
    assert attempts.pauses == []


def test_a_server_that_is_away_or_full_is_tried_again_in_pauses_that_grow_to_a_bound():
    attempts = Openings(*[ConnectError("away"), ServerFull("full")] * 10)
    assert opened(attempts, 1000.0) == "session"
    assert len(attempts.pauses) == 20
    assert attempts.pauses == sorted(attempts.pauses)
    assert attempts.pauses[0] > 0
    assert attempts.pauses[-1] == ClientOptions().retry.longest_pause


def test_the_last_error_is_raised_once_the_time_is_up_and_names_the_option():
    attempts = Openings(*[ConnectError("away")] * 1000)
    with pytest.raises(ConnectError, match=r"away; tried for 30 s \(ClientOptions.recover_timeout\)"):
        opened(attempts, 30.0)
    assert 25.0 < attempts.now <= 31.0


def test_without_the_option_the_first_error_is_raised_as_it_is():
    attempts = Openings(ConnectError("away"))
    with pytest.raises(ConnectError, match=r"^away$"):
        opened(attempts, 0.0)


def test_what_another_attempt_would_not_mend_is_raised_at_once():
    attempts = Openings(NotPermitted("not you"))
    with pytest.raises(NotPermitted):
        opened(attempts, 100.0)
    assert attempts.pauses == []


def test_nobody_tries_for_whoever_has_given_up():
    attempts = Openings(*[ConnectError("away")] * 1000)
    with pytest.raises(ConnectError, match=r"^away$"):
        opened(attempts, 100.0, given_up=lambda: attempts.now > 10.0)
    assert attempts.now < 20.0
