"""HTTP/2 by hand, since no gRPC library sends half of a message, or leaves an answer unread."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import time
from collections.abc import Iterator

import psutil

from attacks import _frame, _literal

MIB = 2**20


class Half:
    """A connection on which calls are begun, and messages sent halfway: HTTP/2 by hand.

    Args:
        port: The server's.
        context: None for plaintext.
        window: Bytes of each answer that the server may send; 0 for who does not read them.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None, *, window: int = 65535) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._secure = sock if context is None else context.wrap_socket(sock, server_hostname="localhost")
        self._secure.settimeout(0.5)
        self._numbers = itertools.count(1, 2)
        self._window = 65535
        self._windows: dict[int, int] = {}
        self._initial = 65535
        self._received = b""
        self.ended: set[int] = set()
        self._secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, struct.pack(">HI", 4, window)))

    def begin(self, path: str, metadata: dict[str, str] | None = None) -> int:
        number = next(self._numbers)
        fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost"}
        fields |= {"te": "trailers", "content-type": "application/grpc", **(metadata or {})}
        self._secure.sendall(_frame(1, 4, number, b"".join(_literal(*field) for field in fields.items())))
        self._windows[number] = self._initial
        return number

    def send(self, number: int, data: bytes, seconds: float = 2.0) -> int:
        """Send as much as the server lets, until it lets no more for so long.

        Returns:
            How much that was.
        """
        sent, end = 0, time.monotonic() + seconds
        while sent < len(data) and number not in self.ended and time.monotonic() < end:
            size = min(16384, len(data) - sent, self._window, self._windows[number])
            if size <= 0:
                self.look()
                continue
            self._secure.sendall(_frame(0, 0, number, data[sent : sent + size]))
            self._window -= size
            self._windows[number] -= size
            sent += size
            end = time.monotonic() + seconds
        return sent

    def look(self, seconds: float = 0.05) -> None:
        """Read what the server says."""
        self._secure.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            self._received += self._secure.recv(2**16)
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                return
            kind, flags = self._received[3], self._received[4]
            number = int.from_bytes(self._received[5:9], "big")
            payload, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            self._take(kind, flags, number, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == 8:
            grown = int.from_bytes(payload, "big")
            if number:
                self._windows[number] = self._windows.get(number, self._initial) + grown
            else:
                self._window += grown
        elif kind == 4 and not flags & 1:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == 4:
                    grown, self._initial = value - self._initial, value
                    for stream in self._windows:
                        self._windows[stream] += grown
            self._secure.sendall(_frame(4, 1, 0, b""))
        elif kind == 6 and not flags & 1:
            self._secure.sendall(_frame(6, 1, 0, payload))
        elif kind == 3 or (flags & 1 and kind in (0, 1)):
            self.ended.add(number)

    def close(self) -> None:
        self._secure.close()


def announced_message(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big")


@contextlib.contextmanager
def holding(process: psutil.Process, most: int) -> Iterator[None]:
    """Check that the process grows by no more."""
    before = process.memory_info().rss
    yield
    grown = process.memory_info().rss - before
    assert grown < most, f"it grew by {grown / MIB:.0f} MiB"
