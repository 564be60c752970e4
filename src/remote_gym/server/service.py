"""Behaviour of a server, for every frontend. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
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
from remote_gym.server.admission_queue import AdmissionQueue
from remote_gym.server.attachment import Attachment, Cut
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.open_sessions import OpenSessions
from remote_gym.server.opening import Opening
from remote_gym.server.placement.placement import Placement
from remote_gym.server.routing_ids import RoutingIds
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.spares.spares import Spares
from remote_gym.server.status import SessionStatus
from remote_gym.transport.waiting import within
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error, error_response


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
        placement: Says where environments run.
        spares: Environments that no session has; None for some of its own.
        clock: Monotonic seconds.

    Attributes:
        default_id: Gymnasium id of what a client gets that names none; None where it has none.
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
        placement: Placement | None = None,
        spares: Spares | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self.default_id: str | None = ((default_args or {}).get("entrypoint_kwargs") or {}).get("id")
        self._placement = placement or Placement()
        self._spares = spares or Spares(launcher, default_args, options, self._placement, clock)
        self._sessions = Sessions(
            max_sessions=options.max_sessions, lease=options.lease, clock=clock, env_ids=self._spares.env_ids
        )
        self._clients = clients or Clients(None, options)
        self._authorizer = Authorizer(options, policy, clock)
        self._clock = clock
        self._drain_end = math.inf
        self._queue = AdmissionQueue(self._sessions, options.queue_timeout, clock)
        self._live = OpenSessions(self._sessions, RoutingIds(direct, clock), options, self._release, self._spares)
        self._opening = Opening(
            launcher,
            default_args,
            options,
            clients=self._clients,
            authorizer=self._authorizer,
            queue=self._queue,
            sessions=self._sessions,
            live=self._live,
            release=self._release,
            placement=self._placement,
            spares=self._spares,
        )
        self._spares.start(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def load(self) -> pb.LoadResponse:
        """How much room there is."""
        return pb.LoadResponse(
            open=self._sessions.places,
            capacity=self._options.max_sessions,
            waiting=self._sessions.waiting,
            draining=self._opening.stopping,
        )

    def identify(self, credentials: Credentials) -> Client:
        """Decide who a client is; the first that is done for it. Raises as `Clients.identify`."""
        return self._clients.identify(credentials)

    def check_rate(self, client: Client, *, take: bool = False) -> None:
        """See whether a client may open one more now, before anything of its request is read.

        Raises:
            ServerFull: As `Authorizer.check_rate` does.
        """
        try:
            self._authorizer.check_rate(client.identity, take=take)
        except ServerFull as error:
            session_log.refused(client.identity, error)
            raise

    async def open(
        self, request: worker_pb2.Opening, client: Client, attempt: Attempt | None = None
    ) -> pb.OpenResponse:
        """Create an environment for a client; failures come in the response."""
        try:
            return await self._opening.open(request, client, attempt)
        except RemoteGymError as error:
            if isinstance(error, (NotPermitted, ServerFull)):  # what the operator may want to change
                session_log.refused(client.identity, error)
            return pb.OpenResponse(error=encode_error(error))

    async def spaces(
        self, session_id: str, token: str, client: Client, attempt: Attempt | None = None
    ) -> pb.SpacesResponse:
        """Describe an open session's environment again."""
        try:
            session = self._live.find(session_id, token, client.identity)
            if session.worker.ending:
                # Whoever lost the direct connection to it asks at once, and is to hear the reason.
                await asyncio.shield(session.worker.gone)
                session = self._live.find(session_id, token, client.identity)
            direct = session.offer(self._live.address(session_id), attempt)
            return pb.SpacesResponse(description=session.description, direct=direct, lease=self._options.lease)
        except RemoteGymError as error:
            return pb.SpacesResponse(error=encode_error(error))

    async def ask(self, session_id: str, token: str, client: Client, data: bytes) -> bytes:
        """Answer one encoded request that came by itself."""
        try:
            session = self._live.find(session_id, token, client.identity)
        except RemoteGymError as error:
            return error_response(error)
        self._sessions.enter(session.entry)
        try:
            return await session.worker.ask(data)
        except SessionLost as error:
            return error_response(self._sessions.explain(session.entry, error))
        finally:
            self._sessions.leave(session.entry)

    def turn(self, session_id: str, token: str, client: Client) -> asyncio.Lock:
        """Lock that a single request holds from its arrival until its answer has been sent.

        So of the answers that a client does not read, the server keeps one for each of its sessions.

        Raises:
            SessionLost: If there is no such session.
            NotPermitted: If it is another's.
        """
        return self._live.find(session_id, token, client.identity).turn

    async def close_session(self, session_id: str, token: str, client: Client, attempt: Attempt | None = None) -> bytes:
        """End a session in whatever state it is, unless it `is_anothers`; answered when its environment is closed."""
        try:
            session = self._live.find(session_id, token, client.identity)
            if attempt is not None and session.is_anothers(attempt):
                raise close_reasons.taken_over(session_id)
        except RemoteGymError as error:
            return error_response(error)
        # The worker tells a direct connection by itself.
        self._live.dismiss(session, close_reasons.CLOSED, may_keep=True)
        await asyncio.shield(session.closing)
        return pb.Response(close=pb.CloseResponse()).SerializeToString()

    def attach(
        self, session_id: str, token: str, client: Client, cut: Cut, attempt: Attempt | None = None
    ) -> Attachment:
        """Bind a connection to a session, cutting off an older one.

        Args:
            session_id: The session's.
            token: Its secret.
            client: Who asks.
            cut: Called when a newer connection takes over, or the server stops.
            attempt: Which call it is, where the client tells.

        Raises:
            SessionLost: If there is no such session.
            NotPermitted: If it is another's.
            OutOfSequence: If a newer call of the same client's is attached.
        """
        return Attachment(self._sessions, self._live.find(session_id, token, client.identity), cut, attempt)

    def hand_over(self, routing_id: bytes, sock: socket.socket) -> bool:
        """Give a direct connection to the worker of that routing id; False if there is none."""
        return self._live.hand_over(routing_id, sock)

    def workers(self) -> dict[str, WorkerHandle]:
        """Workers of all open sessions, by the session's id."""
        return {session.entry.id: session.worker for session in self._live}

    def watched_workers(self) -> dict[str, WorkerHandle]:
        """Workers of all open sessions, and those whose environments no session has."""
        return {**self.workers(), **self._spares.workers()}

    @property
    def spare_count(self) -> int:
        """Environments that a session could have at once."""
        return self._spares.count

    def statuses(self) -> tuple[SessionStatus, ...]:
        """State of each open session."""
        return tuple(
            SessionStatus(
                id=session.entry.id,
                identity=session.entry.identity,
                num_envs=session.entry.num_envs,
                attached=session.entry.users > 0,
                direct=session.direct,
                pid=session.worker.pid,
                counters=session.worker.counters(),
            )
            for session in self._live
        )

    def expire(self) -> None:
        """Close sessions whose lease is over."""
        for entry in self._sessions.expired():
            session_log.deserted(entry, self._options.lease)
            self._live.end(self._live[entry.id], close_reasons.deserted(self._options.lease))

    def cut_off(self) -> None:
        """End the connections of identities whose tokens are gone. Their sessions live on for their leases."""
        self._clients.look()
        is_revoked = self._clients.is_revoked
        for session in self._live:
            identity = session.entry.identity
            if (session.direct or session.cut is not None) and is_revoked(identity):
                session_log.revoked(session.entry)
                session.cut_off(
                    NotPermitted(
                        f"session {session.entry.id}: {identity!r} is not let in any more", reason=DenialReason.IDENTITY
                    )
                )

    def set_policy(self, policy: Policy) -> None:
        """From now on let clients open what it says, and end the sessions of those whom it would not let open them."""
        self._authorizer.policy = policy
        for session in self._live:
            try:
                policy.decide(session.entry.identity, session.environment)
            except NotPermitted as error:
                reason = close_reasons.forbidden(error)
                session.cut_off(close_reasons.lost(session.entry.id, reason))
                self._live.end(session, reason)

        def may_open(identity: str, environment: str) -> bool:
            try:
                policy.decide(identity, environment)
            except NotPermitted:
                return False
            return True

        self._spares.revise(may_open)

    async def drain(self, grace: float) -> None:
        """Open no more sessions, begin no more episodes, and wait `grace` seconds for those that run to end.

        A session ends when its client asks for a new episode, or a moment after its episode is over.
        """
        self._opening.stopping = True
        self.end_drain(grace)
        self._queue.close()
        self._spares.end_all()
        for session in self._live:
            if session.description is None:  # its client has nothing to lose yet, and may go elsewhere
                self._live.end(session, close_reasons.STOPPING)
            else:
                session.worker.drain()
        while self._live and self._clock() < self._drain_end:
            await asyncio.sleep(0.05)

    def end_drain(self, grace: float) -> None:
        """Let `drain` wait no longer than `grace` seconds from now."""
        self._drain_end = min(self._drain_end, self._clock() + grace)

    async def close(self) -> None:
        """Cut off every client and close every environment."""
        for session in self._live:
            self._live.dismiss(session, close_reasons.STOPPING)
        # Whoever waits for a worker that starts is to hear that the server stops, rather than be cut off.
        if self._opening.stopping:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._options.close_timeout, self._opening.idle.wait())
        await self._live.wait_closed()
        await self._spares.close()

    def _release(self, entry: Session) -> None:
        """Let others have the place of a session whose environment is gone."""
        self._queue.release(entry)
        self._authorizer.let_go(entry.identity)
        self._placement.let_go(entry.environment)
        self._spares.look()
