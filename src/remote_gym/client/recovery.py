"""Recovery from a lost or hung session: the same for one environment and for many."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gymnasium.error import ResetNeeded

from remote_gym.client.connect.retry import GROWTH
from remote_gym.client.rules.operations import Operations, perform
from remote_gym.client.rules.session import OpenSession
from remote_gym.client.session import ClientSession
from remote_gym.config import ClientOptions
from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    RemoteGymError,
    ServerFull,
    SessionLost,
    reworded,
)
from remote_gym.logs import get_logger

logger = get_logger(__name__)

LOSSES = (SessionLost, ConnectionLost)
"""Errors of a request whose session is gone. With ``on_session_lost="truncate"`` it ends the episode instead."""

UNAVAILABLE = (ConnectError, ConnectionLost, ServerFull)
"""Errors of an opening that another attempt may not meet: servers restart, and get room."""

Opened = TypeVar("Opened")


def reset_needed(call: str, *, was_closed: bool) -> ResetNeeded:
    """Error of a call that needs a reset before, in Gymnasium's words where there was none yet."""
    if was_closed:
        return ResetNeeded(f"Cannot call env.{call}(): the environment was closed; env.reset() opens another")
    return ResetNeeded(f"Cannot call env.{call}() before calling env.reset()")


def open_again(
    open_session: Callable[[], Opened],
    options: ClientOptions,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    given_up: Callable[[], bool] = lambda: False,
) -> Opened:
    """Open a session in place of a lost one, trying again for ``recover_timeout``.

    Pauses grow as those of `remote_gym.config.RetryPolicy` do, without a random part: an attempt at a server that is
    away takes far longer than they do.

    Args:
        open_session: One attempt.
        options: The client's.
        clock: Monotonic seconds.
        sleep: Waits.
        given_up: Whether nobody waits for the session any more.

    Raises:
        RemoteGymError: What the last attempt raised, which names the option if it set the end.
    """
    opened: Opened = perform(opening_again(open_session, options, clock=clock, sleep=sleep, given_up=given_up))
    return opened


def opening_again(
    open_session: Callable[[], Any],
    options: ClientOptions,
    *,
    sleep: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
    given_up: Callable[[], bool] = lambda: False,
) -> Operations[Any]:
    """Do as `open_again`, whose arguments these are; the result is that of `open_session`."""
    give_up_at = clock() + options.recover_timeout
    pause = options.retry.first_pause
    while True:
        try:
            return (yield open_session)
        except UNAVAILABLE as error:
            if not options.recover_timeout or given_up():
                raise
            if clock() + pause >= give_up_at:
                text = f"{error}; tried for {options.recover_timeout:.3g} s (ClientOptions.recover_timeout)"
                raise reworded(error, text) from error
            logger.info("no session in place of the lost one yet: %s", error)
        yield functools.partial(sleep, pause)
        pause = min(max(pause, 0.001) * GROWTH, options.retry.longest_pause)


def leave_what_hangs(session: ClientSession, options: ClientOptions, name: object) -> None:
    """Wait ``close_timeout`` for the answer that a session owes, and close the session if it does not come.

    Args:
        session: One that is behind.
        options: The client's.
        name: Of what it holds, for the log.

    Raises:
        RemoteGymError: If the session has ended meanwhile, or the answer cannot be read. Its caller knows of the
            deadline that was missed, and not of that: no environment is replaced in secret.
        Exception: What else struck: once, as the session is closed then. It could come again with each attempt.
    """
    perform(leaving_what_hangs(session, options, name))


def leaving_what_hangs(session: OpenSession, options: ClientOptions, name: object) -> Operations[None]:
    """Do as `leave_what_hangs`."""
    try:
        yield lambda: session.catch_up(options.close_timeout)
    except DeadlineExceeded as error:
        logger.warning("%s: no answer, and reset opens a new session in place of this one: %s", name, error)
        yield session.close
    except RemoteGymError:
        raise
    except Exception as error:
        logger.warning("%s: the next reset opens a new session in place of this one, by: %r", name, error)
        yield session.close
        raise
