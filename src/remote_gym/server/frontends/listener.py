"""Accepts all connections on the server's one port, and gives each to whom its first bytes are for.

A direct connection goes to the worker that its preamble names, gRPC's by the relay to gRPC's private socket, and HTTP/1
likewise to the HTTP frontend; where there is none, it is told so.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from remote_gym.address import host_in, network_in
from remote_gym.logs import get_logger
from remote_gym.server.frontends.sniffing import Kind, Sniffer
from remote_gym.transport.acceptor import Acceptor, answer_and_end
from remote_gym.transport.direct_socket import set_options, shut_down
from remote_gym.transport.waiting import within

if TYPE_CHECKING:
    from remote_gym.server.frontends.http.server import HttpServer  # which needs the extra "http"
    from remote_gym.server.frontends.relay.control import RelayControl  # which needs Linux

logger = get_logger(__name__)

FIRST_BYTES_TIMEOUT = 5.0
"""Seconds that a client has to send the bytes by which it is known what it wants."""

SHUT_OUT = 5.0
"""Seconds that no connection of gRPC's is taken of an address that has kept the server busy with calls of no use. Its
honest clients may be others behind the same router, so that it is short: their openings fail meanwhile."""

_NO_HTTP = b"remote_gym listens here, and serves gRPC and its own direct connections, not HTTP/1.\n"
_HTTP_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_NO_HTTP), _NO_HTTP)
)
_TLS_ANSWER = bytes((0x15, 3, 3, 0, 2, 2, 120))
"""A fatal alert: no_application_protocol (RFC 7301, 3.2)."""

_ANSWERS = {Kind.HTTP: _HTTP_ANSWER, Kind.HTTPS: _TLS_ANSWER}
_REFUSED = {
    Kind.HTTP: "it speaks HTTP/1, which is not served here",
    Kind.HTTPS: "its TLS does not offer HTTP/2 alone (ALPN h2), as gRPC's clients do",
    Kind.OTHER: "its first bytes are neither gRPC's nor a direct connection's",
    Kind.GRPC: "gRPC has a port of its own",
}

HandOver = Callable[[bytes, socket.socket], bool]
"""Gives a connection to the worker of that routing id; False if there is none."""


class Listener(Acceptor):
    """Listens on the server's port. Runs on the server's event loop. Who connects waits until `start`.

    Args:
        url: Host name or address, or ``unix:path``.
        port: TCP port; 0 for a free one.
        max_pending: As an `Acceptor` has it.
        max_connections: How many of gRPC's there may be; None for any number.

    Raises:
        ConfigError: If an address is taken, or not one of this machine's.
    """

    def __init__(self, url: str, port: int, *, max_pending: int = 256, max_connections: int | None = None) -> None:
        super().__init__(url, port, max_pending=max_pending, bound="ServerOptions.max_pending")
        self._max_connections = max_connections
        self._shut_out: dict[str, float] = {}  # until when, by their networks
        self._http: HttpServer | None = None

    def start(self, hand_over: HandOver, relay: RelayControl | None, http: HttpServer | None = None) -> None:
        """Let clients in.

        Args:
            hand_over: Gives away a direct connection.
            relay: Takes gRPC's connections; None where gRPC has a port of its own only.
            http: Answers HTTP/1; None where that is not served.
        """
        self._http = http
        self._hand_over = hand_over
        self._relay = relay
        self.accept()

    def shut_out(self, network: str) -> None:
        """Take no more connections of gRPC's of an address, as `network_in` has it, for `SHUT_OUT` seconds.

        Direct connections are taken all the same: who has a routing id is known.
        """
        now = asyncio.get_running_loop().time()
        is_news = self._shut_out.get(network, 0.0) <= now
        if is_news:
            self._shut_out = {other: until for other, until in self._shut_out.items() if until > now}
            logger.warning(
                "taking no connections by gRPC from %s for %.3g s: too many of its calls were of no use",
                network,
                SHUT_OUT,
                repeats=network,
                event="address_shut_out",
            )
        self._shut_out[network] = now + SHUT_OUT

    def _is_shut_out(self, peer: str) -> bool:
        return bool(self._shut_out) and self._shut_out.get(network_in(peer), 0.0) > asyncio.get_running_loop().time()

    async def _route(self, sock: socket.socket, peer: str) -> None:
        with sock:
            sock.setblocking(False)
            try:
                sniffer = await within(FIRST_BYTES_TIMEOUT, _read_first(sock))
            except (OSError, asyncio.TimeoutError):
                return
            data, kind = bytes(sniffer.data), sniffer.kind
            if kind is None:  # it has left
                return
            if sniffer.preamble is not None:
                self._give_to_worker(sock, sniffer.preamble.routing_id, peer)
            elif kind is Kind.GRPC and self._relay is not None:
                await self._give_to_grpc(sock, data, peer, self._relay)
            elif (http := self._http) is not None and kind is (Kind.HTTPS if http.is_tls else Kind.HTTP):
                await self._give_to_http(sock, data, peer, http)
            else:
                await self._refuse(sock, kind, peer)

    def _give_to_worker(self, sock: socket.socket, routing_id: bytes, peer: str) -> None:
        if self._hand_over(routing_id, sock):
            return
        shut_down(sock)
        host = host_in(peer)
        logger.info(
            "refused a direct connection from %s: its routing id is not good, or no longer",
            host,
            repeats=host,
            event="direct_connection_refused",
            peer=peer,
        )

    async def _give_to_grpc(self, sock: socket.socket, data: bytes, peer: str, relay: RelayControl) -> None:
        if self._is_shut_out(peer):  # which has been said
            return
        if self._max_connections is not None and len(relay) >= self._max_connections:
            what = f"{len(relay)} are open, as many as ServerOptions.max_connections allows"
            logger.warning("refused a gRPC connection from %s: %s", host_in(peer), what, repeats="", peer=peer)
            return
        set_options(sock)
        try:
            await relay.carry(sock, data, peer)
        except OSError as error:
            logger.error("cannot relay a connection to gRPC: %s", error, repeats="")

    async def _give_to_http(self, sock: socket.socket, data: bytes, peer: str, http: HttpServer) -> None:
        """Have HTTP answered by way of the relay: asyncio has no place for bytes that have been read already."""
        assert self._relay is not None
        if not http.has_room(peer):
            return
        set_options(sock)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                await self._relay.carry_to(theirs, sock, data)
            except BaseException as error:
                ours.close()
                if not isinstance(error, OSError):
                    raise
                logger.error("cannot relay a connection to HTTP: %s", error, repeats="")
                return
        ours.setblocking(False)
        http.serve(ours, peer)

    async def _refuse(self, sock: socket.socket, kind: Kind, peer: str) -> None:
        host = host_in(peer)
        logger.info(
            "refused a connection from %s: %s",
            host,
            _REFUSED[kind],
            repeats=host,
            event="connection_refused",
            peer=peer,
        )
        if (answer := _ANSWERS.get(kind)) is not None:
            await answer_and_end(sock, answer)
        shut_down(sock)


async def _read_first(sock: socket.socket) -> Sniffer:
    """Read what a client sends first, and decide what it is; of no kind if it leaves before that is known."""
    loop = asyncio.get_running_loop()
    sniffer = Sniffer()
    while sniffer.kind is None and (part := await loop.sock_recv(sock, sniffer.readable)):
        sniffer.feed(part)
    return sniffer
