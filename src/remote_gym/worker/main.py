"""Runs a worker: creates an environment, then serves a session with it, or several, one after the other."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from remote_gym.auth.argument_schema import check_arguments
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, TransportError
from remote_gym.ipc.control import WorkerEvent, send_record
from remote_gym.logs import get_logger
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.transport.framing import MessageSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error
from remote_gym.wire.parse import parse
from remote_gym.wire.values import decode_value
from remote_gym.worker.environment.entrypoint import Created, create_environment
from remote_gym.worker.environment.forked_children import ForkedChild, Serving, forked
from remote_gym.worker.environment.registered_ids import IdNeeded
from remote_gym.worker.environment.texts.waiting import new_poll
from remote_gym.worker.host import Host
from remote_gym.worker.loop import WorkerLoop
from remote_gym.worker.reuse import ReusableHost
from remote_gym.worker.surroundings import settle_process

logger = get_logger(__name__)

LAUNCH_LIMITS = Limits()


def run(
    requests: socket.socket,
    control: socket.socket,
    *,
    own_process: bool,
    page: memoryview | None = None,
    on_direct: Callable[[DirectSocket], None] = lambda _: None,
) -> None:
    """Serve on two connected sockets, which are closed at the end.

    Args:
        requests: The other end sends a `Launch`, then requests; where the environment is made ahead, or is kept when
            its session has ended, then another `Launch`.
        control: The other end sends direct connections.
        own_process: Whether the process is this worker's alone, so that its working directory may change.
        page: The page of counters that the server reads; None if nobody does.
        on_direct: Called with each direct connection that is taken.

    Raises:
        ForkedChild: In a child that the environment forked.
    """
    serving = Serving(requests, control)
    try:
        launch = _receive_launch(requests)
        if launch is not None:
            with forked.serving(serving):
                _Worker(serving, own_process=own_process, page=page, on_direct=on_direct).serve(launch)
    except TransportError:
        # The server is gone or cut us off; there is nobody left to tell.
        logger.debug("the server closed the connection")
    finally:
        for sock in (requests, control):
            # Closing alone would not end a connection while a process that the environment forked still holds it.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class _Worker:
    """Serves the sessions of one environment. The arguments are those of `run`."""

    def __init__(
        self,
        serving: Serving,
        *,
        own_process: bool,
        page: memoryview | None,
        on_direct: Callable[[DirectSocket], None],
    ) -> None:
        self._serving = serving
        self._own_process = own_process
        self._page = page
        self._on_direct = on_direct
        self._is_used = False  # whether a session has had the environment
        self._has_host = False  # whether there is one, which closes the environment

    def serve(self, launch: worker_pb2.Launch) -> None:
        """Create what is launched, and serve until nobody is to have it any more."""
        limits = Limits(**launch.limits)
        server = MessageSocket(self._serving.requests, limits)
        try:
            if self._own_process:
                settle_process(launch)
            created = create(launch, limits, own_process=self._own_process)
            host, launched = self._host_for(created, launch, limits)
        except ForkedChild:
            raise
        # User code runs here and may raise anything; whoever opened the session is told.
        except BaseException as error:  # noqa: BLE001
            forked.leave(error)
            server.send(_describe_failure(error, limits))
            return
        forked.leave()
        if self._own_process:
            # What creating it has left behind. Not to be frozen: what refers to itself would not be finalised at the
            # end.
            gc.collect()
        try:
            server.send(launched)
            while (launch.ahead or self._serve_session(host, server, launch, limits)) and (
                following := self._wait_for_launch(created)
            ):
                launch = following
                try:
                    decode_client_kwargs(launch, limits)  # under the terms of this client
                    host, launched = self._host_for(created, launch, limits)
                except Exception as error:  # noqa: BLE001 - whatever it is, whoever opened the session is told
                    server.send(_describe_failure(error, limits))
                    return
                server.send(launched)
        finally:
            host.close()

    def _host_for(self, created: Created, launch: worker_pb2.Launch, limits: Limits) -> tuple[Host, bytes]:
        """Make the host of a launch, and describe its environment, which is closed if that fails for the first one."""
        host: Host | None = None
        try:
            host = make_host(created, launch, limits, page=self._page, is_used=self._is_used)
            launched = _describe(host, limits)
        except ForkedChild:
            raise
        except BaseException:
            if not self._has_host:
                (created.environment if host is None else host).close()
            raise
        self._has_host = True
        return host, launched

    def _serve_session(self, host: Host, server: MessageSocket, launch: worker_pb2.Launch, limits: Limits) -> bool:
        """Serve a session to its end; return whether another one may have the environment."""
        loop = WorkerLoop(host, server, self._serving.control, launch, limits, self._on_direct)
        self._serving.clients = loop.clients
        try:
            loop.serve()
        finally:
            self._serving.clients = list
        if not loop.has_left:
            return False
        is_kept = isinstance(host, ReusableHost) and not host.is_spoilt
        self._is_used = True
        self._forget_session()
        with contextlib.suppress(OSError):  # the server may be gone, which is noticed next
            send_record(self._serving.control, WorkerEvent.LEFT, int(is_kept))
        return is_kept

    def _forget_session(self) -> None:
        """Leave nothing of the session outside of its own host: what was printed goes where the session's goes."""
        if self._page is not None:
            self._page[:] = memoryview(bytes(self._page.nbytes)).cast("Q")
        if self._own_process:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):  # the environment may have closed it
                    stream.flush()

    def _wait_for_launch(self, created: Created) -> worker_pb2.Launch | None:
        """Wait for another session; None where there will be none, or the environment's own process has ended."""
        requests = self._serving.requests
        poll = new_poll()
        poll.register(requests, select.POLLIN)
        if created.guest is not None:
            created.guest.forget_output()
            poll.register(created.guest.fileno(), select.POLLIN)
        if any(descriptor != requests.fileno() for descriptor, _ in poll.poll()):
            logger.warning("the environment's own process has ended, while no session had it")
            return None
        return _receive_launch(requests)


