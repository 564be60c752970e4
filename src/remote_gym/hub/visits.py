"""Clients that wait for their server to dial back, by ids that are good for one connection each."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from remote_gym.hub.registry import RefusedError, Registered
from remote_gym.protocol.hub import ID_BYTES

K = TypeVar("K")

SHARE = 4
"""One address may have a quarter of all that wait for a server."""


@dataclass(frozen=True, eq=False)
class Visit:
    """A client that waits.

    Attributes:
        id: By which its server dials back.
        came: Gets the socket of the server's.
    """

    id: bytes
    came: asyncio.Future[socket.socket]


class Visits:
    """All that wait. Runs on an event loop.

    Args:
        most: Of one server.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[bytes, Visit] = {}
        self._counts: Counter[Registered[Any]] = Counter()
        self._hosts: Counter[tuple[Registered[Any], str]] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    @contextlib.contextmanager
    def one(self, server: Registered[Any], host: str) -> Iterator[Visit]:
        """Wait while this lasts.

        Args:
            server: Whose client it is.
            host: The client's address, without its port.

        Raises:
            RefusedError: If too many wait, in all or from there.
        """
        if (count := self._counts[server]) >= self._most:
            raise RefusedError(
                f"{count} clients wait for {server} to dial back, as many as HubOptions.max_pending allows"
            )
        if (count := self._hosts[server, host]) >= max(1, self._most // SHARE):
            raise RefusedError(
                f"{count} clients from there wait for {server} to dial back, as many as one address may have"
            )
        visit = Visit(secrets.token_bytes(ID_BYTES), asyncio.get_running_loop().create_future())
        self._waiting[visit.id] = visit
        self._counts[server] += 1
        self._hosts[server, host] += 1
        try:
            yield visit
        except BaseException:
            if visit.came.done():
                visit.came.result().close()
            raise
        finally:
            self._waiting.pop(visit.id, None)
            _count_down(self._counts, server)
            _count_down(self._hosts, (server, host))

    def take(self, id_: bytes, sock: socket.socket) -> bool:
        """Give a server's connection to the client that it comes for; False if there is none, or no longer."""
        visit = self._waiting.pop(id_, None)
        if visit is None or visit.came.done():
            return False
        visit.came.set_result(sock)
        return True


def _count_down(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
