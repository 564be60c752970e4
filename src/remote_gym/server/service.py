"""What a server does when it is asked, whatever carried the question. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import NotPermitted, RemoteGymError, ServerFull, SessionLost
from remote_gym.ipc import close_reasons
from remote_gym.ipc.control import WorkerEvent
from remote_gym.protocol.attempt import Attempt
from remote_gym.server import session_log
from remote_gym.server.access.authorizer import Authorizer
from remote_gym.server.access.policy import Policy
from remote_gym.server.admission_queue import AdmissionQueue, stopping
from remote_gym.server.attachment import Attachment, Cut, OpenSession
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher, LaunchSpec
from remote_gym.server.launch_request import check_version, launch_message, restrict
from remote_gym.server.routing_ids import RoutingIds
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.status import SessionStatus
from remote_gym.transport.busy_poll import poll_us
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error, error_response
from remote_gym.wire.parse import parse


class Service:
    """Sessions and the workers behind them.

    All methods run on one event loop.

    Args:
        launcher: Starts workers.
        default_args: What a client gets that names no environment; None where it has to.
        options: The server's.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        launcher: Launcher,
        default_args: Mapping[str, Any] | None,
        options: ServerOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launcher = launcher
        self._default_args = default_args
        self._options = options
        self._sessions = Sessions(max_sessions=options.max_sessions, lease=options.lease, clock=clock)
        self.authorizer = Authorizer(options, clock)
        self._clock = clock
        self._drain_end = math.inf
        self._queue = AdmissionQueue(self._sessions, options.queue_timeout, clock)
        self.draining = False
        """Whether no more sessions are opened, since the server stops."""
        self._open: dict[str, OpenSession] = {}
        self.routes = RoutingIds(clock)
        """By which direct connections find their sessions."""
        self.tls: Callable[[str], worker_pb2.Tls] | None = None
        """Tells what a worker admits direct connections by, whose session has that owner."""
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def load(self) -> pb.LoadResponse:
        """How much room there is."""
        return pb.LoadResponse(
            open=self._sessions.places,
            capacity=self._options.max_sessions,
            waiting=self._sessions.waiting,
            draining=self.draining,
        )

    async def open(self, request: worker_pb2.Opening, owner: str, attempt: Attempt | None = None) -> pb.OpenResponse:
        """Create an environment for a client; failures come in the response."""
        self._opening += 1
        try:
            return await self._open_session(request, owner, attempt)
        except RemoteGymError as error:
            if isinstance(error, (NotPermitted, ServerFull)):  # what the server's owner may want to change
                session_log.refused(owner, error)
            return pb.OpenResponse(error=encode_error(error))
        finally:
            self._opening -= 1

    async def spaces(
        self, session_id: str, token: str, owner: str, attempt: Attempt | None = None
    ) -> pb.SpacesResponse:
        """What `open` told about the environment, again."""
        try:
            session = self._find(session_id, token, owner)
            if session.worker.ending:
                # Whoever lost the direct connection to it asks at once, and is to hear the reason.
                await asyncio.shield(session.worker.gone)
                session = self._find(session_id, token, owner)
            direct = session.offer(self.routes.address(session_id), attempt)
            return pb.SpacesResponse(description=session.description, direct=direct, lease=self._options.lease)
        except RemoteGymError as error:
            return pb.SpacesResponse(error=encode_error(error))

    async def ask(self, session_id: str, token: str, owner: str, data: bytes) -> bytes:
        """Answer one encoded request that came by itself."""
        try:
            session = self._find(session_id, token, owner)
        except RemoteGymError as error:
            return error_response(error)
        self._sessions.enter(session.entry)
        try:
            return await session.worker.ask(data)
        except SessionLost as error:
            return error_response(self._sessions.explain(session.entry, error))
        finally:
            self._sessions.leave(session.entry)

    def turn(self, session_id: str, token: str, owner: str) -> asyncio.Lock:
        """What a request that comes by itself holds from when it is asked until its answer has been sent.

        So of the answers that a client does not read, the server keeps one for each of its sessions.

        Raises:
            SessionLost: If there is no such session.
            NotPermitted: If it is another's.
        """
        return self._find(session_id, token, owner).turn

    async def close_session(self, session_id: str, token: str, owner: str, attempt: Attempt | None = None) -> bytes:
        """End a session in whatever state it is, unless it `is_anothers`; answered when its environment is closed."""
        try:
            session = self._find(session_id, token, owner)
            if attempt is not None and session.is_anothers(attempt):
                raise close_reasons.taken_over(session_id)
        except RemoteGymError as error:
            return error_response(error)
        # The worker tells a direct connection by itself.
        self._dismiss(session, close_reasons.CLOSED)
        await asyncio.shield(session.closing)
        return pb.Response(close=pb.CloseResponse()).SerializeToString()

    def attach(self, session_id: str, token: str, owner: str, cut: Cut, attempt: Attempt | None = None) -> Attachment:
        """Bind a connection to a session, cutting off an older one.

        Args:
            session_id: The session's.
            token: Its secret.
            owner: Identity of the client that asks.
            cut: Called when a newer connection takes over, or the server stops.
            attempt: Which call it is, where the client tells.

        Raises:
            SessionLost: If there is no such session.
            NotPermitted: If it is another's.
            OutOfSequence: If a newer call of the same client's is attached.
        """
        return Attachment(self._sessions, self._find(session_id, token, owner), cut, attempt)

    def hand_over(self, routing_id: bytes, sock: socket.socket) -> bool:
        """Give a direct connection to the worker of that routing id; False if there is none."""
        session = self._open.get(self.routes.take(routing_id) or "")
        if session is None:
            return False
        others = sum(other.direct for other in self._open.values() if other is not session)
        session.worker.set_polling(poll_us(self._options.poll_us, others + 1))
        return session.hand_over(routing_id, sock)

    def workers(self) -> dict[str, WorkerHandle]:
        """Those of all open sessions, by the session's id."""
        return {id_: session.worker for id_, session in self._open.items()}

    def statuses(self) -> tuple[SessionStatus, ...]:
        """What there is to tell of each open session."""
        return tuple(
            SessionStatus(
                id=session.entry.id,
                owner=session.entry.owner,
                num_envs=session.entry.num_envs,
                attached=session.entry.users > 0,
                direct=session.direct,
                pid=session.worker.pid,
                counters=session.worker.counters(),
            )
            for session in self._open.values()
        )

    def expire(self) -> None:
        """Close sessions whose lease is over."""
        for entry in self._sessions.expired():
            session_log.deserted(entry, self._options.lease)
            self._end(self._open[entry.id], close_reasons.deserted(self._options.lease))

    def cut_off(self, is_revoked: Callable[[str], bool]) -> None:
        """End the connections of owners that are no longer let in. Their sessions live on for their leases."""
        for session in self._open.values():
            owner = session.entry.owner
            if (session.direct or session.cut is not None) and is_revoked(owner):
                session_log.revoked(session.entry)
                session.cut_off(NotPermitted(f"session {session.entry.id}: {owner!r} is not let in any more"))

    def set_policy(self, policy: Policy) -> None:
        """From now on let clients open what it says, and end the sessions of those whom it would not let open them."""
        self.authorizer.policy = policy
        for session in list(self._open.values()):
            try:
                policy.decide(session.entry.owner, session.environment)
            except NotPermitted as error:
                reason = close_reasons.forbidden(error)
                session.cut_off(close_reasons.lost(session.entry.id, reason))
                self._end(session, reason)

    async def drain(self, grace: float) -> None:
        """Open no more sessions, begin no more episodes, and wait `grace` seconds for those that run to end.

        A session ends when its client asks for a new episode, or a moment after its episode is over.
        """
        self.draining = True
        self.end_drain(grace)
        self._queue.close()
        for session in list(self._open.values()):
            if session.description is None:  # its client has nothing to lose yet, and may go elsewhere
                self._end(session, close_reasons.STOPPING)
            else:
                session.worker.drain()
        while self._open and self._clock() < self._drain_end:
            await asyncio.sleep(0.05)

    def end_drain(self, grace: float) -> None:
        """Let `drain` wait no longer than `grace` seconds from now."""
        self._drain_end = min(self._drain_end, self._clock() + grace)

    async def close(self) -> None:
        """Cut off every client and close every environment."""
        for session in list(self._open.values()):
            self._dismiss(session, close_reasons.STOPPING)
        # Whoever waits for a worker that starts is to hear that the server stops, rather than be cut off.
        end = time.monotonic() + self._options.close_timeout
        while self.draining and self._opening and time.monotonic() < end:
            await asyncio.sleep(0.02)
        while self._closing:
            await asyncio.wait(self._closing)  # which yields also when all are done, so that they can be forgotten

    async def _open_session(self, request: worker_pb2.Opening, owner: str, attempt: Attempt | None) -> pb.OpenResponse:
        check_version(request)
        self.authorizer.admit(owner, request)
        try:
            message = launch_message(request, self._default_args, self._options)
            entry = await self._queue.admit(owner, request.num_envs or 1)
        except BaseException:
            self.authorizer.let_go(owner)
            raise
        message.session, message.env_id = entry.id, entry.env_id
        message.token, message.owner = entry.token, owner
        if self.tls is not None:
            message.tls.CopyFrom(self.tls(owner))
        self._sessions.enter(entry)
        try:
            worker = await self._launcher.launch(LaunchSpec(session=entry.id, interpreter=self._options.interpreter))
        except BaseException:
            self._sessions.end(entry, close_reasons.NOT_STARTED)
            self._release(entry)
            raise
        session = OpenSession(entry, worker, self.authorizer.environment(request), attempt=attempt)
        self._open[entry.id] = session
        if self.draining:  # which began meanwhile
            self._end(session, close_reasons.STOPPING, close_timeout=0.0)
            raise stopping()
        try:
            # Again: it may have changed while the client waited for a place, and the worker started.
            restrict(message, self.authorizer.policy.decide(owner, session.environment).terms)
            answer = await session.ask_within(message.SerializeToString(), "creating the environment", self._options)
            launched = parse(worker_pb2.Launched, answer, self._options.message_limits)
        except BaseException as error:
            self._give_up(session, error)
            raise
        if launched.HasField("error"):
            self._end(
                session, close_reasons.not_created(launched.error.message), details=launched.error.remote_traceback
            )
            await asyncio.shield(session.closing)
            return pb.OpenResponse(error=launched.error)
        first = b""
        if request.HasField("first"):
            try:
                first = await session.ask_within(request.first, "the first reset", self._options)
            except BaseException as error:
                self._give_up(session, error)
                raise
        if self.draining:
            self._end(session, close_reasons.STOPPING)
            raise stopping()
        if entry.id not in self._open:  # it was ended after the worker's answer
            raise self._sessions.explain(entry, SessionLost(f"session {entry.id}: it has ended"))
        self._sessions.leave(entry)
        session.description = launched.description
        worker.gone.add_done_callback(lambda gone: self._end(session, gone.result()))
        worker.on_word = functools.partial(self._on_event, session)
        if self._options.idle_timeout is not None:
            worker.limit_idle(self._options.idle_timeout)
        session_log.opened(entry)
        opened = pb.Session(
            id=entry.id, token=entry.token, lease=self._options.lease, description=launched.description, first=first
        )
        opened.identity = owner
        opened.environments.extend(self.authorizer.open_to(owner, has_default=self._default_args is not None))
        if (direct := session.offer(self.routes.address(entry.id), attempt)) is not None:
            opened.direct.CopyFrom(direct)
        return pb.OpenResponse(session=opened)

    def _give_up(self, session: OpenSession, error: BaseException) -> None:
        """End a session that did not open.

        Raises:
            ServerFull: If that is because the server stops.
            SessionLost: With the reason, if it was ended meanwhile.
        """
        ended = session.entry.id not in self._open
        # Nobody waits for it any more, so there is nothing to close but what its constructor holds.
        self._end(session, close_reasons.not_opened(error), close_timeout=0.0)
        if isinstance(error, SessionLost):
            if self.draining:
                raise stopping() from error
            if ended:
                raise self._sessions.explain(session.entry, error) from error

    def _on_event(self, session: OpenSession, word: int, value: int) -> None:
        """What a worker tells of its client."""
        if word == WorkerEvent.DRAINED:
            self._dismiss(session, close_reasons.DRAINED)
        elif word == WorkerEvent.IDLE and session.entry.users:  # else its lease is what counts
            self._dismiss(session, close_reasons.idled(self._options.idle_timeout))
        elif word in (WorkerEvent.ATTACHED, WorkerEvent.DETACHED):
            if word == WorkerEvent.ATTACHED:
                session.arrived(value)
            self._on_direct(session, word == WorkerEvent.ATTACHED, value / 1000)

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
        polling = [other for other in self._open.values() if other.direct]
        for other in polling:
            other.worker.set_polling(poll_us(self._options.poll_us, len(polling)))

    def _find(self, session_id: str, token: str, owner: str) -> OpenSession:
        session = self._open[self._sessions.find(session_id, token, owner).id]
        if session.description is None:
            raise SessionLost(f"session {session.entry.id}: it is still opening")
        return session

    def _dismiss(self, session: OpenSession, reason: str) -> None:
        """End a session, and tell whoever is attached why; on a direct connection its worker does."""
        session.cut_grpc(close_reasons.lost(session.entry.id, reason))
        self._end(session, reason)

    def _end(self, session: OpenSession, reason: str, close_timeout: float | None = None, details: str = "") -> None:
        """End a session now; its worker closes in the background. The details are for the log."""
        if self._sessions.end(session.entry, reason):
            del self._open[session.entry.id]
            self.routes.forget(session.entry.id)
            if session.direct:
                self._set_polling()
            session_log.ended(session.entry, reason, details)
            timeout = self._options.close_timeout if close_timeout is None else close_timeout
            task = asyncio.ensure_future(self._close_worker(session, timeout))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close_worker(self, session: OpenSession, timeout: float) -> None:
        await session.worker.close(timeout)
        if session.worker.exited.done():
            self._release(session.entry)
        else:  # a thread that hangs cannot be killed, and keeps its place for as long as it does
            session.worker.exited.add_done_callback(lambda _: self._release(session.entry))
        session.closing.set_result(None)

    def _release(self, entry: Session) -> None:
        """Let others have the place of a session whose environment is gone."""
        self._queue.release(entry)
        self.authorizer.let_go(entry.owner)
