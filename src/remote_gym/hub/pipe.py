"""Carries bytes between a client and its server, as they come, and no more of them than the other end takes.

By the event loop's readers and writers rather than by its streams: what was received is sent on in the same turn, and
mostly the system takes it whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from remote_gym.hub.rate import Share

CHUNK = 2**16
"""Bytes that are received at once, and that may wait for one end to take them."""

LINGER = 2.0
"""Seconds that a client has to end its connection once its server has: closed before, what it still sends would have
the system reset the connection, which may overtake the server's last bytes."""

_buffer = memoryview(bytearray(CHUNK))
"""Memory that all pipes of this process receive into, in its one thread."""


class _End:
    """One of the two sockets, with what is to be sent to it."""

    __slots__ = ("fd", "finished", "is_client", "other", "paused", "readable", "sock", "unsent")

    def __init__(self, sock: socket.socket, *, is_client: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.is_client = is_client
        self.other: _End = self
        self.unsent = b""
        self.readable = True  # until its end
        self.paused = False  # since too many bytes have passed
        self.finished = False  # it was told that no more comes


class Pipe:
    """Connection that is carried from `start` on. Closes both sockets at its end.

    Args:
        client: The client's socket.
        server: The one by which the server has dialled back.
        first: What has been read of the client.
        share: Of the server's rate, which the client has with all others of its address.
        on_end: Called once, at the end.

    Attributes:
        carried: Bytes so far, in both directions.
    """

    def __init__(
        self, client: socket.socket, server: socket.socket, first: bytes, share: Share, on_end: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = _End(client, is_client=True)
        self._server = _End(server, is_client=False)
        self._client.other, self._server.other = self._server, self._client
        self._share = share
        self._most = min(CHUNK, share.portion)
        self._on_end = on_end
        self._timers: set[asyncio.TimerHandle] = set()
        self._closed = False
        self._lingering = False
        self.carried = len(first)
        self._server.unsent = first

    def start(self) -> None:
        """Begin, with what has been read of the client."""
        self._share.spend(self.carried)
        self._watch(self._client)
        self._watch(self._server)
        self._flush(self._server)

    @property
    def is_flushed(self) -> bool:
        """Whether all that was received has been sent."""
        return not (self._client.unsent or self._server.unsent)

    def close(self) -> None:
        """End it at once; harmless if it has ended."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        for end in (self._client, self._server):
            self._loop.remove_reader(end.fd)
            self._loop.remove_writer(end.fd)
            end.sock.close()
        self._on_end()

    def _watch(self, end: _End) -> None:
        """Wait for what can be done: to receive what the other end takes, to send what is unsent."""
        if self._closed:
            return
        if end.readable and not end.paused and not end.other.unsent:
            self._loop.add_reader(end.fd, self._move, end)
        else:
            self._loop.remove_reader(end.fd)
        if end.unsent:
            self._loop.add_writer(end.fd, self._flush, end)
        else:
            self._loop.remove_writer(end.fd)

    def _move(self, end: _End) -> None:
        """Receive once, and send it on."""
        # Before that: of a thousand connections each would receive something before it had to wait.
        if seconds := self._share.wait():
            self._pause(end, seconds)
            return
        try:
            count = end.sock.recv_into(_buffer, self._most)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost(end)
            return
        if not count:
            self._end_of(end)
            return
        self._share.spend(count)
        other = end.other
        if other.finished:  # what the client says to a server that has ended the connection
            return
        self.carried += count
        try:
            sent = other.sock.send(_buffer[:count])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._lost(other)
            return
        if sent < count:
            other.unsent = bytes(_buffer[sent:count])
            self._watch(end)
            self._watch(other)

    def _flush(self, end: _End) -> None:
        try:
            sent = end.sock.send(end.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost(end)
            return
        end.unsent = end.unsent[sent:]
        if end.unsent:
            return
        if not end.other.readable:
            self._finish(end)
        self._watch(end)
        self._watch(end.other)

    def _pause(self, end: _End, seconds: float) -> None:
        """Receive no more from there for so long."""
        end.paused = True
        self._watch(end)

        def resume() -> None:
            self._timers.discard(timer)
            end.paused = False
            self._watch(end)

        timer = self._loop.call_later(seconds, resume)
        self._timers.add(timer)

    def _end_of(self, end: _End) -> None:
        """Nothing more comes from there; the other end is told once it has all that came."""
        end.readable = False
        self._watch(end)
        if not end.other.unsent:
            self._finish(end.other)

    def _finish(self, end: _End) -> None:
        """End the half of the connection that leads to an end, which has all that is for it."""
        if not end.finished:
            end.finished = True
            with contextlib.suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)
            if end.is_client:
                self._timers.add(self._loop.call_later(LINGER, self.close))
        if end.other.finished and not end.readable and not end.other.readable:
            self.close()

    def _lost(self, end: _End) -> None:
        """One end is gone, in both directions."""
        if end.is_client or self._lingering:
            self.close()
            return
        self._lingering = True
        end.finished, end.unsent = True, b""
        self._timers.add(self._loop.call_later(LINGER, self.close))
        self._end_of(end)
        self._watch(end.other)
