"""A hub's one port: servers register there and dial back, clients come, and their bytes are carried."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

from remote_gym.address import host_in, network_in
from remote_gym.config import HubOptions
from remote_gym.errors import ConfigError
from remote_gym.hub.dial_backs import DialBacks
from remote_gym.hub.first_bytes import ConnectionKind, FirstBytes, Recognised
from remote_gym.hub.link import ServerLink
from remote_gym.hub.pipe import Pipe
from remote_gym.hub.registry import RefusedError, Registered, Registry
from remote_gym.logs import get_logger
from remote_gym.transport.acceptor import Acceptor, answer_and_end
from remote_gym.transport.direct_socket import set_options, shut_down
from remote_gym.transport.waiting import within

logger = get_logger(__name__)

FIRST_BYTES_TIMEOUT = 5.0
"""Seconds that anybody has to send the bytes by which it is known who it is."""

FLUSH = 1.0
"""Seconds that last bytes have to be sent once the hub stops."""

_UNKNOWN_NAME = bytes((0x15, 3, 3, 0, 2, 2, 112))
"""A fatal alert: unrecognized_name (RFC 6066, 3)."""

Server = Registered[ServerLink]


class HubListener(Acceptor):
    """Runs on an event loop. Who connects waits until `accept`.

    Args:
        url: Host name or address to listen on.
        port: TCP port; 0 for a free one.
        options: The hub's.
        context: Gives the TLS that servers are met by, as its files are now; raises `ConfigError` if they never fitted.
    """

    def __init__(self, url: str, port: int, options: HubOptions, context: Callable[[], ssl.SSLContext]) -> None:
        super().__init__(url, port, max_pending=options.max_pending, bound="HubOptions.max_pending")
        self._options = options
        self._context = context
        self._registry: Registry[ServerLink] = Registry(options, time.monotonic)
        self._dial_backs = DialBacks(options.max_pending)
        self._pipes: set[Pipe] = set()

    async def stop(self) -> None:
        """Take nobody any more, send what is on its way, and end all connections."""
        await super().stop()
        deadline = time.monotonic() + FLUSH
        while not all(pipe.is_flushed for pipe in self._pipes) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for pipe in tuple(self._pipes):
            pipe.close()

    async def _route(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        try:
            first, found = await within(FIRST_BYTES_TIMEOUT, _read_first(sock))
        except asyncio.TimeoutError:
            self._log_refusal(peer, f"it has not said within {FIRST_BYTES_TIMEOUT:g} s what it comes for")
            return
        except OSError:
            return
        if found is None:  # it has left
            return
        set_options(sock)
        if found.kind is ConnectionKind.REGISTERING:
            await self._register(_taken(sock), peer)
        elif found.kind is ConnectionKind.DIALLING_BACK:
            self._join(sock, found.id, peer)
        elif found.kind is ConnectionKind.CLIENT:
            self._settle()
            await self._let_through(sock, first, found.name, peer)
        else:
            await self._turn_away(sock, found, peer)

    async def _register(self, sock: socket.socket, peer: str) -> None:
        try:
            link = await ServerLink.meet(sock, self._context())
        except (RefusedError, ConfigError) as error:
            sock.close()
            self._log_server_refused(peer, error)
            return
        try:
            try:
                link.check_version()
                await self._end_dead_holders(link)
                server = self._registry.add(link.names, link.fingerprint, link)
            except RefusedError as error:
                self._log_server_refused(peer, error)
                await link.refuse(error)
                return
            await self._follow(server, peer)
        finally:
            link.end()

    async def _end_dead_holders(self, link: ServerLink) -> None:
        """A server that has lost its network comes back before anybody has noticed that it had gone."""
        for other in self._registry.holders(link.names):
            if other.fingerprint == link.fingerprint and not await other.link.is_alive():
                other.link.end()
                self._registry.remove(other)

    async def _follow(self, server: Server, peer: str) -> None:
        self._settle()
        host = host_in(peer)
        logger.info("server %s has come, from %s", server, peer, repeats=host, event="server_registered", peer=peer)
        why = "of a fault"
        try:
            why = await server.link.listen()
        except asyncio.CancelledError:
            why = "the hub stops"
            raise
        finally:
            self._registry.remove(server)
            logger.info("server %s is gone: %s", server, why, repeats=host, event="server_gone", peer=peer)

    def _join(self, sock: socket.socket, dial_back_id: bytes, peer: str) -> None:
        """Give a server's connection to the client that waits for it."""
        if self._dial_backs.take(dial_back_id, taken := _taken(sock)):
            return
        taken.close()
        self._log_refusal(peer, "nobody waits, or no longer, for the connection that it makes as a server")

    async def _let_through(self, sock: socket.socket, first: bytes, name: str, peer: str) -> None:
        server, host = self._registry.find(name), network_in(peer)
        if server is None:
            await self._turn_away(
                sock, Recognised(ConnectionKind.NO_SERVER, why=f"no server {name!r} is registered"), peer
            )
            return
        try:
            self._registry.enter(server, host)
        except RefusedError as error:
            self._log_refusal(peer, str(error))
            return
        pipe = None
        try:
            upstream = await self._have_dialled_back(server, host, peer)
            pipe = self._carry(server, _taken(sock), upstream, first, peer)
        except RefusedError as error:
            self._log_refusal(peer, str(error))
        finally:
            if pipe is None:
                self._registry.leave(server, host)

    async def _have_dialled_back(self, server: Server, host: str, peer: str) -> socket.socket:
        with self._dial_backs.expect(server, host) as dial_back:
            server.link.call(dial_back.id, peer)
            # What the client sends meanwhile waits in its own system.
            await asyncio.wait({dial_back.came}, timeout=self._options.dial_timeout)
            if not dial_back.came.done():
                raise RefusedError(f"{server} has not dialled back within {self._options.dial_timeout:g} s")
            return dial_back.came.result()

    def _carry(self, server: Server, client: socket.socket, upstream: socket.socket, first: bytes, peer: str) -> Pipe:
        host = network_in(peer)

        def ended() -> None:
            self._pipes.discard(pipe)
            self._registry.leave(server, host)
            text = "a connection of %s to %s has ended after %d bytes"
            logger.info(text, peer, server, pipe.carried, repeats=f"{host} {server}", event="client_gone", peer=peer)

        text = "a connection of %s to %s"
        logger.info(text, peer, server, repeats=f"{host} {server}", event="client_came", peer=peer)
        pipe = Pipe(client, upstream, first, server.rate.share(host), ended)
        self._pipes.add(pipe)
        pipe.start()
        return pipe

    async def _turn_away(self, sock: socket.socket, found: Recognised, peer: str) -> None:
        self._log_refusal(peer, found.why)
        if found.kind is ConnectionKind.NO_SERVER:
            await answer_and_end(sock, _UNKNOWN_NAME)
        shut_down(sock)

    @staticmethod
    def _log_refusal(peer: str, why: str) -> None:
        host = host_in(peer)
        logger.info("refused a connection from %s: %s", host, why, repeats=host, event="connection_refused", peer=peer)

    @staticmethod
    def _log_server_refused(peer: str, why: Exception) -> None:
        host = host_in(peer)
        logger.warning("refused a server at %s: %s", host, why, repeats=host, event="server_refused", peer=peer)


async def _read_first(sock: socket.socket) -> tuple[bytes, Recognised | None]:
    """Read what somebody sends first, and decide who it is; None if it leaves before that is known."""
    loop = asyncio.get_running_loop()
    first = FirstBytes()
    found = None
    while found is None and (part := await loop.sock_recv(sock, first.readable)):
        found = first.feed(part)
    return bytes(first.data), found


def _taken(sock: socket.socket) -> socket.socket:
    """The same socket, which nobody closes who has had it before."""
    taken = socket.socket(fileno=sock.detach())
    taken.setblocking(False)
    return taken
