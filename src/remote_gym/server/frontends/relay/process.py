"""Carries bytes between gRPC's clients and gRPC's private socket, unread: TLS goes from end to end.

This runs in a process of its own, as a program of a few modules of the standard library, so that it is there at once:
`import remote_gym` would load Gymnasium and NumPy. In a thread of the server a message waits for
the interpreter's lock, which the server's event loop holds just when an answer has been sent, and that costs a step
over gRPC more than all the copying does. ``os.splice`` is no faster than to receive and send what a step takes.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque

CHUNK = 2**16
"""Bytes received at once, and those held for one direction of a connection whose other end does not read: what comes
behind them waits in the system's buffers, and, once these are full, at the sender."""

LINGER = 5.0
"""Seconds that a client has to take what gRPC sent last, and to end its half of a connection that gRPC has ended."""

COMMAND = struct.Struct("!BQ")
"""A command to the relay: one of the following, and a connection's number."""
CARRY = 1
"""Carry what two sockets send, which come with it: the client's, and one that leads to gRPC."""
CUT = 2
"""End a connection at once."""
STOP = 3
"""Send what is on its way from gRPC, for as many milliseconds as the number says at most, and end."""

PING = 4
"""Say that the relay is there, by `THERE`."""

ENDED = struct.Struct("!Q")
"""A report of the relay: the number of a connection that has ended; in any other length, what went wrong."""
THERE = b"\0"
"""The report that answers `PING`."""

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT


