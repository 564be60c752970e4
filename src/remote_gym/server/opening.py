"""The opening of a session: a place, a worker, its environment, and the first reset if the request brings it along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import SessionLost
from remote_gym.ipc import close_reasons
from remote_gym.protocol.attempt import Attempt
from remote_gym.server import session_log
from remote_gym.server.access.authorizer import Authorizer
from remote_gym.server.access.clients import Client, Clients
from remote_gym.server.admission_queue import AdmissionQueue, stopping
from remote_gym.server.attachment import OpenSession
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.launch_request import check_version, launch_message, offered_arguments, offered_name, restrict
from remote_gym.server.open_sessions import OpenSessions
from remote_gym.server.placement.placement import Placement
from remote_gym.server.placement.starting import start_worker
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.spares.spares import Spares
from remote_gym.server.spares.stock import Recipe
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.parse import parse


class Opening:
    """Opens sessions, each in the same steps. One that fails leaves nothing: no place, no worker, no count.

    Args:
        launcher: Starts workers.
        default_args: What a client gets that names no environment; None where it has to.
        options: The server's.
        clients: Knows who they are.
        authorizer: Decides what they may open.
        queue: Gives them places.
        sessions: The registry.
        live: The sessions that are open, to which it adds.
        release: Called with the entry of a session that got no worker.
        placement: Says where their environments run.
        spares: Environments that are there already.

    Attributes:
        stopping: Whether no more sessions are opened, since the server stops.
        idle: Set while none is being opened.
    """

    def __init__(
        self,
        launcher: Launcher,
        default_args: Mapping[str, Any] | None,
        options: ServerOptions,
        *,
        clients: Clients,
        authorizer: Authorizer,
        queue: AdmissionQueue,
        sessions: Sessions,
        live: OpenSessions,
        release: Callable[[Session], None],
        placement: Placement,
        spares: Spares,
    ) -> None:
        self._launcher = launcher
        self._default_args = default_args
        self._options = options
        self._clients = clients
        self._authorizer = authorizer
        self._queue = queue
        self._sessions = sessions
        self._live = live
        self._release = release
        self._placement = placement
        self._spares = spares
        self.stopping = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._count = 0

    async def open(self, request: worker_pb2.Opening, client: Client, attempt: Attempt | None) -> pb.OpenResponse:
        """Open a session.

        Returns:
            The session; or the error that the environment's constructor raised.

        Raises:
            RemoteGymError: Why it was not opened otherwise.
        """
        self._count += 1
        self.idle.clear()
        try:
            return await self._open(request, client, attempt)
        finally:
            self._count -= 1
            if not self._count:
                self.idle.set()

    async def _open(self, request: worker_pb2.Opening, client: Client, attempt: Attempt | None) -> pb.OpenResponse:
        check_version(request)
        entry, message = await self._admit(request, client)
        recipe = None if entry.environment is None else Recipe.of(entry.environment, request)
        session, answer = await self._take_or_launch(entry, request, message, attempt, recipe)
        try:
            if answer is None:
                # Again: it may have changed while the client waited for a place, and the worker started.
                self._restrict(entry, message, request)
                answer = await session.ask_within(
                    message.SerializeToString(), "creating the environment", self._options
                )
            launched = parse(worker_pb2.Launched, answer, self._options.message_limits)
            if launched.HasField("error"):
                return await self._refuse(session, launched)
            first = b""
            if request.HasField("first"):
                first = await session.ask_within(request.first, "the first reset", self._options)
        except BaseException as error:
            self._give_up(session, error)
            raise
        if self.stopping:
            self._live.end(session, close_reasons.STOPPING)
            raise stopping()
        if entry.id not in self._live:  # it was ended after the worker's answer
            raise self._sessions.explain(entry, SessionLost(f"session {entry.id}: it has ended"))
        self._sessions.leave(entry)
        session.description = launched.description
        self._live.watch(session)
        session_log.opened(entry)
        if recipe is not None:
            self._spares.opened(recipe, entry.identity)
        return pb.OpenResponse(session=self._describe(session, client, attempt, first))

    async def _admit(self, request: worker_pb2.Opening, client: Client) -> tuple[Session, worker_pb2.Launch]:
        """Give the client a place, and write what its worker is to be told."""
        self._authorizer.admit(client.identity, request)
        try:
            message = launch_message(request, self._default_args, self._options)
            name = offered_name(request, self._options)
            self._placement.admit(name, offered_arguments(request, self._default_args, self._options))
            try:
                entry = await self._queue.admit(client.identity, request.num_envs or 1)
            except BaseException:
                self._placement.let_go(name)
                raise
        except BaseException:
            self._authorizer.let_go(client.identity)
            raise
        entry.environment = name
        message.session, message.env_id = entry.id, entry.env_id
        message.token, message.identity = entry.token, client.identity
        message.keeps = self._spares.keeps(name, client.identity)
        if (tls := self._clients.tls_of_worker(client.identity)) is not None:
            message.tls.CopyFrom(tls)
        self._sessions.enter(entry)
        return entry, message

    async def _take_or_launch(
        self,
        entry: Session,
        request: worker_pb2.Opening,
        message: worker_pb2.Launch,
        attempt: Attempt | None,
        recipe: Recipe | None,
    ) -> tuple[OpenSession, bytes | None]:
        """Take an environment that is there already, or start a worker for one.

        Returns:
            The session; and what a worker with an environment has answered, None of one that has yet to create its own.
        """
        answer: bytes | None = None
        try:
            given = None
            if recipe is not None:
                terms = worker_pb2.Launch()
                terms.CopyFrom(message)
                self._restrict(entry, terms, request)
                given = await self._spares.give(recipe, entry, terms)
            if given is not None:
                worker, answer = given
            else:
                worker = await self._launch(entry, request, message)
        except BaseException:
            self._sessions.end(entry, close_reasons.NOT_STARTED)
            self._release(entry)
            raise
        environment = self._authorizer.environment(request)
        session = OpenSession(entry, worker, environment, attempt=attempt, recipe=recipe)
        self._live.add(session)
        if self.stopping:  # which began meanwhile
            self._live.end(session, close_reasons.STOPPING, close_timeout=0.0)
            raise stopping()
        return session, answer

    async def _launch(self, entry: Session, request: worker_pb2.Opening, message: worker_pb2.Launch) -> WorkerHandle:
        """Start its worker."""
        message.env_id = entry.env_id
        await self._spares.make_room(entry.environment)
        arguments = offered_arguments(request, self._default_args, self._options)
        placed = await self._placement.place(message, arguments)
        return await start_worker(self._launcher, message, placed, self._options)

    def _restrict(self, entry: Session, message: worker_pb2.Launch, request: worker_pb2.Opening) -> None:
        """Write on which terms the policy of this moment lets the client open it.

        Raises:
            NotPermitted: If it does not.
        """
        environment = self._authorizer.environment(request)
        restrict(message, self._authorizer.policy.decide(entry.identity, environment).terms)

    async def _refuse(self, session: OpenSession, launched: worker_pb2.Launched) -> pb.OpenResponse:
        """Answer by what the environment's constructor raised, once its worker is gone."""
        error = launched.error
        self._live.end(session, close_reasons.not_created(error.message), details=error.remote_traceback)
        await asyncio.shield(session.closing)
        return pb.OpenResponse(error=error)

    def _describe(self, session: OpenSession, client: Client, attempt: Attempt | None, first: bytes) -> pb.Session:
        entry, lease = session.entry, self._options.lease
        opened = pb.Session(id=entry.id, token=entry.token, lease=lease, description=session.description, first=first)
        opened.identity = client.identity
        has_default = self._default_args is not None
        opened.environments.extend(self._authorizer.open_to(client.identity, has_default=has_default))
        if (direct := session.offer(self._live.address(entry.id), attempt)) is not None:
            opened.direct.CopyFrom(direct)
        return opened

    def _give_up(self, session: OpenSession, error: BaseException) -> None:
        """End a session that did not open.

        Raises:
            ServerFull: If that is because the server stops.
            SessionLost: With the reason, if it was ended meanwhile.
        """
        ended = session.entry.id not in self._live
        # Nobody waits for it any more, so there is nothing to close but what its constructor holds.
        self._live.end(session, close_reasons.not_opened(error), close_timeout=0.0)
        if isinstance(error, SessionLost):
            if self.stopping:
                raise stopping() from error
            if ended:
                raise self._sessions.explain(session.entry, error) from error
