"""Sessions for clients whose protocols have none of ours: opened through the service as any others are."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from remote_gym.config import ClientOptions, ServerOptions
from remote_gym.protocol.open_request import open_request
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import decode_error

SMALL = 8192
"""Bytes up to which a message is read and written on the event loop, in some 0.1 ms; a thread costs as much."""

T = TypeVar("T")


class Workshop:
    """Decodes and encodes beside the event loop, in a few threads, so that what is large keeps nobody waiting."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "remote_gym-bridge")

    async def run(self, size: int, function: Callable[[], T]) -> T:
        """Call a function.

        Args:
            size: Bytes that it reads, or writes; little is done at once.
            function: Without arguments.
        """
        if size <= SMALL:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Bridge:
    """Opens sessions for clients, and keeps them for these to come back to. Runs on the server's event loop.

    Args:
        service: The server's.
        options: The server's.

    Attributes:
        default_id: Id of the environment that the server offers by default; None where that has none.
    """

    def __init__(self, service: Service, options: ServerOptions) -> None:
        self.options = options
        self.workshop = Workshop()
        self.default_id = service.default_id
        self._service = service
        self._kept: dict[tuple[str, str], Hosted] = {}
        self._looked = 0.0

    async def open(
        self,
        client: Client,
        arguments: Mapping[str, Any],
        first: pb.Request | None = None,
        *,
        render_mode: str | None = None,
        num_envs: int = 0,
    ) -> Hosted:
        """Open a session, and reset it if there is a first request.

        Args:
            client: Whose it will be.
            arguments: As `RemoteArgs`.
            first: A reset; its answer is `Hosted.first`.
            render_mode: The environment's.
            num_envs: How many environments step together, as a vector; 0 for a single one.

        Raises:
            RemoteGymError: Why it was not opened.
        """
        self._service.check_rate(client)
        request = open_request(arguments, ClientOptions(), render_mode=render_mode, streams_frames=False)
        request.num_envs = num_envs
        if first is not None:
            first.sequence = 1
            request.first.CopyFrom(first)
        opening = worker_pb2.Opening.FromString(request.SerializeToString())
        response = await self._service.open(opening, client)
        if response.HasField("error"):
            raise decode_error(response.error)
        make = functools.partial(Hosted, self._service, client, response.session, self.options, self.workshop)
        return await self.workshop.run(SMALL + 1, make)  # which compiles its spaces

    def keep(self, identity: str, key: str, hosted: Hosted) -> None:
        """Let a client find its session again.

        Args:
            identity: The client's.
            key: A secret, or what is good within the identity.
            hosted: The session.
        """
        self._forget_lost()
        self._kept[identity, key] = hosted

    def kept(self, identity: str, key: str) -> Hosted | None:
        """The session that a client comes back to; None if there is none, or no longer."""
        hosted = self._kept.get((identity, key))
        if hosted is not None and hosted.is_lost:
            del self._kept[identity, key]
            return None
        return hosted

    def open_sessions(self) -> Collection[str]:
        """Ids of all sessions that are open."""
        return self._service.workers().keys()

    def close(self) -> None:
        """Let go of all."""
        self.workshop.close()

    def _forget_lost(self) -> None:
        """Now and then: those whose leases are over have not said so."""
        if time.monotonic() - self._looked < 1.0:
            return
        self._looked = time.monotonic()
        there = self._service.workers().keys()
        self._kept = {key: hosted for key, hosted in self._kept.items() if hosted.id in there}
