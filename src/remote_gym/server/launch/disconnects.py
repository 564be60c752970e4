"""Noticing that the clients of busy workers are gone.

A worker that steps its environment does not look at its connection, and one that hangs never does again. So the
server, which has no other use for it, holds a descriptor of each direct connection and waits for its end. That is
not what an event loop can wait for: requests that arrive in between are the worker's, and no event here.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

from remote_gym.transport.direct_socket import shut_down, silence_ms

_ENDS = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLONESHOT", 0)
"""Beside errors, which are always told."""


class Disconnects:
    """Waits for the ends of sockets; for none where the system cannot. Runs on the server's event loop."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, tuple[socket.socket, Callable[[int], object]]] = {}

    def watch(self, sock: socket.socket, ended: Callable[[int], object]) -> None:
        """Tell when the other end of a connection is gone, once.

        Args:
            sock: Taken over, until `forget` closes it.
            ended: Called with the milliseconds for which it had been gone by then, where the system tells.
        """
        if self._epoll is None and hasattr(select, "epoll"):
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll, self._look)
        self._watched[sock.fileno()] = sock, ended
        if self._epoll is not None:
            self._epoll.register(sock, _ENDS)

    def forget(self, descriptor: int) -> None:
        """Close it."""
        if descriptor in self._watched:
            sock, _ = self._watched.pop(descriptor)
            if self._epoll is not None:
                self._epoll.unregister(descriptor)
            sock.close()

    def cut(self, descriptor: int) -> None:
        """End the connection, whoever else has descriptors of it."""
        if descriptor in self._watched:
            shut_down(self._watched[descriptor][0])

    def close(self) -> None:
        """Forget all."""
        for descriptor in list(self._watched):
            self.forget(descriptor)
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll)
            self._epoll.close()
            self._epoll = None

    def _look(self) -> None:
        assert self._epoll is not None
        for descriptor, _ in self._epoll.poll(0):
            if descriptor in self._watched:
                sock, ended = self._watched[descriptor]
                ended(silence_ms(sock))
