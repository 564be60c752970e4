"""Accepts direct connections and hands each to the worker that its preamble names."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remote_gym.address import is_unix
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger
from remote_gym.server.frontends.binding import claim_path, local_addresses, unix_path
from remote_gym.transport.direct_socket import PREAMBLE, ROUTING_ID_BYTES, shut_down

logger = get_logger(__name__)

PREAMBLE_TIMEOUT = 5.0
"""Seconds that a client has to say for which session it comes."""
BACKLOG = 1024
"""Connections that wait to be accepted, at most, as when all clients come back at once after the network broke."""

HandOver = Callable[[bytes, socket.socket], bool]
"""Gives a connection to the worker of that routing id; False if there is none."""


class DirectListener:
    """Listens beside the gRPC server. Runs on the server's event loop.

    Args:
        hand_over: Gives away a connection.
        max_pending: How many connections may not have said for which session they come. One more takes the place of
            the oldest of the address that has the most of them, so that silent ones shut nobody else out.
    """

    def __init__(self, hand_over: HandOver, max_pending: int = 256) -> None:
        self._hand_over = hand_over
        self._max_pending = max_pending
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._pending: dict[asyncio.Task[None], str] = {}  # oldest first, with their addresses
        self._is_crowded = False
        self.port = 0
        self.path = ""

    def start(self, url: str, port: int) -> None:
        """Listen where the gRPC server does.

        Args:
            url: Its host name or address, or ``unix:path``, beside which ``path.direct`` is made.
            port: TCP port; 0 for a free one, told by `port`.

        Raises:
            ConfigError: If that cannot be done.
        """
        try:
            self._listening = [self._listen_unix(url)] if is_unix(url) else self._listen(url.strip("[]"), port)
        except OSError as error:
            raise ConfigError(f"cannot listen for direct connections on {url} port {port}: {error}") from error
        self._accepting = [asyncio.ensure_future(self._accept(sock)) for sock in self._listening]

    async def stop(self) -> None:
        """Listen no more, and drop who has not been handed over."""
        tasks = [*self._accepting, *self._pending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._listening:
            sock.close()
        if self.path:
            Path(self.path).unlink(missing_ok=True)

    def _listen_unix(self, url: str) -> socket.socket:
        self.path = unix_path(url) + ".direct"
        claim_path(self.path)
        return self._bound(socket.socket(socket.AF_UNIX), self.path)

    def _listen(self, host: str, port: int) -> list[socket.socket]:
        listening: list[socket.socket] = []
        try:
            for address in local_addresses(host, port):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                sock = socket.socket(family, socket.SOCK_STREAM)
                listening.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # As gRPC has it, which serves IPv4 by "::" as well.
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
                # All of a name's addresses share the port that was picked for the first.
                self._bound(sock, (address, self.port or port))
                self.port = sock.getsockname()[1]
        except OSError:
            for sock in listening:
                sock.close()
            raise
        return listening

    @staticmethod
    def _bound(sock: socket.socket, address: tuple[Any, ...] | str) -> socket.socket:
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        return sock

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:  # out of descriptors, most likely
                logger.error("cannot accept a direct connection: %s", error, repeats="")
                await asyncio.sleep(0.1)
                continue
            if len(self._pending) >= self._max_pending:
                self._drop_oldest()
            elif len(self._pending) <= self._max_pending // 2:
                self._is_crowded = False
            host = str(address[0]) if isinstance(address, tuple) else ""
            task = asyncio.ensure_future(self._route(sock, host))
            self._pending[task] = host
            task.add_done_callback(lambda done: self._pending.pop(done, None))
            # Let it read, before others could crowd it out; and let the server do something else in a flood.
            await asyncio.sleep(0)

    def _drop_oldest(self) -> None:
        address, count = Counter(self._pending.values()).most_common(1)[0]
        oldest = next(task for task, theirs in self._pending.items() if theirs == address)
        del self._pending[oldest]
        oldest.cancel()
        if self._is_crowded:  # it has been said
            return
        self._is_crowded = True
        logger.warning(
            "%d direct connections, %d of them from %s, have not said for whom they come, and "
            "ServerOptions.max_pending allows %d; dropping the oldest of those",
            self._max_pending,
            count,
            address or "this machine",
            self._max_pending,
            repeats="",
        )

    async def _route(self, sock: socket.socket, address: str) -> None:
        with sock:
            sock.setblocking(False)
            try:
                routing_id = await asyncio.wait_for(_read_preamble(sock), PREAMBLE_TIMEOUT)
            except (OSError, asyncio.TimeoutError):
                return
            if routing_id is None or not self._hand_over(routing_id, sock):
                shut_down(sock)
                logger.info(
                    "refused a direct connection from %s: its routing id is not good, or no longer",
                    address or "this machine",
                    repeats=address,
                    event="direct_connection_refused",
                    peer=address,
                )


async def _read_preamble(sock: socket.socket) -> bytes | None:
    """The routing id; None if something else was sent."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < len(PREAMBLE) + ROUTING_ID_BYTES:
        # No byte more than the preamble: what follows is the worker's to read.
        part = await loop.sock_recv(sock, len(PREAMBLE) + ROUTING_ID_BYTES - len(data))
        data += part
        if not part or not data.startswith(PREAMBLE[: len(data)]):
            return None
    return data[len(PREAMBLE) :]
