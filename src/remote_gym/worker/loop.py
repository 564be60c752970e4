"""Answers the requests of one session until the other end is gone, or another session may have the environment.

The same loop serves in a process of its own, which a forkserver forks, and in a thread of the server. It cannot tell,
nor need, which way a request came: through the server, or over a connection that the server handed over.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, RemoteGymError, SessionLost, TransportError
from remote_gym.ipc import close_reasons
from remote_gym.ipc.control import WorkerCommand, WorkerEvent, receive_record, send_record
from remote_gym.logs import get_logger
from remote_gym.transport.busy_poll import Wakefulness, look
from remote_gym.transport.direct_socket import DirectSocket, shut_down
from remote_gym.transport.framing import MessageSocket
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import error_response
from remote_gym.worker.environment.texts.waiting import new_poll
from remote_gym.worker.handshake import Handshake
from remote_gym.worker.host import Host
from remote_gym.worker.idle import IdleClock
from remote_gym.worker.pending import AdmittedClient, PendingClients

logger = get_logger(__name__)

STALL_TIMEOUT = 30.0
"""Seconds that a message on a direct connection may take from its first byte to its last."""

FAREWELL_TIMEOUT = 0.2
"""Seconds to tell a client that its connection ends, which it may have left long ago."""


class WorkerLoop:
    """The loop that waits for requests wherever they may come from.

    Args:
        host: What answers.
        server: Requests that came through the server.
        control: Brings direct connections.
        launch: Whom to admit to them.
        limits: Bounds on messages.
        on_direct: Called with each direct connection that is taken.

    Attributes:
        has_left: Whether the server has ended the session, and has the worker wait for another one.
    """

    def __init__(
        self,
        host: Host,
        server: MessageSocket,
        control: socket.socket,
        launch: worker_pb2.Launch,
        limits: Limits,
        on_direct: Callable[[DirectSocket], None],
    ) -> None:
        self._host = host
        self._server = server
        self._control = control
        self._launch = launch
        self._on_direct = on_direct
        self._direct: DirectSocket | None = None
        self._answered_until = math.inf  # on time.perf_counter; what comes later has to come over a newer connection
        self._is_old = False
        self._poll_us = 0
        self._wakefulness = Wakefulness(0.0)
        self._answer = host.answer_in_parts
        self._idle_clock: IdleClock | None = (
            None  # none is needed while neither the server drains nor idling is limited
        )
        self._asked = False  # whether there was a request since idle_clock was last looked at
        self._sleep_ms: float | None = None  # how long to wait before it is looked at again
        self._farewell = close_reasons.UNTOLD
        self.has_left = False
        self._poll = new_poll()
        self._poll.register(server, select.POLLIN)
        self._poll.register(control, select.POLLIN)
        self._pending = PendingClients(Handshake(launch, limits), self._poll)

    def serve(self) -> None:
        """Answer until the environment is closed, the server is gone, or the session has ended otherwise.

        Raises:
            TransportError: If the server went away within a message.
        """
        try:
            while not self._host.closed and not self.has_left:
                for descriptor in self._wait_for_arrivals() if self._pending.pending else self._wait():
                    if self._direct is not None and descriptor == self._direct.fileno():
                        # A client that is idle keeps its session, so an old connection ends by what it is asked next.
                        # That is not answered, and the client asks again where it shows its certificate again.
                        if self._is_old:
                            logger.info(
                                "the direct connection has reached its age; its client has to make another", repeats=""
                            )
                            self._drop()
                        else:
                            self._answer_directly(self._direct)
                    elif descriptor == self._control.fileno():
                        self._receive_command()
                    elif descriptor in self._pending.pending:
                        self._take(self._pending.go_on(descriptor))
                    # Not whatever else it may be: a direct connection that has just been dropped was ready, too.
                    elif descriptor == self._server.fileno() and not self._answer_server():
                        # Where it is to be dropped, which the server has said first, the client asks the server
                        # for the reason instead.
                        while self._control.fileno() in dict(self._poll.poll(0)):
                            self._receive_command(admits=False)
                        self._say_farewell(self._lost())
                        return
                    if self.has_left:  # what else has come is answered no more
                        self._say_farewell(self._lost())
                        break
                if self._pending.pending:
                    self._pending.drop_late()
                if self._idle_clock is not None:
                    self._look_at_clock(self._idle_clock)
        finally:
            self._drop()
            self._pending.close()

    def clients(self) -> list[int]:
        """Descriptors of clients' own connections: of the one that is used, and of those on their way in."""
        return [*self._pending.pending, *([] if self._direct is None else [self._direct.fileno()])]

    def _say_farewell(self, reason: RemoteGymError) -> None:
        """Tell the client why its next request will not be answered."""
        if self._direct is not None:
            _say_farewell(self._direct, reason)

    def _lost(self) -> SessionLost:
        return close_reasons.lost(self._launch.session, self._farewell)

    def _wait(self) -> list[int]:
        """Descriptors of which something can be read."""
        if self._direct is not None:
            begin = time.perf_counter()
            self._is_old = begin >= self._answered_until
            if self._direct.has_message_begun():
                return [self._direct.fileno()]
            # A client that steps at full speed comes back before this process could be sent to sleep and woken.
            wakefulness = self._wakefulness
            events = (wakefulness.seconds > 0 and look(self._poll.poll, wakefulness)) or self._sleep()
            now = time.perf_counter()
            self._is_old = now >= self._answered_until
            if 0 < wakefulness.base < now - begin:
                wakefulness.learn(now - begin)
            return [descriptor for descriptor, _ in events]
        return [descriptor for descriptor, _ in self._sleep()]

    def _wait_for_arrivals(self) -> list[int]:
        begin = time.monotonic()
        ready = self._wait()
        self._pending.wait(time.monotonic() - begin)
        return ready

    def _sleep(self) -> list[tuple[int, int]]:
        """Wait until something can be read, or the clock has to be looked at."""
        milliseconds = self._sleep_ms
        if self._pending.pending:
            until_late = 1000 * self._pending.seconds() + 1
            milliseconds = until_late if milliseconds is None else min(until_late, milliseconds)
        return self._poll.poll(milliseconds)

    def _look_at_clock(self, idle_clock: IdleClock) -> None:
        if self._asked:
            self._asked = False
            idle_clock.restart()
        event, seconds = idle_clock.verdict(self._host.between_episodes)
        if event is not None:
            # The server ends the session, or not: it knows better whether anybody is attached.
            self._farewell = (
                close_reasons.DRAINED if event is WorkerEvent.DRAINED else close_reasons.idled(idle_clock.idle_timeout)
            )
            self._report(event)
        self._sleep_ms = None if seconds is None else 1000 * seconds + 1

    def _answer_while_draining(self, data: bytes | memoryview) -> tuple[bytes, ...]:
        if not self._host.begins_episode(data):
            return self._host.answer_in_parts(data)
        self._farewell = close_reasons.DRAINED
        self._report(WorkerEvent.DRAINED)
        return (error_response(self._lost()),)

    def _answer_server(self) -> bool:
        data = self._server.receive()
        if data is not None:
            self._asked = True
            self._server.send(self._answer(data))
        return data is not None

    def _answer_directly(self, direct: DirectSocket) -> None:
        try:
            data = direct.receive(time.monotonic() + STALL_TIMEOUT)
            if data is not None:
                self._asked = True
                direct.send(self._answer(data), time.monotonic() + STALL_TIMEOUT)
                return
        except (TransportError, EncodingError) as error:
            logger.info("the direct connection ended: %s", error, repeats="")
        self._drop(direct.silence_ms())

    def _receive_command(self, *, admits: bool = True) -> None:
        try:
            record = receive_record(self._control)
        except OSError:  # the server closed it with something of ours unread
            record = None
        if record is None:
            self._poll.unregister(self._control)
            return
        kind, value, descriptor = record
        if kind == WorkerCommand.TAKEN_OVER:
            self._say_farewell(close_reasons.taken_over(self._launch.session))
            self._pending.outdate()
            self._drop()
        elif kind == WorkerCommand.DROP:
            self._pending.close()
            self._drop()
        elif kind == WorkerCommand.POLL:
            self._poll_us = value
            self._wakefulness.set_base(value / 1e6)
        elif kind == WorkerCommand.DRAIN:
            self._limited_idle_clock().draining = True
            self._answer = self._answer_while_draining
            self._farewell = close_reasons.STOPPING
        elif kind == WorkerCommand.LIMIT_IDLE:
            self._limited_idle_clock().idle_timeout = value / 1000
        elif kind == WorkerCommand.LEAVE:
            self.has_left = True
        elif descriptor is not None:
            sock = socket.socket(fileno=descriptor)
            if admits:
                self._take(self._pending.begin(sock, value, self._poll_us))
            else:
                shut_down(sock)
                sock.close()

    def _limited_idle_clock(self) -> IdleClock:
        if self._idle_clock is None:
            self._idle_clock = IdleClock(time.monotonic)
        return self._idle_clock

    def _take(self, arrived: AdmittedClient | None) -> None:
        """Use a client's connection from now on, if there is one, in place of the one before."""
        if arrived is None:
            return
        if arrived.outdated:
            _say_farewell(arrived.direct, close_reasons.taken_over(self._launch.session))
            arrived.direct.shut_down()
            arrived.direct.close()
            return
        self._say_farewell(close_reasons.taken_over(self._launch.session))
        self._drop()
        self._direct, self._answered_until = arrived.direct, arrived.answered_until
        self._on_direct(arrived.direct)
        self._poll.register(arrived.direct, select.POLLIN)
        self._asked = True
        self._report(WorkerEvent.ATTACHED, arrived.number, arrived.direct.fileno())

    def _drop(self, silence_ms: int = 0) -> None:
        if self._direct is not None:
            self._poll.unregister(self._direct)
            self._direct.shut_down()  # closing alone would not end it, since the server holds a descriptor of it
            self._direct.close()
            self._direct = None
            self._report(WorkerEvent.DETACHED, silence_ms)

    def _report(self, event: WorkerEvent, value: int = 0, descriptor: int | None = None) -> None:
        with contextlib.suppress(OSError):  # the server may be gone, which the loop notices by itself
            send_record(self._control, event, value, descriptor)


def _say_farewell(direct: DirectSocket, reason: RemoteGymError) -> None:
    with contextlib.suppress(TransportError):
        direct.send(error_response(reason), time.monotonic() + FAREWELL_TIMEOUT)
