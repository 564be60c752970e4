"""Makes one environment that no session has yet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, SessionLost
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.launch_request import launch_message, offered_arguments
from remote_gym.server.placement.placement import Placed, Placement
from remote_gym.server.placement.starting import start_worker
from remote_gym.server.spares.stock import Recipe
from remote_gym.transport.waiting import within
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import decode_error
from remote_gym.wire.parse import parse

_ASKS_THE_CLIENT = re.compile(r"missing (a|\d+) required( positional| keyword-only)? arguments?:")
"""Python's message about a call without a required argument."""


class ClientHasToSayError(ConfigError):
    """An environment cannot be made before a client has said more of it than its name."""


def asks_the_client(error: Exception) -> bool:
    """Whether it says that a keyword argument is missing, which a client may give."""
    return _ASKS_THE_CLIENT.search(str(error)) is not None


class Maker:
    """Makes environments as a session's opening does.

    Args:
        launcher: Starts workers.
        default_args: What clients get that name no environment; None where they have to.
        options: The server's.
        placement: Says where they run.
    """

    def __init__(
        self,
        launcher: Launcher,
        default_args: Mapping[str, Any] | None,
        options: ServerOptions,
        placement: Placement,
    ) -> None:
        self._launcher = launcher
        self._default_args = default_args
        self._options = options
        self._placement = placement

    async def make(self, name: str, recipe: Recipe, env_id: int) -> WorkerHandle:
        """Make one. Cancelled, it leaves nothing.

        Args:
            name: For messages.
            recipe: From what.
            env_id: The first of its numbers.

        Returns:
            Its worker, which waits for a session.

        Raises:
            ClientHasToSayError: If more has to be said of it.
            SessionLost: If its worker ends, or takes longer than an opening may.
            RemoteGymError: If it cannot be made otherwise.
        """
        options, request = self._options, recipe.request()
        message = launch_message(request, self._default_args, options)
        message.session, message.env_id, message.ahead = name, env_id, True
        arguments = offered_arguments(request, self._default_args, options)
        placed = await self._placement.place(message, arguments)
        worker, launched = await create_alone(self._launcher, message, placed, options)
        if launched.HasField("error"):
            await _close(worker, options.close_timeout)
            error = decode_error(launched.error)
            if launched.HasField("choice") or asks_the_client(error):
                raise ClientHasToSayError(str(error)) from error
            raise error
        return worker


async def create_alone(
    launcher: Launcher, message: worker_pb2.Launch, placed: Placed, options: ServerOptions
) -> tuple[WorkerHandle, worker_pb2.Launched]:
    """Start a worker, and have it create an environment without a session. Cancelled, or failed, it leaves nothing.

    Args:
        launcher: Starts it.
        message: What it is told.
        placed: Its place.
        options: The server's.

    Returns:
        The worker, for the caller to close, and what it has answered, which may be an error.

    Raises:
        ConfigError: As `start_worker` does.
        ServerFull: Likewise.
        SessionLost: If its worker ends, or takes longer than an opening may.
    """
    worker = await start_worker(launcher, message, placed, options)
    try:
        answer = await within(options.open_timeout, worker.ask(message.SerializeToString()))
        return worker, parse(worker_pb2.Launched, answer, options.message_limits)
    except asyncio.CancelledError:  # it is in somebody's way, or the server stops
        await _close(worker, 0.0, quietly=True)
        raise
    except asyncio.TimeoutError:
        await _close(worker, 0.0)
        raise SessionLost(
            f"creating it took over {options.open_timeout:g} s; raise ServerOptions.open_timeout"
        ) from None
    except BaseException:  # after which it ends by itself
        await _close(worker, options.close_timeout)
        raise


async def _close(worker: WorkerHandle, timeout: float, *, quietly: bool = False) -> None:
    """Close a worker to the end, also where that is cancelled: it might not be killed, nor its place be left."""
    closing = asyncio.ensure_future(worker.close(timeout, quietly=quietly))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await asyncio.wait([closing])
        raise
