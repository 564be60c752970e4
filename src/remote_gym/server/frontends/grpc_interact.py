"""The server's end of one `Interact` call.

One task alone writes to the call, and nothing cancels a write: gRPC goes on with it, and takes no other until it is
done. So a session that ends, or a newer client that takes it over, interrupts a call that reads, or waits for the
worker, and waits for one that writes. Either way the reason is the last message, once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import grpc

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, RemoteGymError
from remote_gym.logs import get_logger
from remote_gym.server.attachment import Attachment
from remote_gym.server.frontends.grpc_reading import READ_TIMEOUT, Context, room
from remote_gym.server.frontends.intake import Intake
from remote_gym.wire.errors import error_response
from remote_gym.wire.parts import Joining, announced, is_part

logger = get_logger(__name__)

MOST_UNREAD = 16
"""Calls of one client that have ended but for an answer that it does not read. gRPC has no way to take that back, so
that a client with more of them has to read them, or to end their connections, before it gets another session."""


class Interacting:
    """Answers the requests of one call, until its client, the session, or the server ends it.

    Args:
        context: The call.
        holder: Names the client where its bytes are counted.
        intake: Room for requests that come in parts.
        limits: Bounds on requests.
        answered_until: On `time.monotonic`.
        unread: Counts, by holder, the calls that have ended but for an answer that is not read.
    """

    def __init__(
        self,
        context: Context,
        holder: str,
        *,
        intake: Intake,
        limits: Limits,
        answered_until: float,
        unread: Counter[str],
    ) -> None:
        self._context = context
        self._holder = holder
        self._intake = intake
        self._limits = limits
        self._answered_until = answered_until
        self._task = asyncio.current_task()
        # Encoded at once: an error holds the frames that it passed, and so, by way of this object, itself. What gRPC
        # keeps of the call, with its client's socket, would stay until the garbage collector comes by.
        self._last: bytes | None = None
        self._writing = False
        self._unread = unread
        self._counted = False

    def cut(self, reason: RemoteGymError) -> None:
        """End the call, and say why."""
        if self._last is not None:
            return
        self._last = error_response(reason)
        if self._writing:
            self._counted = True
            self._unread[self._holder] += 1
        else:
            assert self._task is not None
            self._task.cancel()

    async def serve(self, attachment: Attachment) -> None:
        """Answer until the end, and detach."""
        try:
            try:
                await self._answer(attachment)
            except asyncio.CancelledError:
                if self._writing or self._last is None:  # the client is gone
                    raise
            except RemoteGymError as error:
                self._last = self._last or error_response(error)
            if self._last is not None:
                # An idle client finds it when it asks next, and need not look for the reason.
                self._writing = True
                await self._context.write(self._last)
                self._writing = False
        finally:
            if self._counted:
                self._unread[self._holder] -= 1
                self._unread += Counter()  # drops zeros
            attachment.detach()

    async def _answer(self, attachment: Attachment) -> None:
        while self._last is None:
            data = await self._context.read()
            if data is grpc.aio.EOF:
                return
            if time.monotonic() >= self._answered_until:
                # Not answered: the client asks again in a new call, for which it shows its certificate again.
                logger.info(
                    "a call of %s has reached its age; it has to make another",
                    self._holder,
                    repeats=self._holder,
                    identity=self._holder,
                )
                return
            answer = await (self._ask_in_parts(attachment, data) if is_part(data) else attachment.ask(data))
            if answer is None:
                return
            self._writing = True
            await self._context.write(answer)
            self._writing = False

    async def _ask_in_parts(self, attachment: Attachment, first: bytes) -> bytes | None:
        """The answer to a request that comes in parts; None where the client leaves before the last one."""
        try:
            size = announced(first)
            limit = min(self._limits.message_bytes, self._intake.share)
            if size > limit:
                what = f"a request of {size:,} bytes is announced in parts; the server takes at most {limit:,}"
                await self._context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, what)
            async with room(self._intake, self._context, self._holder, size) as claim:
                joining = Joining(size)
                joining.add(first)
                while (request := joining.request) is None:
                    claim.limit(READ_TIMEOUT)
                    part = await self._context.read()
                    if part is grpc.aio.EOF:
                        return None
                    joining.add(part)
                claim.arrived(size)
                return await attachment.ask(request)
        except EncodingError as error:
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
