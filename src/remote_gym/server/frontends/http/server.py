"""The HTTP frontend: takes connections, from the server's one port and from one of its own, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from typing import Any

import uvicorn

from remote_gym.address import address_of_socket, host_in, is_unix
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.http.app import build
from remote_gym.server.frontends.http.connection import Connection, HttpProtocol, WebSocketProtocol, state_of
from remote_gym.server.frontends.http.names import Names
from remote_gym.server.frontends.http.protocols.vagen import call_limits
from remote_gym.server.frontends.http.reading import BODY_BYTES
from remote_gym.server.service import Service
from remote_gym.tls import Reloaded, file_paths, server_context
from remote_gym.transport.binding import local_addresses

logger = get_logger(__name__)

MOST_CONNECTIONS = 4096
"""Connections at once, where `ServerOptions.max_connections` does not say; half of them of one address."""

HANDSHAKE_TIMEOUT = 10.0
PING_EVERY, PONG_TIMEOUT = 20.0, 20.0
"""Seconds between two pings of a WebSocket, and until one has to be answered."""

KEEP_ALIVE = 15.0
"""Seconds that a connection is kept for the client's next request; our own clients' are on WebSockets."""

FLUSH = 2.0
"""Seconds that answers have to leave once the server stops."""

_LOOK_EVERY = 1.0
_PAUSE = 0.1


class HttpServer:
    """Answers HTTP/1.1 and WebSockets. Runs on the server's event loop.

    Args:
        files: The server's certificates; None for plaintext.
        options: The server's.
        url: Name or address that it listens on.
    """

    def __init__(self, files: TlsFiles | None, options: ServerOptions, url: str) -> None:
        call_limits()  # refuses what is no number before anything is opened
        self._options = options
        self._url = url
        self._names = Names(files, options, url)
        self._context: Reloaded[ssl.SSLContext] | None = None
        if files is not None:
            self._context = Reloaded(file_paths(files), functools.partial(_make_context, files))
            self._context.get()
        self._most = options.max_connections or MOST_CONNECTIONS
        self._connections: dict[Connection, str] = {}  # with their hosts
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[socket.socket] = []
        self._bridge: Bridge | None = None
        self.port = 0
        if options.http_port is not None:
            self._listen(options.http_port)

    @property
    def is_tls(self) -> bool:
        """Whether clients have to use TLS."""
        return self._context is not None

    def start(self, service: Service) -> None:
        """Answer by a service."""
        self._bridge = Bridge(service, self._options)
        application = build(service, self._bridge, self._options, self._names)
        self._config = uvicorn.Config(
            application,
            http=HttpProtocol,
            ws=WebSocketProtocol,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(KEEP_ALIVE),
            ws_max_size=BODY_BYTES,
            ws_ping_interval=PING_EVERY,
            ws_ping_timeout=PONG_TIMEOUT,
            ws_per_message_deflate=False,  # a little of which can be a lot, and which costs more than it saves nearby
        )
        self._config.load()
        self._state = uvicorn.Server(self._config).server_state
        self._looking = asyncio.ensure_future(self._look())
        for sock in self._listening:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def has_room(self, peer: str) -> bool:
        """Whether one more connection of a client can be taken."""
        host = host_in(peer)
        theirs = sum(other == host for other in self._connections.values())
        if len(self._connections) < self._most and theirs <= self._most // 2:
            return True
        logger.warning(
            "refused an HTTP connection from %s: %d are open, and there may be %d, half of them of one address",
            host,
            len(self._connections),
            self._most,
            repeats="",
            event="connection_refused",
            peer=peer,
        )
        return False

    def serve(self, sock: socket.socket, peer: str) -> None:
        """Answer what comes by a connection, which is closed in the end.

        Args:
            sock: Whose other end is the client's, or the relay's.
            peer: The client's address, as gRPC writes it.
        """
        task = asyncio.ensure_future(self._serve(sock, Connection(peer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop_listening(self) -> None:
        """Take no more connections at the port of its own."""
        for sock in self._listening:
            with contextlib.suppress(RuntimeError, ValueError):
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def stop(self) -> None:
        """End all connections, once their last answers are on their way."""
        await self.stop_listening()
        if self._bridge is None:
            return
        self._looking.cancel()
        for protocol in list(self._state.connections):
            try:
                protocol.shutdown()
            except Exception as error:  # noqa: BLE001 - of h11, where the client ends it at the same moment
                logger.debug("an HTTP connection is not ended as it should be: %s", error)
                protocol.transport.abort()
        deadline = time.monotonic() + FLUSH
        while (self._state.connections or self._state.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
        left = [*self._tasks, *self._state.tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._bridge.close()

    def _listen(self, port: int) -> None:
        if is_unix(self._url):
            raise ConfigError(f"ServerOptions.http_port is {port}, but {self._url!r} is a Unix socket; leave one out")
        for address in local_addresses(self._url.strip("[]"), port):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            self._listening.append(sock)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
                sock.bind((address, self.port or port))
            except OSError as error:
                for each in self._listening:
                    each.close()
                raise ConfigError(f"cannot listen on {address} port {self.port or port}: {error}") from error
            sock.listen(1024)
            sock.setblocking(False)
            self.port = sock.getsockname()[1]

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock, address = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors, most likely
            logger.error("cannot accept a connection: %s", error, repeats="")
            loop.remove_reader(listening)
            loop.call_later(_PAUSE, self._watch, listening)
            return
        peer = address_of_socket(address)
        if not self.has_room(peer):
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.serve(sock, peer)

    def _watch(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    async def _serve(self, sock: socket.socket, connection: Connection) -> None:
        def protocol() -> asyncio.Protocol:
            return HttpProtocol(self._config, self._state, state_of(connection))

        self._connections[connection] = host_in(connection.peer)
        settings: dict[str, Any] = {}
        if self._context is not None:
            settings = {"ssl": self._context.get(), "ssl_handshake_timeout": HANDSHAKE_TIMEOUT}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, sock, **settings)
            await connection.lost
        except (OSError, asyncio.TimeoutError) as error:
            peer = connection.peer
            logger.info("an HTTP connection from %s failed: %s", peer, error, repeats=host_in(peer), peer=peer)
            sock.close()
        finally:
            self._connections.pop(connection, None)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.end_if_silent(now)


def _make_context(files: TlsFiles) -> ssl.SSLContext:
    context = server_context(files)
    context.num_tickets = 0  # so that each connection shows its certificate
    context.set_alpn_protocols(["http/1.1"])
    return context
