"""The client's side of a session whose requests are awaited."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time

from remote_gym.client import dropped
from remote_gym.client.aio.connection import AsyncConnection
from remote_gym.client.aio.loops import at_end_of_loop
from remote_gym.client.carrier import Line
from remote_gym.client.rules.operations import perform_async
from remote_gym.client.rules.session import OpenSession
from remote_gym.config import ClientOptions
from remote_gym.errors import RemoteGymError, SessionError
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Answer, Exchange, unless_error
from remote_gym.protocol.stream import Stream
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)

DIRECT_PATIENCE = 3.0
"""Seconds to try for a direct connection before gRPC is used: more than where a thread waits for one, since a loop
makes many at a time, and the server may have as many handshakes to do at once."""


class AsyncSession(OpenSession):
    """An open session of one event loop, for one task at a time. Arguments are those of `OpenSession`.

    A cancelled await leaves a session that can be used: the next request first waits for the answer to the one that was
    cancelled. `opening` and `finding` make one.
    """

    _connection: AsyncConnection

    def __init__(
        self, connection: AsyncConnection, session: pb.Session, options: ClientOptions, first: Answer | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._left: Stream | None = None
        super().__init__(connection, session, options, first, sleep=asyncio.sleep, patience=DIRECT_PATIENCE)
        at_end_of_loop(self)

    async def attach(self) -> None:
        """Connect to the worker now, rather than with the first request, which does what this could not.

        A session to which nobody is connected ends with its lease, which may be long before an agent has thought.
        """
        try:
            async with self._connection.server.connecting:
                await perform_async(self._carrier.attaching(time.monotonic() + self._options.connect_timeout))
        except RemoteGymError as error:
            logger.debug("session %s: not attached: %s", self.id, error)  # which the next request meets, too

    async def improve(self) -> None:
        """Let the next request try for a direct connection; see `OpenSession`."""
        self._carrier.improve()

    async def ask(self, request: pb.Request, timeout: float) -> Answer:
        """Send a request and return its answer; see `OpenSession`."""
        self._check()
        return unless_error(await perform_async(self._asking(request, time.monotonic() + timeout)))

    async def catch_up(self, timeout: float) -> None:
        """Wait for the answer that was missed, and drop it; see `OpenSession`."""
        self._check()
        await perform_async(self._catching_up(time.monotonic() + timeout))

    async def take_over(self, timeout: float) -> Answer | None:
        """Cut off the process that opened the session; see `OpenSession`."""
        self._check()
        return await perform_async(self._taking_over(time.monotonic() + timeout))

    async def let_go(self) -> None:
        """End the connection and not the session; see `OpenSession`."""
        self._exchange.end(is_open=False)
        await self.close()

    async def close(self) -> None:
        """Close the environment and the connection. In a forked child it does nothing.

        Waits for no request in progress, which is another task's: it ends.
        """
        if asyncio.get_running_loop() is not self._loop:
            await asyncio.to_thread(self.close_at_exit, self._options.close_timeout)
            return
        stream = self._carrier.stream
        await perform_async(self._closing(self._options.close_timeout, logging.WARNING))
        if stream is not None:
            await stream.ended()  # type: ignore[attr-defined]
        await self._connection.closed()

    def close_at_exit(self, timeout: float) -> None:
        """Close it from another thread, by blocking, since its loop has ended or is about to."""
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        self._exchange.end(" (it was closed)", is_open=self._exchange.is_open)
        try:
            self._close_dropped(min(timeout, self._options.close_timeout))
        except RemoteGymError as error:
            logger.debug("session %s: closing: %s", self.id, error)
        self._exchange.end(is_open=False)
        self._forget()

    def leave_loop(self) -> None:
        """Leave the session to a thread, which closes it."""
        if not self._closed:
            self._exchange.end(" (its event loop has ended)", is_open=self._exchange.is_open)
            if not self._loop.is_closed():
                self._left = self._carrier.stream
                self._carrier.detach()
                self._connection.close()
            dropped.close_soon(self)

    async def left_loop(self) -> None:
        """Wait until the loop has nothing of it any more."""
        if self._left is not None:
            await self._left.ended()  # type: ignore[attr-defined]
        await self._connection.closed()

    def before_fork(self, deadline: float) -> None:
        """Do nothing: what a loop has is left to it; see `remote_gym.client.aio.channel.SharedChannel`."""

    def _closer(self, line: Line) -> dropped.Close:
        session, connection = self._session, self._connection
        self._close_dropped = functools.partial(
            _close, self._loop, connection, session.id, session.token, self._exchange, line
        )
        return self._close_dropped

    def _check(self) -> None:
        if self._process != os.getpid():
            raise self._in_a_fork()
        if self._loop is not asyncio.get_running_loop():
            raise SessionError(
                f"session {self.id} was opened in another event loop, and its connection belongs to that; close the "
                "environment, and reset opens another here"
            )
        if self._exchange.is_over:
            raise self._exchange.ended_error()


def _close(
    loop: asyncio.AbstractEventLoop,
    connection: AsyncConnection,
    session: str,
    token: str,
    exchange: Exchange,
    line: Line,
    timeout: float,
) -> None:
    """Close a session whose `AsyncSession` is no more, or whose loop is not; in a thread."""
    stream, line.stream = line.stream, None
    if loop.is_running():
        with contextlib.suppress(RuntimeError):  # it has just been closed, and what was open with it
            if stream is not None:
                loop.call_soon_threadsafe(stream.close)
            loop.call_soon_threadsafe(connection.close)
    if exchange.is_open:
        connection.close_from_thread(session, token, timeout)