def _receive_launch(requests: socket.socket) -> worker_pb2.Launch | None:
    # Under limits of its own: which the session's are, it tells.
    data = MessageSocket(requests, LAUNCH_LIMITS).receive()
    return None if data is None else parse(worker_pb2.Launch, data)


def _describe(host: Host, limits: Limits) -> bytes:
    launched = worker_pb2.Launched(description=host.describe()).SerializeToString()
    if len(launched) > limits.message_bytes:
        raise ConfigError(
            f"the environment's description has {len(launched):,} bytes; Limits.message_bytes allows "
            f"{limits.message_bytes:,}"
        )
    return launched


def _describe_failure(error: BaseException, limits: Limits) -> bytes:
    failed = worker_pb2.Launched(error=encode_error(error, limits=limits))
    if isinstance(error, IdNeeded):
        failed.choice.MergeFrom(worker_pb2.IdChoice(examples=error.examples, fault=error.fault))
    return failed.SerializeToString()


def create(launch: worker_pb2.Launch, limits: Limits, *, own_process: bool) -> Created:
    """Create the environment of a launch, if its client may set what it does.

    Raises:
        RemoteGymError: If it may not, or the launch cannot work.
        BaseException: Whatever the environment's constructor raises.
    """
    own = _decode_kwargs(launch.entrypoint_kwargs, limits)
    clients = decode_client_kwargs(launch, limits)
    return create_environment(launch, own, clients, own_process=own_process)


def decode_client_kwargs(launch: worker_pb2.Launch, limits: Limits) -> dict[str, Any]:
    """Keyword arguments of a client, which may set them.

    Raises:
        NotPermitted: If it may not.
        EncodingError: If they are none.
    """
    clients = _decode_kwargs(parse(pb.Value, launch.client_kwargs, limits), limits)
    allowed = launch.allowed_arguments.names if launch.HasField("allowed_arguments") else None
    check_arguments(clients, allowed, launch.arguments_schema)
    return clients


def make_host(
    created: Created,
    launch: worker_pb2.Launch,
    limits: Limits,
    *,
    page: memoryview | None = None,
    is_used: bool = False,
) -> Host:
    """Make what answers a session's requests.

    Args:
        created: The environment.
        launch: The session's.
        limits: Bounds on messages.
        page: As `run` has it.
        is_used: Whether another session has had the environment.

    Raises:
        ConfigError: If what the client asks for cannot be had of this environment.
    """
    kind = ReusableHost if launch.keeps else Host
    host = kind(
        created.environment,
        exposed=created.exposed,
        made_by_id=created.made_by_id,
        send_frames=launch.frames == pb.FRAMES_STEP,
        check_actions=launch.check_actions,
        frame_encoding=launch.frame_encoding,
        observation_encoding=launch.observation_encoding,
        limits=limits,
        page=page,
    )
    if isinstance(host, ReusableHost):
        host.is_used = is_used
    return host


def _decode_kwargs(message: pb.Value, limits: Limits) -> dict[str, Any]:
    kwargs = decode_value(message, limits) if message.WhichOneof("kind") else {}
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigError(f"entrypoint_kwargs is {kwargs!r:.200}; use a dict with str keys")
    return kwargs
