"""Has connections cut whose clients take back calls as soon as they have made them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc._cython.cygrpc import ExecuteBatchError

from remote_gym.logs import get_logger
from remote_gym.server.frontends.grpc_reading import Context
from remote_gym.server.frontends.relay.peers import Peer, host_in, peer_of
from remote_gym.server.frontends.resets import SOON, Resets

logger = get_logger(__name__)


class CutResetting(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Counts the calls that end so, by any method, those that there are not included.

    Has to come before `ReadLate`, by which all handlers are of streams.

    Args:
        cut: Ends a relayed connection, by its number.
    """

    def __init__(self, cut: Callable[[int], None]) -> None:
        self._cut = cut
        self._resets = Resets(time.monotonic)

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Change a handler. Called by gRPC for each call."""
        handler = await continuation(details)
        answer = _refuse_unknown if handler is None else handler.stream_stream

        async def call(requests: Any, context: Context) -> None:
            # Asked at once: of a call that has been taken back gRPC does not say whose it was.
            peer, begun = peer_of(context), time.monotonic()
            try:
                await answer(requests, context)
            except (asyncio.CancelledError, grpc.aio.UsageError, ExecuteBatchError):  # while it ran, or as it wrote
                if time.monotonic() - begun < SOON:
                    self._note(peer)
                raise

        return grpc.stream_stream_rpc_method_handler(
            call,
            request_deserializer=None if handler is None else handler.request_deserializer,
            response_serializer=None if handler is None else handler.response_serializer,
        )

    def _note(self, peer: Peer) -> None:
        if peer.number is None or not self._resets.note(peer.number):
            return
        self._cut(peer.number)
        host = host_in(peer.address)
        logger.warning(
            "cut a connection from %s: it takes back calls as soon as it has made them, too many of them",
            host,
            repeats=host,
            event="connection_cut",
            peer=peer.address,
        )


async def _refuse_unknown(_: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
