"""A WebSocket on which one end asks and the other answers, each question once, in order, without numbers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed

from remote_gym.errors import ConnectionLost, DeadlineExceeded
from remote_gym.peers.elements import shown
from remote_gym.transport.waiting import within

Message = str | bytes

GOODBYE = 1.0
"""Seconds that a connection has to end which is cut."""


class Conversation:
    """Asks the other end, in the event loop that the connection was made in.

    It reads all the time: what ends a connection is noticed as it happens, and a message that answers nothing ends
    it, since each later answer would be taken for another question's.

    Args:
        connection: The WebSocket, open.
        name: Of the other end, for errors.
        is_aside: Tells messages that are no answers, such as heartbeats, by themselves.

    Attributes:
        unasked: The message that answered nothing, if one did.
    """

    def __init__(self, connection: Any, name: str, is_aside: Callable[[Message], bool] = lambda message: False) -> None:
        self._connection = connection
        self._name = name
        self._is_aside = is_aside
        self._waiter: asyncio.Future[Message | ConnectionLost] | None = None
        self._why = ""
        self.unasked: Message | None = None
        self.reading = asyncio.ensure_future(self._read())

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return not self.reading.done()

    @property
    def owes(self) -> bool:
        """Whether an answer has not come yet, and nobody waits for it any more."""
        return self._waiter is not None

    async def ask(self, message: Message, timeout: float) -> Message:
        """Send a message, and wait for its answer.

        Raises:
            ConnectionLost: If the connection broke.
            DeadlineExceeded: If no answer came. It may come later: `settle` waits for that, or the connection is to be
                cut.
        """
        if self._waiter is not None:
            raise ConnectionLost(f"{self._name} still owes an answer")
        if not self.is_open:
            raise self._lost()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await within(timeout, self._send(message))
        except asyncio.TimeoutError:  # what has been sent of it may be half of it
            await self.cut()
            raise DeadlineExceeded(f"{self._name} has read nothing for {timeout:g} s") from None
        except ConnectionClosed:
            pass  # what it has sent before that may be the answer, or say why
        return await self._answer(timeout)

    async def settle(self, timeout: float) -> None:
        """Wait for the answer that was not there in time, and drop it. Raises as `ask` does."""
        if self._waiter is not None:
            await self._answer(timeout)

    async def close(self, timeout: float, farewell: Message | None = None) -> None:
        """Take leave of the other end, for some seconds at most."""
        with contextlib.suppress(ConnectionClosed, asyncio.TimeoutError):
            if farewell is not None:
                await within(timeout, self._send(farewell))
            await within(timeout, self._connection.close())
        await self.cut()

    async def cut(self) -> None:
        """End the connection at once."""
        self.reading.cancel()
        with contextlib.suppress(Exception):
            self._connection.transport.abort()
            await within(GOODBYE, self._connection.wait_closed())

    async def _send(self, message: Message) -> None:
        await self._connection.send(message)

    async def _answer(self, timeout: float) -> Message:
        assert self._waiter is not None
        await asyncio.wait({self._waiter}, timeout=timeout)
        if not self._waiter.done():
            raise DeadlineExceeded(f"{self._name} has not answered within {timeout:g} s")
        waiter, self._waiter = self._waiter, None
        answer = waiter.result()
        if isinstance(answer, ConnectionLost):
            raise answer
        return answer

    async def _read(self) -> None:
        try:
            while True:
                message = await self._connection.recv()
                if self._is_aside(message):
                    continue
                if self._waiter is None or self._waiter.done():
                    self.unasked = message
                    return
                self._waiter.set_result(message)
        except ConnectionClosed as error:
            self._why = f" ({shown(error)})"
        finally:
            if self._waiter is not None and not self._waiter.done():
                # As a result: of an exception that nobody asks for any more asyncio would complain.
                self._waiter.set_result(self._lost())
            self._connection.transport.abort()  # whatever it was, also that the loop ends

    def _lost(self) -> ConnectionLost:
        if self.unasked is not None:
            return ConnectionLost(f"{self._name} has sent what nobody asked for: {shown(self.unasked)}")
        return ConnectionLost(f"{self._name} broke the connection{self._why}")
