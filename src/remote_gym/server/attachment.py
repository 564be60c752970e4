"""Open sessions, with what serves them and who uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from remote_gym.config import ServerOptions
from remote_gym.errors import LossReason, OutOfSequence, RemoteGymError, SessionLost
from remote_gym.server.endings import taken_over
from remote_gym.server.link import Worker
from remote_gym.server.sessions import Session, Sessions
from remote_gym.v1 import remote_gym_pb2 as pb

MOST_ATTACHED = 4
"""Attachments of a session that are not over, the one that stands included: each of the others may hold an answer that
its client does not read, and with more of them the session answers nothing."""

Cut = Callable[[RemoteGymError], object]
"""Ends an attachment from the server's side."""


@dataclass(eq=False)
class OpenSession:
    """An open session with what serves it."""

    session: Session
    worker: Worker
    environment: str | None = ""  # its name, as policies have it
    description: pb.Description | None = None
    direct: bool = False  # whether a client is attached to the worker itself
    cut: Cut | None = None  # ends the attachment that stands
    attached: set[asyncio.Future[None]] = field(default_factory=set)  # of each attachment, done when it is over
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of a request that comes by itself, until its answer went
    closing: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def ask_within(self, data: bytes, what: str, options: ServerOptions) -> bytes:
        """Have the worker answer what belongs to the session's opening, for which `open_timeout` bounds the time.

        Raises:
            SessionLost: If it takes longer, or the worker ends; with the last that it printed.
        """
        timeout = options.open_timeout
        try:
            return await asyncio.wait_for(self.worker.ask(data), timeout)
        except asyncio.TimeoutError:
            raise SessionLost(
                f"{what} took over {timeout:g} s; raise ServerOptions.open_timeout",
                reason=LossReason.HUNG,
                output=self.worker.last_lines(),
            ) from None
        except SessionLost as error:
            where = f" in {options.interpreter}" if options.interpreter else ""
            raise SessionLost(f"{error}, amid {what}{where}", reason=error.reason, output=error.output) from None

    def cut_off(self, reason: RemoteGymError) -> None:
        """End whatever is attached: over gRPC it is told why, and who was attached directly asks."""
        self.cut_grpc(reason)
        self.worker.cut_direct(taken_over=isinstance(reason, OutOfSequence))

    def cut_grpc(self, reason: RemoteGymError) -> None:
        """End what is attached over gRPC, and tell it why."""
        if self.cut is not None:
            self.cut(reason)
            self.cut = None


class Attachment:
    """A connection bound to a session, until a newer one takes over."""

    def __init__(self, sessions: Sessions, found: OpenSession, cut: Cut) -> None:
        found.cut_off(taken_over(found.session.id))
        found.cut = self._cut = cut
        self._found = found
        self._sessions = sessions
        self._epoch = sessions.attach(found.session)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found.attached.add(self._over)

    async def ask(self, data: bytes | memoryview) -> bytes:
        """Answer one encoded request.

        Raises:
            SessionLost: If the session has ended.
            OutOfSequence: If a newer attachment stands.
        """
        while len(self._found.attached) > MOST_ATTACHED:
            earlier = self._found.attached - {self._over}
            await asyncio.wait(earlier, return_when=asyncio.FIRST_COMPLETED)
        try:
            self._sessions.check_epoch(self._found.session, self._epoch)
            return await self._found.worker.ask(data)
        except SessionLost as error:
            raise self._sessions.explain(self._found.session, error) from None

    def detach(self) -> None:
        """Let go of the session, which lives on for its lease. Call once, when nothing more will be said."""
        if self._found.cut is self._cut:
            self._found.cut = None
        self._over.set_result(None)
        self._found.attached.discard(self._over)
        self._sessions.leave(self._found.session)
