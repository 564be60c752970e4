"""The server's end of the relay: starts its process, hands it connections, and keeps count of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
from pathlib import Path

from remote_gym.logs import get_logger
from remote_gym.server.frontends.relay.peers import Peer, forget_peer, note_peer
from remote_gym.server.frontends.relay.process import CARRY, COMMAND, CUT, ENDED, PING, STOP, THERE

logger = get_logger(__name__)

ACCEPT_TIMEOUT = 2.0
"""Seconds that gRPC, and the relay, have to take one more connection."""

FLUSH = 1.0
"""Seconds that the relay has to send gRPC's last bytes once the server stops."""

PING_EVERY = 1.0
"""Seconds between two questions whether the relay is there, while there are connections."""

UNANSWERED = 3
"""Unanswered pings in a row after which it is killed: it has been stopped, or hangs, and nobody gets through. Counted,
rather than seconds, since it is the server itself that may have been stopped."""

STARTING = 10
"""And as many more of a relay that has just been started, on a machine that may be busy."""

CUT_AGAIN = 0.1
"""Seconds until a connection is cut again that has not ended."""

KEPT = 15.0
"""Seconds that a connection's peer is known after its end: gRPC may have calls of it yet to begin, and a server that is
flooded takes seconds to do so."""

_INTERVAL = 0.01
"""Seconds between two attempts: a Unix socket whose queue is full does not say when it is no more."""

_PROGRAM = Path(__file__).with_name("process.py")