class _End:
    """One of a connection's two sockets, with what is to be sent to it."""

    __slots__ = ("connection", "events", "fd", "finished", "is_client", "other", "readable", "sock", "unsent")

    def __init__(self, sock: socket.socket, connection: Connection, *, is_client: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.connection = connection
        self.is_client = is_client
        self.other: _End = self
        self.unsent = b""
        self.readable = True  # until its end
        self.finished = False  # whether it has been told that no more comes
        self.events: int | None = None  # that are waited for; None while it is left alone


class Connection:
    """A connection between a client and gRPC."""

    __slots__ = ("client", "deadline", "number", "upstream")

    def __init__(self, number: int, client: socket.socket, upstream: socket.socket) -> None:
        self.number = number
        self.client = _End(client, self, is_client=True)
        self.upstream = _End(upstream, self, is_client=False)
        self.client.other, self.upstream.other = self.upstream, self.client
        self.deadline = math.inf
        """On `time.monotonic`, when it is closed, whatever is unsent; infinite until gRPC has ended it."""


class Relay:
    """Carries any number of connections, until it is asked to stop or nobody is there to ask.

    Args:
        control: One of a pair of sockets that keep messages apart.
    """

    def __init__(self, control: socket.socket) -> None:
        control.setblocking(False)
        self._control = control
        self._ends: dict[int, _End] = {}  # by descriptor
        self._connections: dict[int, Connection] = {}
        self._lingering: dict[Connection, None] = {}  # the earliest first
        self._unreported: deque[bytes] = deque()
        self._epoll = select.epoll()
        self._epoll.register(control, _READ)
        self._buffer = memoryview(bytearray(CHUNK))
        self._stop_at: float | None = None

    def run(self) -> None:
        """Carry until the end, and leave nothing open."""
        poll, ends, control = self._epoll.poll, self._ends, self._control.fileno()
        while not self._is_done():
            for fd, events in poll(self._timeout()):
                end = ends.get(fd)
                if end is not None:  # else it was closed since, or is the control
                    try:
                        self._serve(end, events)
                    except Exception:  # noqa: BLE001  one connection's trouble is not the others'
                        self._report(_traceback()[-4000:].encode())
                        self._close(end.connection)
                elif fd == control:
                    self._obey()
                    self._report()
            if self._lingering:
                self._close_late()
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()
        self._control.close()

    def _obey(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, COMMAND.size, 2)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:  # the server is gone
                self._stop_at = 0.0
                return
            what, number = COMMAND.unpack(data)
            if what == CARRY:
                self._add(number, [socket.socket(fileno=descriptor) for descriptor in descriptors])
            elif what == CUT:
                self._close(self._connections.get(number))
            elif what == PING:
                if len(self._unreported) < 1000:  # else what the server has not read yet says as much
                    self._unreported.append(THERE)
            elif what == STOP:
                self._stop_at = time.monotonic() + number / 1000

    def _report(self, data: bytes | None = None) -> None:
        """Send the server a report, as soon as it has read those before."""
        if data is not None:
            self._unreported.append(data)
        try:
            while self._unreported:
                self._control.send(self._unreported[0])
                self._unreported.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it is gone, as reading will say
            self._unreported.clear()
        self._epoll.modify(self._control, _READ | (_WRITE if self._unreported else 0))

    def _is_done(self) -> bool:
        if self._stop_at is None:
            return False
        is_sent = all(connection.client.finished for connection in self._connections.values())
        return is_sent or time.monotonic() >= self._stop_at

    def _timeout(self) -> float:
        """Seconds until there is something to do though nothing comes; -1 for none."""
        earliest = next(iter(self._lingering), None)  # all linger for as long
        ends = [] if earliest is None else [earliest.deadline]
        if self._stop_at is not None:
            ends.append(self._stop_at)
        return max(0.0, min(ends) - time.monotonic()) + 0.001 if ends else -1

    def _close_late(self) -> None:
        now = time.monotonic()
        while (earliest := next(iter(self._lingering), None)) is not None and earliest.deadline <= now:
            self._close(earliest)

    def _add(self, number: int, sockets: list[socket.socket]) -> None:
        if len(sockets) != 2:
            for sock in sockets:
                sock.close()
            self._report(b"it may open no more files; raise 'ulimit -Hn'")
            self._report(ENDED.pack(number))
            return
        for sock in sockets:
            sock.setblocking(False)
        connection = self._connections[number] = Connection(number, *sockets)
        for end in (connection.client, connection.upstream):
            self._ends[end.fd] = end
            self._watch(end)

    def _serve(self, end: _End, events: int) -> None:
        if events & (_READ | _WRITE):
            if events & _READ:
                self._move(end)
            if events & _WRITE and end.unsent:
                self._flush(end)
        elif end.readable and not (end.is_client and events & select.EPOLLERR):
            # It has closed, and the other end does not take yet what it has sent before. The system reports that again
            # and again, so this end is left alone until the other one does.
            self._leave_alone(end)
            if not end.is_client:
                self._linger(end.connection)
        else:
            self._lost(end)

    def _move(self, end: _End) -> None:
        """Receive once, and send it on."""
        try:
            count = end.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:  # reset
            self._lost(end)
            return
        if not count:
            self._end_of(end)
            return
        other = end.other
        if other.finished:
            return  # gRPC has ended the connection, and the client's last bytes are of no use
        try:
            sent = other.sock.send(self._buffer[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._refuse(other)
            return
        if sent < count:
            other.unsent = bytes(self._buffer[sent:count])
            self._watch(end)
            self._watch(other)

    def _flush(self, end: _End) -> None:
        try:
            sent = end.sock.send(end.unsent)
        except BlockingIOError:
            return
        except OSError:
            self._refuse(end)
            return
        end.unsent = end.unsent[sent:]
        if end.unsent:
            return
        if not end.other.readable:
            self._finish(end)
        self._watch(end)
        self._watch(end.other)

    def _end_of(self, end: _End) -> None:
        """Nothing more comes from there; the other end is told once it has all that came."""
        end.readable = False
        if not end.other.unsent:
            self._finish(end.other)
        self._watch(end)

    def _finish(self, end: _End) -> None:
        """End the half of the connection that leads to an end, which has all that is for it."""
        if not end.finished:
            end.finished = True
            with contextlib.suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)
        if end.other.finished and not end.readable and not end.other.readable:
            self._close(end.connection)

    def _refuse(self, end: _End) -> None:
        """One end takes no more; what it sent before may still be there to be read."""
        if end.is_client:
            self._close(end.connection)
            return
        end.finished, end.unsent = True, b""
        self._watch(end)
        self._watch(end.other)

    def _lost(self, end: _End) -> None:
        """One end is gone, in both directions."""
        if end.is_client:
            self._close(end.connection)
            return
        # What gRPC has sent before is on its way to the client, and closing with bytes of the client unread would have
        # the system reset that connection, which may overtake it.
        self._leave_alone(end)
        end.finished, end.unsent = True, b""
        self._linger(end.connection)
        self._end_of(end)
        self._watch(end.other)

    def _linger(self, connection: Connection) -> None:
        if connection not in self._lingering:
            connection.deadline = time.monotonic() + LINGER
            self._lingering[connection] = None

    def _watch(self, end: _End) -> None:
        """Wait for what can be done: to receive what the other end takes, to send what is unsent."""
        if end.fd not in self._ends:  # closed
            return
        events = (_READ if end.readable and not end.other.unsent else 0) | (_WRITE if end.unsent else 0)
        if end.events is None:
            if events:
                self._epoll.register(end.fd, events)
                end.events = events
        elif events != end.events:
            self._epoll.modify(end.fd, events)
            end.events = events

    def _leave_alone(self, end: _End) -> None:
        if end.events is not None:
            self._epoll.unregister(end.fd)
            end.events = None

    def _close(self, connection: Connection | None) -> None:
        if connection is None or self._connections.pop(connection.number, None) is None:
            return
        self._lingering.pop(connection, None)
        for end in (connection.client, connection.upstream):
            self._leave_alone(end)
            del self._ends[end.fd]
            end.sock.close()
        self._report(ENDED.pack(connection.number))


def _traceback() -> str:
    import traceback  # here, since the process is to be there at once

    return traceback.format_exc()


def main(descriptor: int, folder: str) -> None:
    """Run in a process of its own.

    Args:
        descriptor: Of the control.
        folder: Removed at the end, since a server that was killed cannot; empty for none.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the server is asked to stop by these, and asks us then
        signal.signal(number, signal.SIG_IGN)
    Relay(socket.socket(fileno=descriptor)).run()
    if folder:
        with contextlib.suppress(OSError):  # the server was faster
            for name in os.listdir(folder):  # noqa: PTH208  pathlib takes longer to load than all else here
                os.unlink(os.path.join(folder, name))  # noqa: PTH108, PTH118
            os.rmdir(folder)  # noqa: PTH106


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
