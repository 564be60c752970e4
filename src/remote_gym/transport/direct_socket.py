"""A direct connection's socket: messages that answer each other, with the least to be done for each.

It reads ahead, into one buffer for all messages, and looks at the socket again and again for a short while before it
sleeps: waking a process costs more than all the rest of a step.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence

import numpy as np

from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost, DeadlineExceeded
from remote_gym.transport.busy_poll import Wakefulness, look
from remote_gym.transport.framing import BYTE_ORDER, HEADER_BYTES, LONGEST, read_length, write_length

PREAMBLE = b"rmtgym\x00\x01"
ROUTING_ID_BYTES = 16
ROUTING_ID_LIFETIME = 60.0
"""Seconds after it was told in which a client may come by a routing id, once."""

_LAST_SIGNS = struct.Struct("=52x2I")
"""Milliseconds since data and since an acknowledgement came, in Linux's ``struct tcp_info``."""

_ALIVE_MS = 6_000
"""Silence that shows the other end to be gone: else its system, busy or not, answers a probe every 4 s."""

_BUFFER_BYTES = 2**16
_SENT_WHOLE = 2**14
"""Messages up to this size are sent with their header in one piece: a TLS record holds as much."""


class DirectSocket:
    """One end of a connected stream socket, encrypted or not, which it owns.

    Not for use by several threads at once. After any error but an `EncodingError` raised by `send` the stream is out of
    step, and all that is left is to close it.

    Args:
        sock: Becomes non-blocking.
        limits: Bounds on messages.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        set_options(sock)
        sock.setblocking(False)
        self._socket = sock
        # Bytes that TLS has read and nobody has had yet; the socket has them no more.
        self._pending = sock.pending if isinstance(sock, ssl.SSLSocket) else int
        self._limit = min(limits.message_bytes, LONGEST)
        self._sent_whole = min(_SENT_WHOLE - HEADER_BYTES, self._limit)
        self._most_at_once = min(_BUFFER_BYTES, HEADER_BYTES + self._limit)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, data: bytes | Sequence[bytes], deadline: float) -> None:
        """Send one message.

        Args:
            data: The message, or its parts.
            deadline: On `time.monotonic`.

        Raises:
            EncodingError: If it is over the limit; nothing was sent.
            ConnectionLost: If the other end is gone.
            DeadlineExceeded: If the other end does not read.
        """
        if not isinstance(data, bytes) and len(data) == 1:
            data = data[0]
        if isinstance(data, bytes):
            if len(data) <= self._sent_whole:
                # As `framing.frame` does it, but inline: every step comes by here, and a call would cost it two more.
                self._send_all(len(data).to_bytes(HEADER_BYTES, BYTE_ORDER) + data, deadline)
                return
            parts: Sequence[bytes] = (data,)
        else:
            parts = data
        size = sum(map(len, parts))
        begin = write_length(size, self._limit)
        for part in parts:
            # What is small goes with what comes before, into one packet and one TLS record; large parts are not copied.
            taken = part if len(begin) + len(part) <= _SENT_WHOLE else part[: _SENT_WHOLE - len(begin)]
            self._send_all(begin + taken, deadline)
            begin = b""
            if len(taken) < len(part):
                self._send_all(memoryview(part)[len(taken) :], deadline)

    def receive(self, deadline: float, wakefulness: Wakefulness | None = None) -> bytes | memoryview | None:
        """Wait for the next message; None where the other end closed after the last one.

        A large one is memory of its own, which may be written to.

        Args:
            deadline: On `time.monotonic`.
            wakefulness: How long to look for it before sleeping; None where something is known to have come.

        Raises:
            EncodingError: If its length is over the limit.
            ConnectionLost: If the connection breaks, or ends within a message.
            DeadlineExceeded: If it did not come whole in time.
        """
        if not self._filled:
            if wakefulness is not None:
                has_come = wakefulness.seconds > 0 and look(self._poll.poll, wakefulness)
                # To read in vain costs several times as much as to ask, since it raises an error of OpenSSL's.
                if not has_come and not self._pending():
                    self._wait(select.POLLIN, deadline)
            self._filled = self._read_into(self._view, deadline)
            if not self._filled:
                return None
        while self._filled < HEADER_BYTES:
            if not self._read_some(deadline):
                raise ConnectionLost("the connection ended within a message")
        # As `framing.read_length` does it, which only large messages are worth a call.
        end = HEADER_BYTES + int.from_bytes(self._view[:HEADER_BYTES], BYTE_ORDER)
        if end > self._most_at_once:
            return self._receive_large(read_length(self._view[:HEADER_BYTES], self._limit), deadline)
        while self._filled < end:
            if not self._read_some(deadline):
                raise ConnectionLost("the connection ended within a message")
        message = bytes(self._view[HEADER_BYTES:end])
        self._filled -= end
        if self._filled:  # of the next message, from a peer that does not wait for answers
            self._buffer[: self._filled] = self._buffer[end : end + self._filled]
        return message

    def has_message_begun(self) -> bool:
        """Whether bytes were read that no `receive` has returned yet; the socket itself would not tell of them."""
        return self._filled > 0 or self._pending() > 0

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._socket.fileno()

    def silence_ms(self) -> int:
        """As the function of that name."""
        return silence_ms(self._socket)

    def shut_down(self) -> None:
        """End the connection, and wake the thread that waits for it."""
        shut_down(self._socket)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _read_some(self, deadline: float) -> int:
        count = self._read_into(self._view[self._filled :], deadline)
        self._filled += count
        return count

    def _receive_large(self, size: int, deadline: float) -> memoryview:
        # Not zeroed, and so no memory before something arrives to fill it: an announced length costs nothing by itself.
        message = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]
        begun = self._filled - HEADER_BYTES
        message[:begun] = self._view[HEADER_BYTES : self._filled]
        self._filled = 0
        while begun < size:
            count = self._read_into(message[begun:], deadline)
            if not count:
                raise ConnectionLost(f"the connection ended within a message, after {begun:,} of {size:,} bytes")
            begun += count
        return message

    def _read_into(self, view: memoryview, deadline: float) -> int:
        while True:
            try:
                return self._socket.recv_into(view, len(view))  # or it looks at the view to find that out
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                raise ConnectionLost(f"receiving failed: {error}") from error

    def _send_all(self, data: bytes | memoryview, deadline: float) -> None:
        while True:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, deadline)
                continue
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as error:
                raise ConnectionLost(f"sending failed: {error}") from error
            if sent == len(data):
                return
            data = memoryview(data)[sent:]

    def _wait(self, events: int, deadline: float) -> None:
        milliseconds = 1000 * min(max(0.0, deadline - time.monotonic()), 1e6)
        if events == select.POLLIN:  # as it is registered
            ready = self._poll.poll(milliseconds)
        else:
            self._poll.modify(self._socket, events)
            try:
                ready = self._poll.poll(milliseconds)
            finally:
                self._poll.modify(self._socket, select.POLLIN)
        if not ready:
            raise DeadlineExceeded("the other end did not answer in time")


def shut_down(sock: socket.socket) -> None:
    """End a connection, which closing alone does not while another process holds a descriptor of it."""
    # Not ssl.SSLSocket's own, which would leave another thread to read what is encrypted.
    with contextlib.suppress(OSError):  # as it has when the other end was faster
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def silence_ms(sock: socket.socket) -> int:
    """For how many milliseconds the other end of a connection had been gone when that was noticed.

    Counted from its last sign of life, data or an acknowledgement. 0 where it ended the connection itself, and where
    the system does not tell.
    """
    if not hasattr(socket, "TCP_INFO") or sock.family == socket.AF_UNIX:
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_SIGNS.size)
        silence = int(min(_LAST_SIGNS.unpack(info)))
    except (OSError, struct.error):
        return 0
    # Not the error tells which it was: through TLS all of them look like an orderly end.
    return silence if silence > _ALIVE_MS else 0


def set_options(sock: socket.socket) -> None:
    """Send at once, and notice within 10 s that the other end is gone without a word."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 4),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 8_000),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