class RelayControl:
    """Has a process relay gRPC's clients to gRPC. Runs on the server's event loop.

    Args:
        upstream: Address of gRPC's private Unix socket.
        folder: To remove once the server is gone, however it ends; empty for none.
    """

    def __init__(self, upstream: str, folder: str) -> None:
        self._upstream = upstream
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._open: dict[int, str] = {}  # the names of their ends, by numbers
        self._carried: set[int] = set()  # by the relay that there is
        self._others: set[int] = set()  # which are not gRPC's
        self._cutting: set[int] = set()
        self._names: set[str] = set()  # of those that have ended shortly before, too
        self._unanswered = 0
        self._pinging: asyncio.TimerHandle | None = None
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reaping: asyncio.Task[bool] | None = None  # of a process that ended by itself; the loop holds none itself
        self._start()

    def __len__(self) -> int:
        """How many connections of gRPC's are open."""
        return len(self._open) - len(self._others)

    @property
    def pid(self) -> int | None:
        """The relay's process; None once it has ended."""
        return None if self._process is None else self._process.pid

    async def carry(self, client: socket.socket, data: bytes, peer: str) -> None:
        """Connect a client to gRPC. The caller closes its socket, of which the relay has another descriptor.

        Args:
            client: The client's.
            data: What has been read from it.
            peer: Its address, by which gRPC will know it.

        Raises:
            OSError: If gRPC does not accept, or the relay cannot take it.
        """
        number = next(self._numbers)
        name = self._open[number] = note_peer(Peer(peer, number))
        self._names.add(name)
        try:
            with socket.socket(socket.AF_UNIX) as upstream:
                upstream.setblocking(False)
                upstream.bind(b"\0" + name.encode())
                deadline = self._loop.time() + ACCEPT_TIMEOUT
                while True:
                    try:
                        upstream.connect(self._upstream)
                        break
                    except BlockingIOError:
                        await self._pause(deadline)
                await self._hand_over(number, client, upstream, data, deadline)
        except BaseException:
            self._ended(number)
            raise

    async def carry_to(self, upstream: socket.socket, client: socket.socket, data: bytes) -> None:
        """Connect a client to what is at the other end of a socket. The caller closes both.

        Args:
            upstream: One of a pair.
            client: The client's.
            data: What has been read from it.

        Raises:
            OSError: If the relay cannot take it.
        """
        number = next(self._numbers)
        self._open[number] = ""
        self._others.add(number)
        try:
            upstream.setblocking(False)
            await self._hand_over(number, client, upstream, data, self._loop.time() + ACCEPT_TIMEOUT)
        except BaseException:
            self._ended(number)
            raise

    async def _hand_over(
        self, number: int, client: socket.socket, upstream: socket.socket, data: bytes, deadline: float
    ) -> None:
        upstream.sendall(data)  # which an empty socket's buffer takes whole
        while True:
            try:
                self._command(CARRY, number, client, upstream)
                self._carried.add(number)
                return
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):  # busy, or just dead: the next one
                await self._pause(deadline)

    def cut(self, number: int) -> bool:
        """End a connection, as soon as the relay takes the command.

        Returns:
            Whether that is news: it is open, and this has not been asked for before.
        """
        if number not in self._open or number in self._cutting:
            return False
        if not self._cutting:
            self._loop.call_later(CUT_AGAIN, self._cut_again)
        self._cutting.add(number)
        with contextlib.suppress(OSError):
            self._command(CUT, number)
        return True

    def _cut_again(self) -> None:
        """Until they have ended: the relay may have been too busy, or have got the connection after the command."""
        with contextlib.suppress(OSError):
            for number in self._cutting:
                self._command(CUT, number)
        if self._cutting:
            self._loop.call_later(CUT_AGAIN, self._cut_again)

    async def stop(self) -> None:
        """Have it send what is on its way from gRPC, and end."""
        process, self._process = self._process, None
        try:
            if process is not None:
                await self._end(process)
        finally:
            for name in list(self._names):
                self._forget_peer(name)

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError):
            self._command(STOP, int(FLUSH * 1e3))
        if not await self._has_ended(process, FLUSH + 2.0):
            logger.error("the relay of gRPC's connections did not end; killing it")
            process.kill()
            process.wait(2.0)
        self._forget()

    async def _has_ended(self, process: subprocess.Popen[bytes], timeout: float) -> bool:
        # By looking, not in the loop's executor, which takes no more work once the program's last line has run.
        deadline = self._loop.time() + timeout
        while process.poll() is None:
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(_INTERVAL)
        return True

    async def _pause(self, deadline: float) -> None:
        if self._loop.time() >= deadline:
            raise TimeoutError("too many connections wait to be taken")
        await asyncio.sleep(_INTERVAL)

    def _command(self, what: int, number: int, *sockets: socket.socket) -> None:
        if self._control is None:
            if self._process is not None or not sockets:
                raise ConnectionError("the relay has ended")
            self._start()
            assert self._control is not None
        descriptors = [sock.fileno() for sock in sockets]
        socket.send_fds(self._control, [COMMAND.pack(what, number)], descriptors)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", _PROGRAM, str(theirs.fileno()), self._folder],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C at a terminal is for the server, which then stops the relay
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._control = ours
        self._loop.add_reader(ours, self._listen)
        self._unanswered = -STARTING
        self._pinging = self._loop.call_later(PING_EVERY, self._ping)

    def _ping(self) -> None:
        if self._process is None or self._control is None:
            return
        self._pinging = self._loop.call_later(PING_EVERY, self._ping)
        if not self._open:
            return
        if self._unanswered >= UNANSWERED:
            logger.error("the relay of gRPC's connections does not answer; killing it")
            self._process.kill()  # which ends the control
            return
        self._unanswered += 1
        with contextlib.suppress(OSError):
            self._command(PING, 0)

    def _listen(self) -> None:
        assert self._control is not None
        for _ in range(256):  # the rest in the loop's next turn
            try:
                report = self._control.recv(8192)
            except BlockingIOError:
                return
            except OSError:
                report = b""
            if not report:
                break
            if len(report) == ENDED.size:
                self._ended(*ENDED.unpack(report))
            elif report == THERE:
                self._unanswered = 0
            else:
                logger.error("could not relay a connection", details=report.decode(errors="replace"), repeats="")
        else:
            return
        self._forget()
        if self._process is not None:
            logger.error("the relay of gRPC's connections has ended, and they with it; the next one starts another")
            ended, self._process = self._process, None
            self._reaping = self._loop.create_task(self._has_ended(ended, 5.0))

    def _forget(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None
        # One that waits to be taken is the next relay's.
        for number in list(self._carried):
            self._ended(number)

    def _ended(self, number: int) -> None:
        self._carried.discard(number)
        self._cutting.discard(number)
        self._others.discard(number)
        if name := self._open.pop(number, ""):
            self._loop.call_later(KEPT, self._forget_peer, name)

    def _forget_peer(self, name: str) -> None:
        self._names.discard(name)
        forget_peer(name)
