"""What a server does when it is asked, whatever carried the question. Knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import OutOfSequence, ProtocolMismatch, RemoteGymError, ServerFull, SessionLost
from remote_gym.protocol import PROTOCOL_VERSION, package_versions
from remote_gym.server.arguments import launch_message
from remote_gym.server.direct import new_routing_id
from remote_gym.server.link import Worker
from remote_gym.server.sessions import Session, Sessions
from remote_gym.server.workers import Launch
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.direct import core_count
from remote_gym.wire.parse import parse
from remote_gym.wire.status import encode_error

logger = logging.getLogger(__name__)


Cut = Callable[[RemoteGymError], object]
"""Ends an attachment from the server's side."""


@dataclass(eq=False)
class _Open:
    """An open session with what serves it."""

    session: Session
    worker: Worker
    description: pb.Description | None = None
    routing_id: bytes = field(default_factory=new_routing_id)
    direct: bool = False  # whether a client is attached to the worker itself
    cut: Cut | None = None  # ends the attachment that stands
    closing: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def cut_off(self, reason: RemoteGymError) -> None:
        """End whatever is attached, over gRPC or directly."""
        self.cut_grpc(reason)
        self.worker.cut_direct()

    def cut_grpc(self, reason: RemoteGymError) -> None:
        """End what is attached over gRPC, and tell it why."""
        if self.cut is not None:
            self.cut(reason)
            self.cut = None


