"""Whether to make a broken connection again, and when. Pure: it neither waits nor connects, and borrows its clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from remote_gym.config import RetryPolicy
from remote_gym.errors import ConnectError, ConnectionLost, DeadlineExceeded

# Of its own: a trainer that seeds Python's generator counts on nobody else drawing from it, and forked trainers would
# all draw alike.
_draw = random.SystemRandom().random

FIRST_REACH = 0.5
"""Seconds that the first attempt has."""

GROWTH = 2.0
"""How much longer each further attempt may wait than the one before."""

STEADY_AFTER = 5.0
"""Seconds after which a connection that breaks was not at fault itself: attempts and pauses begin anew."""

NOTICED_LATER = 10.0
"""Seconds by which a server may notice a broken connection later than its client: by its keepalives, at most."""


class Retry:
    """The attempts to get one request answered, since its connection broke.

    - The first attempt follows the first break at once. What went wrong is the network's fault more often than the
      server's, and half of a second is a long time for a step.
    - Each further attempt waits for a random part of a time: of ``first_pause``, and `GROWTH` times as long each time,
      up to ``longest_pause``.
    - Where the server is not reached within ``reconnect_timeout`` of the newest break, the session is given up. Unless
      set, that is as long as the server may keep the session: its lease, which begins when it notices the break, and
      that may be `NOTICED_LATER` than the client does.
    - One attempt waits for ``connect_timeout`` at most, since certificates may change meanwhile, and the very first for
      `FIRST_REACH`, so that a log tells soon that the network is away.
    - Where it is reached, and what was made breaks again before it has answered, that is counted: after ``attempts`` in
      a row the session is given up, as the request or its answer may be what breaks it. A connection that stood for
      `STEADY_AFTER` seconds is not counted, and count and pauses begin anew.
    - Where the server is reached, and what was asked for cannot be had of it for ``connect_timeout``, such as a direct
      connection past a firewall, the session is given up, too.
    - No attempt begins after the request's deadline. The session is then not given up: the next request asks again.

    Args:
        policy: The client's.
        broken: How the connection broke.
        connect_timeout: Seconds.
        reconnect_timeout: Seconds; None for as long as the server keeps the session.
        lease: The session's, in seconds.
        deadline: Of the request, on `clock`.
        clock: Monotonic seconds.
        draw: Gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        broken: ConnectError | ConnectionLost,
        *,
        connect_timeout: float,
        reconnect_timeout: float | None,
        lease: float,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = _draw,
    ) -> None:
        self._policy = policy
        self._broken = broken
        self._connect_timeout = connect_timeout
        self._reconnect_timeout = lease + NOTICED_LATER if reconnect_timeout is None else reconnect_timeout
        self._is_first = True
        self._deadline = deadline
        self._clock = clock
        self._draw = draw
        self._longest = policy.first_pause  # that the next pause may be
        self._breaks = 0
        self._made: float | None = None  # when the newest attempt reached the server
        self._refused_since: float | None = None  # for as long as every attempt has reached it in vain
        self._give_up_at = self._time_to_give_up()

    def reach_timeout(self) -> float:
        """Seconds that the attempt which begins now has to reach the server."""
        self._made = None
        longest, self._is_first = FIRST_REACH if self._is_first else self._connect_timeout, False
        return max(0.001, min(longest, self._connect_timeout, self._give_up_at - self._clock()))

    def made(self) -> None:
        """The attempt has reached the server."""
        self._made = self._clock()

    def pause_after(self, error: ConnectError | ConnectionLost) -> float:
        """Seconds to wait before the next attempt, where the last one came to nothing.

        Args:
            error: `ConnectionLost` if the connection broke that it had made, `ConnectError` if it made none.

        Raises:
            ConnectionLost: To give the session up.
            DeadlineExceeded: To give only the request up.
        """
        now = self._clock()
        if isinstance(error, ConnectionLost):
            self._break(error, now)
        else:
            self._refuse(error, now)
        pause = self._longest * self._draw()
        if isinstance(error, ConnectError) and self._give_up_at < min(self._deadline, now + pause):
            raise ConnectionLost(
                f"{self._broken}; it could not be made again within {self._reconnect_timeout:.3g} s "
                f"(ClientOptions.reconnect_timeout): {error}"
            ) from error
        if now + pause >= self._deadline:
            raise DeadlineExceeded(f"{self._broken}; it was not made again before the deadline") from self._broken
        self._longest = min(self._longest * GROWTH, self._policy.longest_pause)
        return pause

    def _refuse(self, error: ConnectError, now: float) -> None:
        """There is no connection, whether or not the server was reached."""
        if self._made is None:
            self._refused_since = None
            return
        self._refused_since = self._made if self._refused_since is None else self._refused_since
        if now - self._refused_since >= self._connect_timeout:
            raise ConnectionLost(
                f"{self._broken}; the server was reached for {self._connect_timeout:.3g} s "
                f"(ClientOptions.connect_timeout), and yet: {error}"
            ) from error

    def _break(self, error: ConnectionLost, now: float) -> None:
        """The connection that the last attempt made has broken, too."""
        if self._made is not None and now - self._made >= STEADY_AFTER:
            self._breaks = 0
            self._longest = self._policy.first_pause
        else:
            self._breaks += 1
        self._made = None
        self._broken = error
        self._give_up_at = self._time_to_give_up()
        if self._breaks >= self._policy.attempts:
            raise ConnectionLost(
                f"{error}; it was made again {self._breaks} times and broke each time before it answered; see "
                "RetryPolicy.attempts"
            ) from error

    def _time_to_give_up(self) -> float:
        return min(self._deadline, self._clock() + self._reconnect_timeout)
