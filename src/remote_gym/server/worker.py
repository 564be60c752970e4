"""What runs in a worker: create the environment, then answer requests until the other end is gone.

The same loop serves in a process of its own, which a launcher forks, and in a thread of the server. It cannot tell,
nor need, which way a request came: through the server, or over a connection that the server handed over.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import select
import socket
import time
from typing import Any

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, OutOfSequence, RemoteGymError, SessionLost, TransportError
from remote_gym.server.admission import admit
from remote_gym.server.entrypoint import create_environment
from remote_gym.server.handover import ToServer, ToWorker, hear, tell
from remote_gym.server.host import Host
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.direct import DirectSocket, yield_core
from remote_gym.wire.parse import parse
from remote_gym.wire.status import encode_error
from remote_gym.wire.stream import MessageSocket
from remote_gym.wire.values import decode_value

logger = logging.getLogger(__name__)

LAUNCH_LIMITS = Limits()

STALL_TIMEOUT = 30.0
"""Seconds that a message on a direct connection may take from its first byte to its last."""


def run(requests: socket.socket, handover: socket.socket, *, own_process: bool) -> None:
    """Serve one session on two connected sockets, which are closed at the end.

    Args:
        requests: The other end sends one `Launch`, then requests.
        handover: The other end sends direct connections.
        own_process: Whether the process is this worker's alone, so that its working directory may change.
    """
    try:
        # Under limits of its own: which the session's are, it tells.
        first = MessageSocket(requests, LAUNCH_LIMITS).receive()
        if first is not None:
            _serve(requests, handover, parse(worker_pb2.Launch, first), own_process=own_process)
    except TransportError:
        # The server is gone or cut us off; there is nobody left to tell.
        logger.debug("the server closed the connection")
    finally:
        for sock in (requests, handover):
            # Closing alone would not end a connection while a process that the environment forked still holds it.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def _serve(requests: socket.socket, handover: socket.socket, launch: worker_pb2.Launch, *, own_process: bool) -> None:
    limits = Limits(**launch.limits)
    server = MessageSocket(requests, limits)
    try:
        host = _create_host(launch, limits, own_process=own_process)
        launched = worker_pb2.Launched(description=host.describe()).SerializeToString()
        if len(launched) > limits.message_bytes:
            raise ConfigError(
                f"the environment's description has {len(launched):,} bytes; Limits.message_bytes allows "
                f"{limits.message_bytes:,}"
            )
    # User code runs here and may raise anything; whoever opened the session is told.
    except BaseException as error:  # noqa: BLE001
        server.send(worker_pb2.Launched(error=encode_error(error, limits=limits)).SerializeToString())
        return
    if own_process:
        # What exists now lives as long as the process; collections need not look at it again.
        gc.collect()
        gc.freeze()
    try:
        server.send(launched)
        Worker(host, server, handover, launch, limits).serve()
    finally:
        host.close()


def _create_host(launch: worker_pb2.Launch, limits: Limits, *, own_process: bool) -> Host:
    own, clients = _decode_kwargs(launch.entrypoint_kwargs, limits), _decode_kwargs(launch.client_kwargs, limits)
    environment, exposed = create_environment(launch, own, clients, change_directory=own_process)
    try:
        return Host(
            environment,
            exposed=exposed,
            send_frames=launch.frames == pb.FRAMES_STEP,
            check_actions=launch.check_actions,
            frame_encoding=launch.frame_encoding,
            observation_encoding=launch.observation_encoding,
            limits=limits,
        )
    except BaseException:
        environment.close()
        raise


def _decode_kwargs(message: pb.Value, limits: Limits) -> dict[str, Any]:
    kwargs = decode_value(message, limits) if message.WhichOneof("kind") else {}
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigError(f"entrypoint_kwargs is {kwargs!r:.200}; use a dict with str keys")
    return kwargs


class Worker:
    """The loop that waits for requests wherever they may come from.

    Args:
        host: What answers.
        server: Requests that came through the server.
        handover: Brings direct connections.
        launch: Whom to admit to them.
        limits: Bounds on messages.
    """

    def __init__(
        self, host: Host, server: MessageSocket, handover: socket.socket, launch: worker_pb2.Launch, limits: Limits
    ) -> None:
        self._host = host
        self._server = server
        self._handover = handover
        self._launch = launch
        self._limits = limits
        self._direct: DirectSocket | None = None
        self._poll_us = 0
        self._poll = select.poll()
        self._poll.register(server, select.POLLIN)
        self._poll.register(handover, select.POLLIN)

    def serve(self) -> None:
        """Answer until the environment is closed or the server is gone.

        Raises:
            TransportError: If the server went away within a message.
        """
        try:
            while not self._host.closed:
                for descriptor in self._wait():
                    if self._direct is not None and descriptor == self._direct.fileno():
                        self._answer_directly(self._direct)
                    elif descriptor == self._handover.fileno():
                        self._hear()
                    # Not whatever else it may be: a direct connection that has just been dropped was ready, too.
                    elif descriptor == self._server.fileno() and not self._answer_server():
                        reason = f"session {self._launch.session}: the server has ended it, or stopped"
                        self._say_farewell(SessionLost(reason), 1.0)
                        return
        finally:
            self._drop()

    def _say_farewell(self, error: RemoteGymError, seconds: float) -> None:
        """Tell the client why its next request will not be answered."""
        if self._direct is not None:
            farewell = pb.Response(error=encode_error(error)).SerializeToString()
            with contextlib.suppress(TransportError):
                self._direct.send(farewell, time.monotonic() + seconds)

    def _cut_off(self) -> None:
        """Drop a connection that a newer one has taken over from.

        Its client is told, and so does not take the session back: its next request would bear a number that the newer
        one may have used, and be answered by what that one asked. It is not waited for, since it may well be gone.
        """
        reason = f"session {self._launch.session}: a newer connection has taken it over"
        self._say_farewell(OutOfSequence(reason), 0.0)
        self._drop()

    def _wait(self) -> list[int]:
        """Descriptors of which something can be read."""
        if self._direct is not None:
            if self._direct.has_message_begun():
                return [self._direct.fileno()]
            # A client that steps at full speed comes back before this process could be sent to sleep and woken.
            end = time.perf_counter() + self._poll_us / 1e6
            while True:
                if events := self._poll.poll(0):
                    return [descriptor for descriptor, _ in events]
                if time.perf_counter() >= end:
                    break
                yield_core()
        return [descriptor for descriptor, _ in self._poll.poll()]

    def _answer_server(self) -> bool:
        data = self._server.receive()
        if data is not None:
            self._server.send(self._host.answer_in_parts(data))
        return data is not None

    def _answer_directly(self, direct: DirectSocket) -> None:
        try:
            data = direct.receive(time.monotonic() + STALL_TIMEOUT)
            if data is not None:
                direct.send(self._host.answer_in_parts(data), time.monotonic() + STALL_TIMEOUT)
                return
        except (TransportError, EncodingError) as error:
            logger.info("the direct connection ended: %s", error)
        self._drop()

    def _hear(self) -> None:
        try:
            heard = hear(self._handover)
        except OSError:  # the server closed it with something of ours unread
            heard = None
        if heard is None:
            self._poll.unregister(self._handover)
            return
        kind, value, descriptor = heard
        if kind == ToWorker.CUT:
            self._cut_off()
        elif kind == ToWorker.POLL:
            self._poll_us = value
        elif descriptor is not None:
            self._admit(socket.socket(fileno=descriptor), value)

    def _admit(self, sock: socket.socket, number: int) -> None:
        try:
            direct = admit(sock, self._launch, self._limits, self._poll_us)
        except (OSError, RemoteGymError) as error:
            # ConnectionError and ssl.SSLError are OSErrors. Whoever it was, the session goes on without.
            logger.warning("refused a direct connection: %s", error)
            return
        self._cut_off()
        self._direct = direct
        self._poll.register(direct, select.POLLIN)
        self._tell(ToServer.ATTACHED, number)

    def _drop(self) -> None:
        if self._direct is not None:
            self._poll.unregister(self._direct)
            self._direct.close()
            self._direct = None
            self._tell(ToServer.DETACHED)

    def _tell(self, event: ToServer, value: int = 0) -> None:
        with contextlib.suppress(OSError):  # the server may be gone, which the loop notices by itself
            tell(self._handover, event, value)
