"""The calls of dm_env_rpc's service on a gRPC server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm

from remote_gym.config import Limits
from remote_gym.errors import RemoteGymError
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.dm_env_rpc.conversation import Conversation, refusal
from remote_gym.server.frontends.dm_env_rpc.worlds import World, Worlds
from remote_gym.server.frontends.grpc_reading import Context
from remote_gym.wire.bounds import check_items
from remote_gym.wire.parse import parse

SERVICE_NAME = "dm_env_rpc.v1.Environment"
FIELDS = 2**16
"""Fields of a request, at most. Numbers of a tensor are one, packed as dm_env_rpc's own clients send them."""


class DmEnvRpcCalls:
    """Answers streams, each of which is a conversation.

    Args:
        bridge: Opens sessions.
        limits: Bounds on requests.
    """

    def __init__(self, bridge: Bridge, limits: Limits) -> None:
        self._bridge = bridge
        self._limits = limits
        self._worlds: dict[tuple[str, str], World] = {}
        self._ending: set[asyncio.Future[None]] = set()
        self.methods = {"Process": self._process}

    def refusal(self, error: RemoteGymError) -> Any:
        """Answer to a client that is not let in."""
        return refusal(error)

    def close(self) -> None:
        """Begin nothing more."""
        self._bridge.close()

    async def _process(self, context: Context, client: Client) -> None:
        """Answer one stream until it ends, or its client has to show its certificate again."""
        conversation = Conversation(Worlds(self._bridge, client, self._worlds))
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                if time.monotonic() >= client.answered_until:
                    return
                if len(data) > FIELDS:
                    check_items(dm.EnvironmentRequest, data, self._limits, FIELDS)
                request = parse(dm.EnvironmentRequest, data, self._limits)
                await context.write((await conversation.answer(request)).SerializeToString())
        finally:
            # Whatever ended it, a cancellation included, which would end a wait here, too.
            ending = asyncio.ensure_future(conversation.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
