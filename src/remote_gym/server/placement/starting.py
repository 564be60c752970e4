"""Starts the worker of an environment whose place is known."""

from __future__ import annotations

from remote_gym.config import ServerOptions
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.interpreters import interpreter_for
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.placement.placement import Placed, launch_spec
from remote_gym.v1 import worker_pb2


async def start_worker(
    launcher: Launcher, message: worker_pb2.Launch, placed: Placed, options: ServerOptions
) -> WorkerHandle:
    """Start a worker, whose place is left when it has been closed, or at once where it does not start.

    Args:
        launcher: Starts it.
        message: What it will be told; where the Python that was named runs the worker itself, no more of a guest.
        placed: Its place.
        options: The server's.

    Raises:
        ConfigError: As `Launcher.launch` does.
        ServerFull: Likewise.
    """
    try:
        interpreter = await interpreter_for(message, options)
        worker = await launcher.launch(launch_spec(message, interpreter, placed))
    except BaseException:
        placed.release()
        raise
    worker.at_end = placed.leave
    return worker
