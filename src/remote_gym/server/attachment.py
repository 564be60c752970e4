"""Open sessions, with what serves them and who uses them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from remote_gym.config import ServerOptions
from remote_gym.errors import LossReason, OutOfSequence, RemoteGymError, SessionLost
from remote_gym.ipc.close_reasons import taken_over
from remote_gym.protocol.attempt import Attempt
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.routing_ids import ROUTES_AT_ONCE
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.spares.stock import Recipe
from remote_gym.transport.waiting import within
from remote_gym.v1 import remote_gym_pb2 as pb

MOST_ATTACHED = 4
"""Attachments of a session that are not over, the one that stands included: each of the others may hold an answer that
its client does not read, and with more of them the session answers nothing."""

MOST_ARRIVING = 16
"""Direct connections of a session, handed over to its worker and not attached, of which it is known whose they are."""

Cut = Callable[[RemoteGymError], object]
"""Ends an attachment from the server's side."""


_Key = TypeVar("_Key", bytes, int)


@dataclass(eq=False)
class OpenSession:
    """An open session with what serves it."""

    entry: Session  # in the registry
    worker: WorkerHandle
    environment: str | None = ""  # its name, as policies have it
    recipe: Recipe | None = None  # what its environment is made from; None for an entrypoint that the client names
    description: pb.Description | None = None
    direct: bool = False  # whether a client is attached to the worker itself
    cut: Cut | None = None  # ends the attachment that stands
    attached: set[asyncio.Future[None]] = field(default_factory=set)  # of each attachment, done when it is over
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of a request that comes by itself, until its answer went
    on_gone: Callable[[asyncio.Future[str]], None] | None = None  # called when its worker is gone
    closing: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    attempt: Attempt | None = None  # by which it was opened, or attached to last; None where the client does not tell
    offered: dict[bytes, Attempt | None] = field(default_factory=dict)  # who was told which routing id
    arriving: dict[int, Attempt | None] = field(default_factory=dict)  # by the number of the direct connection

    def offer(self, address: pb.DirectAddress | None, attempt: Attempt | None) -> pb.DirectAddress | None:
        """Note who is told where the worker can be reached."""
        if address is not None:
            _put(self.offered, address.routing_id, attempt, ROUTES_AT_ONCE)
        return address

    def hand_over(self, routing_id: bytes, sock: socket.socket) -> bool:
        """Give a direct connection to the worker; False if it is not there to take it."""
        attempt = self.offered.pop(routing_id, None)
        number = self.worker.hand_over(sock)
        if number is None:
            return False
        _put(self.arriving, number, attempt, MOST_ARRIVING)
        return True

    def arrived(self, number: int) -> None:
        """The direct connection of that number has been attached."""
        self.attempt = self.arriving.get(number)
        self.arriving = {later: attempt for later, attempt in self.arriving.items() if later > number}

    def is_anothers(self, attempt: Attempt) -> bool:
        """Whether somebody else has attached to the session since, or is about to, than who makes this attempt."""
        return any(other is None or other.user != attempt.user for other in (self.attempt, *self.arriving.values()))

    def check_order(self, attempt: Attempt | None) -> None:
        """Refuse to attach what its own client has given up for something newer, and arrives after that.

        Raises:
            OutOfSequence: If it is so.
        """
        newest = self.attempt
        if attempt is None or newest is None or attempt.user != newest.user:
            return
        if attempt.number < newest.number:
            raise taken_over(self.entry.id)

    async def ask_within(self, data: bytes, what: str, options: ServerOptions) -> bytes:
        """Have the worker answer what belongs to the session's opening, for which `open_timeout` bounds the time.

        Raises:
            SessionLost: If it takes longer, or the worker ends; with the last that it printed.
        """
        timeout = options.open_timeout
        try:
            return await within(timeout, self.worker.ask(data))
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

    def __init__(self, sessions: Sessions, session: OpenSession, cut: Cut, attempt: Attempt | None) -> None:
        session.check_order(attempt)
        session.attempt = attempt
        session.arriving.clear()  # what is admitted of them from now on is cut off
        session.cut_off(taken_over(session.entry.id))
        session.cut = self._cut = cut
        self._session = session
        self._sessions = sessions
        self._epoch = sessions.attach(session.entry)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.attached.add(self._over)

    async def ask(self, data: bytes | memoryview) -> bytes:
        """Answer one encoded request.

        Raises:
            SessionLost: If the session has ended.
            OutOfSequence: If a newer attachment stands.
        """
        while len(self._session.attached) > MOST_ATTACHED:
            earlier = self._session.attached - {self._over}
            await asyncio.wait(earlier, return_when=asyncio.FIRST_COMPLETED)
        try:
            self._sessions.check_epoch(self._session.entry, self._epoch)
            return await self._session.worker.ask(data)
        except SessionLost as error:
            raise self._sessions.explain(self._session.entry, error) from None

    def detach(self) -> None:
        """Let go of the session, which lives on for its lease. Call once, when nothing more will be said."""
        if self._session.cut is self._cut:
            self._session.cut = None
        self._over.set_result(None)
        self._session.attached.discard(self._over)
        self._sessions.leave(self._session.entry)


def _put(table: dict[_Key, Attempt | None], key: _Key, attempt: Attempt | None, most: int) -> None:
    """Note it, in the place of the oldest where there are too many."""
    table[key] = attempt
    if len(table) > most:
        del table[next(iter(table))]
