"""Accepts connections on one address, and keeps those from crowding each other out that have not said what they are."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import socket
from collections import Counter
from pathlib import Path
from typing import Any

from remote_gym.address import address_of_socket, is_unix, network_in, unix_path
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger
from remote_gym.transport.binding import claim_path, local_addresses
from remote_gym.transport.direct_socket import shut_down
from remote_gym.transport.waiting import end_tasks, within

logger = get_logger(__name__)

BACKLOG = 1024
"""Connections that wait to be accepted, at most, as when all clients come back at once after the network broke."""

PAUSE = 0.1
"""Seconds until the next attempt to accept a connection once one has failed."""


class Acceptor(abc.ABC):
    """Listens on a port, on every address of a name, so that no other server can have one of them.

    Runs on an event loop. Who connects waits until `accept`.

    Args:
        url: Host name or address, or ``unix:path``.
        port: TCP port; 0 for a free one.
        max_pending: How many connections may not have said what they are. One more takes the place of the oldest of
            the address that has the most of them, so that silent ones shut nobody else out.
        bound: Name of the option that says so, for the log.

    Attributes:
        port: TCP port; 0 for a Unix socket.
        path: Of the Unix socket; empty for TCP.

    Raises:
        ConfigError: If an address is taken, or not one of this machine's.
    """

    def __init__(self, url: str, port: int, *, max_pending: int, bound: str) -> None:
        self._max_pending = max_pending
        self._bound_by = bound
        self._pending: dict[asyncio.Task[None], str] = {}  # oldest first, with their addresses
        self._settled: set[asyncio.Task[None]] = set()
        self._is_crowded = False
        self.port = 0
        self.path = ""
        try:
            self._listening = [self._listen_unix(url)] if is_unix(url) else self._listen(url.strip("[]"), port)
        except OSError as error:
            raise ConfigError(f"cannot listen on {url} port {port}: {error}") from error

    @abc.abstractmethod
    async def _route(self, sock: socket.socket, peer: str) -> None:
        """Find out what a connection is, and give it to whom it is for. It owns the socket."""

    def accept(self) -> None:
        """Let clients in."""
        for sock in self._listening:
            self._watch(sock)

    def adopt(self, sock: socket.socket, peer: str) -> None:
        """Take a connection as if it had been accepted here.

        Args:
            sock: Connected; taken over.
            peer: Address of the client, as gRPC writes it.
        """
        if len(self._pending) >= self._max_pending:
            self._drop_oldest()
        elif len(self._pending) <= self._max_pending // 2:
            self._is_crowded = False
        task = asyncio.get_running_loop().create_task(self._route(sock, peer))
        self._pending[task] = network_in(peer)
        task.add_done_callback(functools.partial(self._routed, sock))

    async def stop(self) -> None:
        """Listen no more, and drop what has not been given away. What is relayed stays."""
        for sock in self._listening:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        await end_tasks((*self._pending, *self._settled))
        if self.path:
            Path(self.path).unlink(missing_ok=True)

    def _settle(self) -> None:
        """Count the connection whose task calls this no more among those that have not said what they are."""
        task: asyncio.Task[None] | None = asyncio.current_task()
        if task is not None and self._pending.pop(task, None) is not None:
            self._settled.add(task)

    def _listen_unix(self, url: str) -> socket.socket:
        path = unix_path(url)
        claim_path(path)
        sock = self._bound(socket.socket(socket.AF_UNIX), path)
        self.path = path
        return sock

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

    def _watch(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:  # else it has been closed since
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection.

        One at a time: in a flood the loop has its turns in between, and each is read from before others crowd it out.
        No coroutine, since one that is cancelled just then would lose what it has accepted.
        """
        loop = asyncio.get_running_loop()
        try:
            sock, address = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it has left
            return
        except OSError as error:  # out of descriptors, most likely
            logger.error("cannot accept a connection: %s", error, repeats="")
            loop.remove_reader(listening)
            loop.call_later(PAUSE, self._watch, listening)
            return
        self.adopt(sock, address_of_socket(address))

    def _routed(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        sock.close()  # a task that is cancelled before its first turn does nothing itself
        self._pending.pop(task, None)
        self._settled.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection was ended by a fault", exc_info=error, repeats="")

    def _drop_oldest(self) -> None:
        address, count = Counter(self._pending.values()).most_common(1)[0]
        oldest = next(task for task, theirs in self._pending.items() if theirs == address)
        del self._pending[oldest]
        oldest.cancel()
        if self._is_crowded:  # it has been said
            return
        self._is_crowded = True
        logger.warning(
            "%d connections, %d of them from %s, have not said what they are, and %s allows %d; dropping the oldest of "
            "those",
            self._max_pending,
            count,
            address,
            self._bound_by,
            self._max_pending,
            repeats="",
        )


async def answer_and_end(sock: socket.socket, answer: bytes) -> None:
    """Say a last word to a client, in a way that it reads it, and end the connection."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        sock.send(answer)
        sock.shutdown(socket.SHUT_WR)
        # Closing with bytes unread would have the system reset the connection, which overtakes the answer.
        await within(1.0, _read_to_end(sock))
    shut_down(sock)


async def _read_to_end(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(16):  # of a client that goes on and on no more than 1 MiB
        if not await loop.sock_recv(sock, 2**16):
            return
