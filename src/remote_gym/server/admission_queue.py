"""Waiting for a place in a full server. Whose turn it is, `sessions` decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remote_gym.errors import FullReason, ServerFull
from remote_gym.server.sessions import Session, Sessions


class AdmissionQueue:
    """Where clients that open a session pass, one after the other.

    Args:
        sessions: Has the places.
        timeout: Seconds that one may wait; 0 for not at all.
        clock: Monotonic seconds.
    """

    def __init__(self, sessions: Sessions, timeout: float, clock: Callable[[], float]) -> None:
        self._sessions = sessions
        self._timeout = timeout
        self._clock = clock
        self._closed = False
        self._changed: asyncio.Future[None] = (
            asyncio.get_running_loop().create_future()
        )  # done when somebody's turn may have come

    async def admit(self, identity: str, num_envs: int) -> Session:
        """Claim a place, once there is one. Who is cancelled leaves the queue.

        Raises:
            ServerFull: If none became free in time, the queue is too long, or the server stops.
        """
        self._check_closed()
        if self._sessions.has_place() or not self._timeout:
            return self._sessions.open(identity, num_envs)
        deadline = self._clock() + self._timeout
        turn = self._sessions.wait()
        try:
            while not self._sessions.has_place(turn):
                remaining = deadline - self._clock()
                if remaining <= 0:
                    raise self._sessions.full()
                # Not by `wait_for`, which until Python 3.12 forgets that it was cancelled if it was done, too.
                await asyncio.wait([self._changed], timeout=remaining)
                self._check_closed()
            return self._sessions.open(identity, num_envs, turn)
        finally:
            self._sessions.stop_waiting(turn)
            self.advance()  # the next one may have a place, too

    def release(self, session: Session) -> None:
        """Let another session have the place of one that is gone."""
        self._sessions.release(session)
        self.advance()

    def close(self) -> None:
        """Admit nobody any more."""
        self._closed = True
        self.advance()

    def advance(self) -> None:
        """Let all who wait see whether it is their turn."""
        self._changed.set_result(None)
        self._changed = asyncio.get_running_loop().create_future()

    def _check_closed(self) -> None:
        if self._closed:
            raise stopping()


def stopping() -> ServerFull:
    """The error for who comes too late."""
    return ServerFull("the server is stopping, and opens no more sessions", reason=FullReason.STOPPING)