class Service:
    """Sessions and the workers behind them.

    All methods run on one event loop.

    Args:
        launch: Starts a worker.
        default_args: What a client gets that names no environment; None where it has to.
        options: The server's.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        launch: Launch,
        default_args: Mapping[str, Any] | None,
        options: ServerOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launch = launch
        self._default_args = default_args
        self._options = options
        self._sessions = Sessions(max_sessions=options.max_sessions, lease=options.lease, clock=clock)
        self._clock = clock
        self._draining = False
        self._open: dict[str, _Open] = {}
        self._by_routing_id: dict[bytes, _Open] = {}
        self.direct: pb.DirectAddress | None = None
        """Where direct connections are accepted, routing id aside; None if nowhere."""
        self.tls: worker_pb2.TlsPaths | None = None
        """The server's files, for workers to use on direct connections."""
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, request: pb.OpenRequest, owner: str) -> pb.OpenResponse:
        """Create an environment for a client; failures come in the response."""
        try:
            return await self._open_session(request, owner)
        except RemoteGymError as error:
            return pb.OpenResponse(error=encode_error(error))

    async def spaces(self, session_id: str, token: str, owner: str) -> pb.SpacesResponse:
        """What `open` told about the environment, again."""
        try:
            found = self._find(session_id, token, owner)
            if found.worker.ending:
                # Whoever lost the direct connection to it asks at once, and is to hear the reason.
                await asyncio.shield(found.worker.gone)
                found = self._find(session_id, token, owner)
            return pb.SpacesResponse(description=found.description)
        except RemoteGymError as error:
            return pb.SpacesResponse(error=encode_error(error))

    async def ask(self, session_id: str, token: str, owner: str, data: bytes) -> bytes:
        """Answer one encoded request that came by itself."""
        try:
            found = self._find(session_id, token, owner)
        except RemoteGymError as error:
            return error_response(error)
        self._sessions.enter(found.session)
        try:
            return await found.worker.ask(data)
        except SessionLost as error:
            return error_response(error)
        finally:
            self._sessions.leave(found.session)

    async def close_session(self, session_id: str, token: str, owner: str) -> bytes:
        """End a session in whatever state it is; answered when its environment is closed."""
        try:
            found = self._find(session_id, token, owner)
        except RemoteGymError as error:
            return error_response(error)
        # The worker tells a direct connection by itself.
        found.cut_grpc(SessionLost(f"session {session_id}: its client closed it"))
        self._end(found, "its client closed it")
        await asyncio.shield(found.closing)
        return pb.Response(close=pb.CloseResponse()).SerializeToString()

    def attach(self, session_id: str, token: str, owner: str, cut: Cut) -> Attachment:
        """Bind a connection to a session, cutting off an older one.

        Args:
            session_id: The session's.
            token: Its secret.
            owner: Identity of the client that asks.
            cut: Called when a newer connection takes over, or the server stops.

        Raises:
            SessionLost: If there is no such session.
            NotPermitted: If it is another's.
        """
        return Attachment(self._sessions, self._find(session_id, token, owner), cut)

    def hand_over(self, routing_id: bytes, sock: socket.socket) -> bool:
        """Give a direct connection to the worker of that routing id; False if there is none."""
        found = self._by_routing_id.get(routing_id)
        if found is None:
            return False
        others = sum(other.direct for other in self._open.values() if other is not found)
        found.worker.set_polling(self._poll_us(others + 1))
        return found.worker.hand_over(sock)

    def expire(self) -> None:
        """Close sessions whose lease is over."""
        for session in self._sessions.expired():
            logger.info("session %s: nobody came back within %.0f s; closing it", session.id, self._options.lease)
            reason = f"nobody was attached for its lease of {self._options.lease:g} s"
            self._end(self._open[session.id], reason)

    async def drain(self, grace: float) -> None:
        """Open no more sessions, and wait `grace` seconds for those there are to end."""
        self._draining = True
        deadline = self._clock() + grace
        while self._open and self._clock() < deadline:
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Cut off every client and close every environment."""
        for found in list(self._open.values()):
            found.cut_grpc(SessionLost(f"session {found.session.id}: the server is stopping"))
            self._end(found, "the server is stopping")
        while self._closing:
            await asyncio.gather(*self._closing)

    async def _open_session(self, request: pb.OpenRequest, owner: str) -> pb.OpenResponse:
        _check_version(request)
        if self._draining:
            raise ServerFull("the server is stopping, and opens no more sessions")
        message = launch_message(request, self._default_args, self._options)
        session = self._sessions.open(owner, request.num_envs or 1)
        message.session, message.env_id = session.id, session.env_id
        message.token, message.owner = session.token, owner
        if self.tls is not None:
            message.tls.CopyFrom(self.tls)
        self._sessions.enter(session)
        try:
            worker = await self._launch(session.id)
        except BaseException:
            self._sessions.end(session, "its worker did not start")
            self._sessions.release(session)
            raise
        found = self._open[session.id] = _Open(session, worker)
        try:
            launched = await self._describe(worker, message)
        except BaseException as error:
            # Nobody waits for it any more, so there is nothing to close but what its constructor holds.
            self._end(found, f"it did not open: {error!r}", close_timeout=0.0)
            raise
        if launched.HasField("error"):
            self._end(found, f"its environment could not be created: {launched.error.message:.300}")
            await asyncio.shield(found.closing)
            return pb.OpenResponse(error=launched.error)
        first = b""
        if request.HasField("first"):
            try:
                first = await self._ask_first(worker, request.first)
            except BaseException as error:
                self._end(found, f"it did not open: {error!r}", close_timeout=0.0)
                raise
        self._sessions.leave(session)
        found.description = launched.description
        worker.gone.add_done_callback(lambda gone: self._end(found, gone.result()))
        worker.on_direct = functools.partial(self._on_direct, found)
        logger.info("session %s opened for %s", session.id, owner or "an anonymous client")
        opened = pb.Session(
            id=session.id, token=session.token, lease=self._options.lease, description=launched.description, first=first
        )
        if self.direct is not None:
            self._by_routing_id[found.routing_id] = found
            opened.direct.CopyFrom(self.direct)
            opened.direct.routing_id = found.routing_id
        return pb.OpenResponse(session=opened)

    async def _ask_first(self, worker: Worker, request: pb.Request) -> bytes:
        timeout = self._options.open_timeout
        try:
            return await asyncio.wait_for(worker.ask(request.SerializeToString()), timeout)
        except asyncio.TimeoutError:
            raise SessionLost(f"the first reset took over {timeout:g} s; raise ServerOptions.open_timeout") from None

    async def _describe(self, worker: Worker, message: worker_pb2.Launch) -> worker_pb2.Launched:
        timeout = self._options.open_timeout
        try:
            answer = await asyncio.wait_for(worker.ask(message.SerializeToString()), timeout)
        except asyncio.TimeoutError:
            raise SessionLost(
                f"creating the environment took over {timeout:g} s; raise ServerOptions.open_timeout"
            ) from None
        return parse(worker_pb2.Launched, answer)

    def _on_direct(self, found: _Open, attached: bool) -> None:
        """A client has attached to the worker itself, or has left it."""
        if attached == found.direct:
            return
        found.direct = attached
        if attached:
            found.cut_grpc(_taken_over(found.session))
            self._sessions.attach(found.session)
        else:
            self._sessions.leave(found.session)
        polling = [other for other in self._open.values() if other.direct]
        for other in polling:
            other.worker.set_polling(self._poll_us(len(polling)))

    def _poll_us(self, workers: int) -> int:
        """How long workers may poll if so many do: not at all, unless each has a core, and the client another."""
        return self._options.poll_us if workers < core_count() else 0

    def _find(self, session_id: str, token: str, owner: str) -> _Open:
        session = self._sessions.find(session_id, token, owner)
        found = self._open[session.id]
        if found.description is None:
            raise SessionLost(f"session {session.id}: it is still opening")
        return found

    def _end(self, found: _Open, reason: str, close_timeout: float | None = None) -> None:
        """End a session now; its worker closes in the background."""
        if self._sessions.end(found.session, reason):
            del self._open[found.session.id]
            self._by_routing_id.pop(found.routing_id, None)
            logger.info("session %s ended: %s", found.session.id, reason)
            timeout = self._options.close_timeout if close_timeout is None else close_timeout
            task = asyncio.ensure_future(self._close_worker(found, timeout))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close_worker(self, found: _Open, timeout: float) -> None:
        await found.worker.close(timeout)
        if found.worker.exited.done():
            self._sessions.release(found.session)
        else:  # a thread that hangs cannot be killed, and keeps its place for as long as it does
            found.worker.exited.add_done_callback(lambda _: self._sessions.release(found.session))
        found.closing.set_result(None)


class Attachment:
    """A connection bound to a session, until a newer one takes over."""

    def __init__(self, sessions: Sessions, found: _Open, cut: Cut) -> None:
        found.cut_off(_taken_over(found.session))
        found.cut = self._cut = cut
        self._found = found
        self._sessions = sessions
        self._epoch = sessions.attach(found.session)

    async def ask(self, data: bytes) -> bytes:
        """Answer one encoded request; failures come in the response."""
        try:
            self._sessions.check_epoch(self._found.session, self._epoch)
            return await self._found.worker.ask(data)
        except RemoteGymError as error:
            return error_response(error)

    def detach(self) -> None:
        """Let go of the session, which lives on for its lease. Call once."""
        if self._found.cut is self._cut:
            self._found.cut = None
        self._sessions.leave(self._found.session)


def _taken_over(session: Session) -> OutOfSequence:
    return OutOfSequence(f"session {session.id}: a newer connection has taken it over")


def error_response(error: RemoteGymError) -> bytes:
    """An encoded response about the session as a whole."""
    return pb.Response(error=encode_error(error)).SerializeToString()


def _check_version(request: pb.OpenRequest) -> None:
    if request.protocol_version != PROTOCOL_VERSION:
        raise ProtocolMismatch(
            f"the client speaks version {request.protocol_version} of the protocol ({dict(request.versions)}), "
            f"the server version {PROTOCOL_VERSION} ({package_versions()}); install the same release at both ends"
        )
