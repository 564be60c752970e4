"""What runs in a worker: create the environment, then answer requests until the other end is gone.

The same loop serves in a process of its own, which a launcher forks, and in a thread of the server.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import socket

from remote_gym.config import Limits
from remote_gym.errors import TransportError
from remote_gym.server.entrypoint import create_environment
from remote_gym.server.host import Host
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.parse import parse
from remote_gym.wire.status import encode_error
from remote_gym.wire.stream import MessageSocket
from remote_gym.wire.values import decode_value

logger = logging.getLogger(__name__)


def run(sock: socket.socket, *, own_process: bool) -> None:
    """Serve one session on a connected socket, which is closed at the end.

    Args:
        sock: The other end sends one `Launch`, then requests.
        own_process: Whether the process is this worker's alone, so that its working directory may change.
    """
    try:
        first = MessageSocket(sock, Limits()).receive()
        if first is not None:
            _serve(sock, parse(worker_pb2.Launch, first), own_process=own_process)
    except TransportError:
        # The server is gone or cut us off; there is nobody left to tell.
        logger.debug("the server closed the connection")
    finally:
        # Closing alone would not end the connection while a process that the environment forked still holds it.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def _serve(sock: socket.socket, launch: worker_pb2.Launch, *, own_process: bool) -> None:
    limits = Limits(**launch.limits)
    connection = MessageSocket(sock, limits)
    try:
        host = _create_host(launch, limits, own_process=own_process)
        launched = worker_pb2.Launched(description=host.describe())
    # User code runs here and may raise anything; whoever opened the session is told.
    except BaseException as error:  # noqa: BLE001
        connection.send(worker_pb2.Launched(error=encode_error(error)).SerializeToString())
        return
    if own_process:
        # What exists now lives as long as the process; collections need not look at it again.
        gc.collect()
        gc.freeze()
    try:
        connection.send(launched.SerializeToString())
        while not host.closed and (data := connection.receive()) is not None:
            connection.send(host.answer(data))
    finally:
        host.close()


def _create_host(launch: worker_pb2.Launch, limits: Limits, *, own_process: bool) -> Host:
    kwargs = decode_value(launch.entrypoint_kwargs, limits) if launch.HasField("entrypoint_kwargs") else {}
    environment, exposed = create_environment(launch, kwargs, change_directory=own_process)
    try:
        return Host(
            environment,
            exposed=exposed,
            send_frames=launch.frames == pb.FRAMES_STEP,
            check_actions=launch.check_actions,
            limits=limits,
        )
    except BaseException:
        environment.close()
        raise
