"""What a server does when it is asked, whatever carried the question. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import DenialReason, NotPermitted, RemoteGymError, ServerFull, SessionLost
from remote_gym.ipc import close_reasons
from remote_gym.protocol.attempt import Attempt
from remote_gym.server import session_log
from remote_gym.server.access.authorizer import Authorizer
from remote_gym.server.access.clients import Client, Clients, Credentials
from remote_gym.server.access.policy import EVERYTHING_TO_EVERYBODY, Policy
from remote_gym.server.admission_queue import AdmissionQueue, stopping
from remote_gym.server.attachment import Attachment, Cut, OpenSession
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher, LaunchSpec
from remote_gym.server.launch_request import check_version, launch_message, restrict
from remote_gym.server.open_sessions import OpenSessions
from remote_gym.server.routing_ids import RoutingIds
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.status import SessionStatus
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
        clients: Knows who they are; None where nobody is asked.
        policy: Who may open what.
        direct: Where direct connections are accepted, routing id aside; None if nowhere.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        launcher: Launcher,
        default_args: Mapping[str, Any] | None,
        options: ServerOptions,
        *,
        clients: Clients | None = None,
        policy: Policy = EVERYTHING_TO_EVERYBODY,
        direct: pb.DirectAddress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launcher = launcher
        self._default_args = default_args
        self._options = options
        self._sessions = Sessions(max_sessions=options.max_sessions, lease=options.lease, clock=clock)
        self._clients = clients or Clients(None, options)
        self._authorizer = Authorizer(options, policy, clock)
        self._clock = clock
        self._drain_end = math.inf
        self._queue = AdmissionQueue(self._sessions, options.queue_timeout, clock)
        self.draining = False
        """Whether no more sessions are opened, since the server stops."""
        self._open = OpenSessions(self._sessions, RoutingIds(direct, clock), options, self._release)
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

    def identify(self, credentials: Credentials) -> Client:
        """Decide who a client is; the first that is done for it. Raises as `Clients.identify`."""
        return self._clients.identify(credentials)

    def check_rate(self, owner: str, *, take: bool = False) -> None:
        """See whether a client may open one more now, before anything of its request is read.

        Raises:
            ServerFull: As `Authorizer.check_rate` does.
        """
        try:
            self._authorizer.check_rate(owner, take=take)
        except ServerFull as error:
            session_log.refused(owner, error)
            raise

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
            session = self._open.find(session_id, token, owner)
            if session.worker.ending:
                # Whoever lost the direct connection to it asks at once, and is to hear the reason.
                await asyncio.shield(session.worker.gone)
                session = self._open.find(session_id, token, owner)
            direct = session.offer(self._open.address(session_id), attempt)
            return pb.SpacesResponse(description=session.description, direct=direct, lease=self._options.lease)
        except RemoteGymError as error:
            return pb.SpacesResponse(error=encode_error(error))

    async def ask(self, session_id: str, token: str, owner: str, data: bytes) -> bytes:
        """Answer one encoded request that came by itself."""
        try:
            session = self._open.find(session_id, token, owner)
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
        return self._open.find(session_id, token, owner).turn

    async def close_session(self, session_id: str, token: str, owner: str, attempt: Attempt | None = None) -> bytes:
        """End a session in whatever state it is, unless it `is_anothers`; answered when its environment is closed."""
        try:
            session = self._open.find(session_id, token, owner)
            if attempt is not None and session.is_anothers(attempt):
                raise close_reasons.taken_over(session_id)
        except RemoteGymError as error:
            return error_response(error)
        # The worker tells a direct connection by itself.
        self._open.dismiss(session, close_reasons.CLOSED)
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
        return Attachment(self._sessions, self._open.find(session_id, token, owner), cut, attempt)

    def hand_over(self, routing_id: bytes, sock: socket.socket) -> bool:
        """Give a direct connection to the worker of that routing id; False if there is none."""
        return self._open.hand_over(routing_id, sock)

    def workers(self) -> dict[str, WorkerHandle]:
        """Those of all open sessions, by the session's id."""
        return {session.entry.id: session.worker for session in self._open}

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
            for session in self._open
        )

    def expire(self) -> None:
        """Close sessions whose lease is over."""
        for entry in self._sessions.expired():
            session_log.deserted(entry, self._options.lease)
            self._open.end(self._open[entry.id], close_reasons.deserted(self._options.lease))

    def cut_off(self) -> None:
        """End the connections of owners whose tokens are gone. Their sessions live on for their leases."""
        self._clients.look()
        is_revoked = self._clients.is_revoked
        for session in self._open:
            owner = session.entry.owner
            if (session.direct or session.cut is not None) and is_revoked(owner):
                session_log.revoked(session.entry)
                session.cut_off(
                    NotPermitted(
                        f"session {session.entry.id}: {owner!r} is not let in any more", reason=DenialReason.IDENTITY
                    )
                )

    def set_policy(self, policy: Policy) -> None:
        """From now on let clients open what it says, and end the sessions of those whom it would not let open them."""
        self._authorizer.policy = policy
        for session in self._open:
            try:
                policy.decide(session.entry.owner, session.environment)
            except NotPermitted as error:
                reason = close_reasons.forbidden(error)
                session.cut_off(close_reasons.lost(session.entry.id, reason))
                self._open.end(session, reason)

    async def drain(self, grace: float) -> None:
        """Open no more sessions, begin no more episodes, and wait `grace` seconds for those that run to end.

        A session ends when its client asks for a new episode, or a moment after its episode is over.
        """
        self.draining = True
        self.end_drain(grace)
        self._queue.close()
        for session in self._open:
            if session.description is None:  # its client has nothing to lose yet, and may go elsewhere
                self._open.end(session, close_reasons.STOPPING)
            else:
                session.worker.drain()
        while self._open and self._clock() < self._drain_end:
            await asyncio.sleep(0.05)

    def end_drain(self, grace: float) -> None:
        """Let `drain` wait no longer than `grace` seconds from now."""
        self._drain_end = min(self._drain_end, self._clock() + grace)

    async def close(self) -> None:
        """Cut off every client and close every environment."""
        for session in self._open:
            self._open.dismiss(session, close_reasons.STOPPING)
        # Whoever waits for a worker that starts is to hear that the server stops, rather than be cut off.
        end = time.monotonic() + self._options.close_timeout
        while self.draining and self._opening and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await self._open.wait_closed()

    async def _open_session(self, request: worker_pb2.Opening, owner: str, attempt: Attempt | None) -> pb.OpenResponse:
        check_version(request)
        self._authorizer.admit(owner, request)
        try:
            message = launch_message(request, self._default_args, self._options)
            entry = await self._queue.admit(owner, request.num_envs or 1)
        except BaseException:
            self._authorizer.let_go(owner)
            raise
        message.session, message.env_id = entry.id, entry.env_id
        message.token, message.owner = entry.token, owner
        if (tls := self._clients.tls_of_worker(owner)) is not None:
            message.tls.CopyFrom(tls)
        self._sessions.enter(entry)
        try:
            worker = await self._launcher.launch(LaunchSpec(session=entry.id, interpreter=self._options.interpreter))
        except BaseException:
            self._sessions.end(entry, close_reasons.NOT_STARTED)
            self._release(entry)
            raise
        session = OpenSession(entry, worker, self._authorizer.environment(request), attempt=attempt)
        self._open.add(session)
        if self.draining:  # which began meanwhile
            self._open.end(session, close_reasons.STOPPING, close_timeout=0.0)
            raise stopping()
        try:
            # Again: it may have changed while the client waited for a place, and the worker started.
            restrict(message, self._authorizer.policy.decide(owner, session.environment).terms)
            answer = await session.ask_within(message.SerializeToString(), "creating the environment", self._options)
            launched = parse(worker_pb2.Launched, answer, self._options.message_limits)
        except BaseException as error:
            self._give_up(session, error)
            raise
        if launched.HasField("error"):
            self._open.end(
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
            self._open.end(session, close_reasons.STOPPING)
            raise stopping()
        if entry.id not in self._open:  # it was ended after the worker's answer
            raise self._sessions.explain(entry, SessionLost(f"session {entry.id}: it has ended"))
        self._sessions.leave(entry)
        session.description = launched.description
        self._open.watch(session)
        session_log.opened(entry)
        opened = pb.Session(
            id=entry.id, token=entry.token, lease=self._options.lease, description=launched.description, first=first
        )
        opened.identity = owner
        opened.environments.extend(self._authorizer.open_to(owner, has_default=self._default_args is not None))
        if (direct := session.offer(self._open.address(entry.id), attempt)) is not None:
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
        self._open.end(session, close_reasons.not_opened(error), close_timeout=0.0)
        if isinstance(error, SessionLost):
            if self.draining:
                raise stopping() from error
            if ended:
                raise self._sessions.explain(session.entry, error) from error

    def _release(self, entry: Session) -> None:
        """Let others have the place of a session whose environment is gone."""
        self._queue.release(entry)
        self._authorizer.let_go(entry.owner)
