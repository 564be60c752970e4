"""The server's end of a worker's second socket, which brings connections to the worker.

Of the one that it serves, a descriptor comes back. By that the server notices that a busy worker's client is gone, and
ends the connection of a worker that is dead: what an environment forked may hold it open for as long as it likes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from asyncio import get_running_loop
from collections.abc import Callable

from remote_gym.ipc.control import WorkerCommand, WorkerEvent, receive_record, send_record
from remote_gym.logs import get_logger
from remote_gym.server.launch.disconnects import Disconnects

logger = get_logger(__name__)

_LEFT = 1_000
"""Records of a dead worker that are still read, at most: a process that it forked could send more without end."""


class DirectConnections:
    """The direct connections of one worker. Runs on the server's event loop; idle before `connect` and after `close`.

    Args:
        session: For messages.

    Attributes:
        session: As the argument.
        on_event: Called with what the worker tells beside its answers, and the value that comes with it.
    """

    def __init__(self, session: str) -> None:
        self.on_event: Callable[[int, int], None] = lambda event, value: None
        self.session = session
        self._control: socket.socket | None = None
        self._disconnects = Disconnects()
        self._client: int | None = None  # descriptor of the direct connection that it serves
        self._handed_over = 0  # direct connections so far
        self._stale = 0  # how many of them came before the session was last taken over

    def connect(self, control: socket.socket, disconnects: Disconnects) -> None:
        """Take the server's end of the socket, and what waits for the ends of clients' connections."""
        control.setblocking(False)
        self._control = control
        self._disconnects = disconnects
        get_running_loop().add_reader(control, self._receive_event)

    def hand_over(self, sock: socket.socket) -> int | None:
        """Give a connection to the worker. The caller closes its own descriptor of it.

        Returns:
            Its number, with which the worker reports it attached; None if the worker is not there to take it.
        """
        self._handed_over += 1
        number = self._handed_over
        return number if self.command(WorkerCommand.CONNECTION, number, sock.fileno()) else None

    def outdate(self) -> None:
        """The session has been taken over, by a newer connection than all that were handed over."""
        self._stale = self._handed_over

    def command(self, kind: WorkerCommand, value: int = 0, descriptor: int | None = None) -> bool:
        """Send the worker a record.

        Returns:
            Whether the worker is there to take it.
        """
        if self._control is None:
            return False
        try:
            send_record(self._control, kind, value, descriptor)
        except OSError as error:  # it is ending, or so far behind that its buffer is full
            logger.debug("session %s: its worker does not listen: %s", self.session, error)
            return False
        return True

    def close(self) -> None:
        """End the connection even if other processes hold it, and close the socket. A second call does nothing.

        For a worker that has ended: what it sent to its client still arrives.
        """
        if self._control is None:
            return
        # Word of a client that was let in just before may not have been read yet.
        with contextlib.suppress(OSError):
            for _ in range(_LEFT):
                record = receive_record(self._control)
                if record is None:
                    break
                event, _, descriptor = record
                if event in (WorkerEvent.ATTACHED, WorkerEvent.DETACHED):
                    self._forget_client()
                if descriptor is not None:
                    self._watch_client(event, descriptor)
        if self._client is not None:
            self._disconnects.cut(self._client)
        self._let_go()

    def _let_go(self) -> None:
        self._forget_client()
        if self._control is not None:
            get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None

    def _receive_event(self) -> None:
        assert self._control is not None
        try:
            record = receive_record(self._control)
        except OSError:
            record = None
        if record is None:
            # Its last word on its client it has said, if it could: who is attached yet it has left behind.
            self.close()
            return
        event, value, descriptor = record
        # A client that gave up connecting goes on over gRPC; what it sent until then may arrive later, and be admitted.
        if event == WorkerEvent.ATTACHED and value <= self._stale:
            if descriptor is not None:
                os.close(descriptor)
            return
        if event in (WorkerEvent.ATTACHED, WorkerEvent.DETACHED):
            self._forget_client()
        if descriptor is not None:
            self._watch_client(event, descriptor)
        self.on_event(event, value)

    def _watch_client(self, event: int, descriptor: int) -> None:
        try:
            if event != WorkerEvent.ATTACHED:
                raise OSError("it came with another event than a client's")
            sock = socket.socket(fileno=descriptor)
        except OSError as error:  # an environment can have its worker send what it likes
            os.close(descriptor)
            logger.warning(
                "session %s: its worker sent a descriptor that is no client's: %s",
                self.session,
                error,
                repeats=self.session,
            )
            return
        self._client = descriptor
        self._disconnects.watch(sock, lambda silence_ms: self.on_event(WorkerEvent.DETACHED, silence_ms))

    def _forget_client(self) -> None:
        if self._client is not None:
            self._disconnects.forget(self._client)
            self._client = None
