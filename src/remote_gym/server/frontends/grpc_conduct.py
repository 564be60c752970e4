"""Has connections cut, and whole addresses shut out for a while, that keep the server busy with calls of no use.

HTTP/2 lets a client reset a stream at once and begin the next, which costs the server far more than the client ("rapid
reset", CVE-2023-44487), and anybody may make calls that are refused. What is relayed is encrypted from end to end, so
that what can be counted are calls. A connection costs a client nothing either, so each address is counted as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc._cython.cygrpc import ExecuteBatchError

from remote_gym.address import host_in, network_in
from remote_gym.logs import get_logger
from remote_gym.protocol.constants import SESSION_KEY
from remote_gym.server.frontends.budget import Budget
from remote_gym.server.frontends.grpc_reading import Context
from remote_gym.server.frontends.relay.peers import Peer, peer_of

logger = get_logger(__name__)

RESETS = (100.0, 20.0)
"""Calls that one connection may take back at once, such as many openings that Ctrl-C ends, and more each second."""
HOST_RESETS = (400.0, 40.0)
"""And all connections of one address together."""
IDLE = (1000.0, 100.0)
"""Calls of one connection that may be for no session at once, such as to open one, and more each second. Such a call is
counted as it begins: of those that are taken back in a flood, most have ended before they could be counted. One that
is refused counts once more."""
HOST_IDLE = (2000.0, 200.0)
"""And of all of one address: some hundred clients that wait there for room ask several times in the first second."""

SOON = 10.0
"""Seconds from a call's beginning within which its end by the client counts. Not fewer: a server that is flooded with
such calls takes seconds to notice that one of them has been taken back."""

_RESETS_WHY = "it takes back calls as soon as it has made them, too many of them"
_IDLE_WHY = "it makes too many calls that are for no session, or refused"


class Conduct:
    """Watches for clients of relayed connections that go beyond measure, and cuts them off.

    Args:
        cut: Ends a relayed connection, by its number; False if that has been asked for, or it has ended.
        shut_out: Takes no more connections of gRPC's of an address, by `network_in`, for a while.
        clock: Monotonic seconds.
    """

    def __init__(
        self, cut: Callable[[int], bool], shut_out: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cut = cut
        self._shut_out = shut_out
        self._resets = Budget(*RESETS, clock), Budget(*HOST_RESETS, clock)
        self._idle = Budget(*IDLE, clock), Budget(*HOST_IDLE, clock)

    def note_reset(self, peer: Peer) -> None:
        """Count a call that its client has taken back soon."""
        self._note(peer, *self._resets, _RESETS_WHY)

    def note_idle(self, peer: Peer) -> None:
        """Count a call that is for no session."""
        self._note(peer, *self._idle, _IDLE_WHY)

    def note_refusal(self, peer: Peer) -> None:
        """Count a call that was refused, or answered by an error of the server's."""
        self._note(peer, *self._idle, _IDLE_WHY)

    def _note(self, peer: Peer, by_connection: Budget, by_host: Budget, why: str) -> None:
        if peer.number is None:
            return
        is_over = by_connection.note(peer.number)
        network = network_in(peer.address)
        # All clients of a Unix socket have one address. Its folder says who they are.
        if network.startswith("ip") and by_host.note(network):
            self._shut_out(network)
            is_over = True
        if is_over and self._cut(peer.number):
            host = host_in(peer.address)
            logger.warning(
                "cut a connection from %s: %s", host, why, repeats=host, event="connection_cut", peer=peer.address
            )


class CutUnruly(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Counts the calls that are taken back or refused, of any method, those that there are not included.

    Has to come before `ReadLate`, by which all handlers are of streams.

    Args:
        conduct: Counts.
    """

    def __init__(self, conduct: Conduct) -> None:
        self._conduct = conduct

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Change a handler. Called by gRPC for each call."""
        handler = await continuation(details)
        answer = _refuse_unknown if handler is None else handler.stream_stream
        is_idle = not any(key == SESSION_KEY and value for key, value in details.invocation_metadata or ())

        async def call(requests: Any, context: Context) -> None:
            # Asked at once: of a call that has been taken back gRPC does not say whose it was.
            peer, begun = peer_of(context), time.monotonic()
            if is_idle:
                self._conduct.note_idle(peer)
            try:
                await answer(requests, context)
            except (asyncio.CancelledError, grpc.aio.UsageError, ExecuteBatchError):  # while it ran, or as it wrote
                if time.monotonic() - begun < SOON:
                    self._conduct.note_reset(peer)
                raise
            except grpc.aio.AbortError:
                self._conduct.note_refusal(peer)
                raise

        return grpc.stream_stream_rpc_method_handler(
            call,
            request_deserializer=None if handler is None else handler.request_deserializer,
            response_serializer=None if handler is None else handler.response_serializer,
        )


async def _refuse_unknown(_: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
