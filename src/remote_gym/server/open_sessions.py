"""The sessions that are open: who comes to them directly, and how each of them ends."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterator

from remote_gym.config import ServerOptions
from remote_gym.errors import SessionLost
from remote_gym.ipc import close_reasons
from remote_gym.ipc.control import WorkerEvent
from remote_gym.logs import get_logger
from remote_gym.server import session_log
from remote_gym.server.attachment import OpenSession
from remote_gym.server.routing_ids import RoutingIds
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.spares.spares import Spares
from remote_gym.transport.busy_poll import poll_us
from remote_gym.v1 import remote_gym_pb2 as pb

logger = get_logger(__name__)


class OpenSessions:
    """All that are open, from when their workers have started.

    Args:
        sessions: The registry, which decides about their places and leases.
        routes: By which direct connections find them.
        options: The server's.
        release: Called with the entry of a session whose environment is gone, or is its own no more.
        spares: May keep it for the next session.
    """

    def __init__(
        self,
        sessions: Sessions,
        routes: RoutingIds,
        options: ServerOptions,
        release: Callable[[Session], None],
        spares: Spares,
    ) -> None:
        self._sessions = sessions
        self._routes = routes
        self._options = options
        self._release = release
        self._spares = spares
        self._open: dict[str, OpenSession] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenSession]:
        """All of them, the oldest first; they may be ended meanwhile."""
        return iter(tuple(self._open.values()))

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._open

    def __getitem__(self, session_id: str) -> OpenSession:
        return self._open[session_id]

    def find(self, session_id: str, token: str, identity: str) -> OpenSession:
        """The session that a client asks for.

        Raises:
            SessionLost: If there is no such session, or it is still opening.
            NotPermitted: If it is another's.
        """
        session = self._open[self._sessions.find(session_id, token, identity).id]
        if session.description is None:
            raise SessionLost(f"session {session.entry.id}: it is still opening")
        return session

    def add(self, session: OpenSession) -> None:
        """Add one whose worker has started."""
        self._open[session.entry.id] = session

    def watch(self, session: OpenSession) -> None:
        """Follow what its worker says from now on, and end it with its worker."""
        worker = session.worker
        session.on_gone = lambda gone: self.end(session, gone.result())
        worker.gone.add_done_callback(session.on_gone)
        worker.on_event = functools.partial(self._on_event, session)
        if self._options.idle_timeout is not None:
            worker.limit_idle(self._options.idle_timeout)

    def address(self, session_id: str) -> pb.DirectAddress | None:
        """Where the session's worker can be reached, once; None if nowhere."""
        return self._routes.address(session_id)

    def hand_over(self, routing_id: bytes, sock: socket.socket) -> bool:
        """Give a direct connection to the worker of that routing id; False if there is none."""
        session = self._open.get(self._routes.take(routing_id) or "")
        if session is None:
            return False
        others = sum(other.direct for other in self if other is not session)
        session.worker.set_polling(poll_us(self._options.poll_us, others + 1))
        return session.hand_over(routing_id, sock)

    def dismiss(self, session: OpenSession, reason: str, *, may_keep: bool = False) -> None:
        """End a session, and tell whoever is attached why; on a direct connection its worker does.

        Args:
            session: Which.
            reason: As `end` has it.
            may_keep: Whether its environment may be kept for its client, who has closed it.
        """
        session.cut_grpc(close_reasons.lost(session.entry.id, reason))
        self.end(session, reason, may_keep=may_keep)

    def end(
        self,
        session: OpenSession,
        reason: str,
        close_timeout: float | None = None,
        details: str = "",
        *,
        may_keep: bool = False,
    ) -> None:
        """End a session now, unless it has ended; its worker closes in the background.

        Args:
            session: Which.
            reason: For the log, and for whoever asks for it later.
            close_timeout: Seconds that its environment has; None for `ServerOptions.close_timeout`.
            details: For the log.
            may_keep: As `dismiss` has it.
        """
        if self._sessions.end(session.entry, reason):
            del self._open[session.entry.id]
            self._routes.forget(session.entry.id)
            if session.direct:
                self._set_polling()
            session_log.ended(session.entry, reason, details)
            timeout = self._options.close_timeout if close_timeout is None else close_timeout
            task = asyncio.ensure_future(self._close_worker(session, timeout, may_keep=may_keep))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def wait_closed(self) -> None:
        """Wait until the environments of all that have ended are closed."""
        while self._closing:
            await asyncio.wait(self._closing)  # which yields also when all are done, so that they can be forgotten

    def _on_event(self, session: OpenSession, event: int, value: int) -> None:
        """Follow what a worker reports of its client."""
        if event == WorkerEvent.DRAINED:
            self.dismiss(session, close_reasons.DRAINED)
        elif event == WorkerEvent.IDLE and session.entry.users:  # else its lease is what counts
            self.dismiss(session, close_reasons.idled(self._options.idle_timeout))
        elif event in (WorkerEvent.ATTACHED, WorkerEvent.DETACHED):
            if event == WorkerEvent.ATTACHED:
                session.arrived(value)
            self._on_direct(session, event == WorkerEvent.ATTACHED, value / 1000)

    def _on_direct(self, session: OpenSession, attached: bool, silence: float) -> None:
        """A client has attached to the worker itself, or has left it."""
        if attached == session.direct:
            return
        session.direct = attached
        if attached:
            session.cut_grpc(close_reasons.taken_over(session.entry.id))
            self._sessions.attach(session.entry)
        else:
            self._sessions.leave(session.entry, silence)
        self._set_polling()

    def _set_polling(self) -> None:
        """Let those who are attached directly know how many they are, where that makes a difference to them."""
        polling = [other for other in self if other.direct]
        for other in polling:
            other.worker.set_polling(poll_us(self._options.poll_us, len(polling)))

    async def _close_worker(self, session: OpenSession, timeout: float, *, may_keep: bool) -> None:
        is_kept = False
        try:
            is_kept = may_keep and await self._is_kept(session, timeout)
            if not is_kept:
                await session.worker.close(timeout)
        except Exception:  # a fault of ours, which others are not to wait for
            logger.exception("session %s: its worker could not be closed", session.entry.id)
        finally:
            try:
                self._let_go(session, is_kept=is_kept)
            finally:
                session.closing.set_result(None)  # for which its client waits, and the server's end

    def _let_go(self, session: OpenSession, *, is_kept: bool) -> None:
        """Let others have its place, as soon as its worker has ended."""
        if is_kept or session.worker.exited.done():
            self._release(session.entry)
        else:  # a thread that hangs cannot be killed, and keeps its place for as long as it does
            session.worker.exited.add_done_callback(lambda _: self._release(session.entry))

    async def _is_kept(self, session: OpenSession, timeout: float) -> bool:
        worker = session.worker
        if session.recipe is None:
            return False
        try:
            if not await self._spares.keep(session.entry, session.recipe, worker, timeout):
                return False
        except Exception:  # a fault of ours, after which it is closed as any other
            logger.exception("session %s: its environment could not be kept", session.entry.id)
            return False
        if session.on_gone is not None:
            worker.gone.remove_done_callback(session.on_gone)
        return True
