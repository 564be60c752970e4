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
class DialBack:
    """Connection that a client waits for its server to make.

    Attributes:
        id: Begins the connection.
        came: Gets its socket.
    """

    id: bytes
    came: asyncio.Future[socket.socket]


class DialBacks:
    """All that are waited for. Runs on an event loop.

    Args:
        most: Of one server.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[bytes, DialBack] = {}
        self._counts: Counter[Registered[Any]] = Counter()
        self._hosts: Counter[tuple[Registered[Any], str]] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    @contextlib.contextmanager
    def expect(self, server: Registered[Any], host: str) -> Iterator[DialBack]:
        """Let a server dial back while this lasts.

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
        dial_back = DialBack(secrets.token_bytes(ID_BYTES), asyncio.get_running_loop().create_future())
        self._waiting[dial_back.id] = dial_back
        self._counts[server] += 1
        self._hosts[server, host] += 1
        try:
            yield dial_back
        except BaseException:
            if dial_back.came.done():
                dial_back.came.result().close()
            raise
        finally:
            self._waiting.pop(dial_back.id, None)
            _count_down(self._counts, server)
            _count_down(self._hosts, (server, host))

    def take(self, id_: bytes, sock: socket.socket) -> bool:
        """Give a server's connection to the client that it comes for; False if there is none, or no longer."""
        dial_back = self._waiting.pop(id_, None)
        if dial_back is None or dial_back.came.done():
            return False
        dial_back.came.set_result(sock)
        return True


def _count_down(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
