"""A TCP proxy that breaks connections as networks do, at the point that it is told.

It listens on an address of its own under the very port of the server, and tells direct connections from gRPC's by the
preamble with which they begin.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import fcntl
import socket
import struct
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from remote_gym.transport.direct_socket import PREAMBLE

CHUNK = 2**16
_SO_ATTACH_FILTER = 26
_RETURN = 0x06  # BPF_RET | BPF_K

Direction = Literal["up", "down"]
Way = Literal["direct", "grpc"]


@dataclass
class Interference:
    """What shall happen to the next bytes of a connection.

    Attributes:
        way: The connection's kind.
        direction: "up" is from client to server.
        after: How many bytes of them pass first.
        whole: Let the rest of what was read along with them pass, too.
        act: ``"reset"`` ends both sides by RST; ``"silence"`` lets not a single packet through to either of the
            proxy's ends any more, nor an acknowledgement; ``"forget_client"`` resets towards the server and is silent
            to the client, ``"forget_server"`` the other way round; ``"hold"`` goes on after `seconds`.
        seconds: For ``"hold"``.
        everywhere: Silence the client's other connections as well.
    """

    way: Way
    direction: Direction
    after: int
    act: Literal["reset", "silence", "forget_client", "forget_server", "hold"]
    whole: bool = False
    seconds: float = 0.0
    everywhere: bool = False
    fired: threading.Event = field(default_factory=threading.Event)


class Network:
    """The thread in which proxies run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="network")
        self._thread.start()

    def call(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(function(), self.loop).result(30.0)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30.0)
        self.loop.close()


class Proxy:
    """Between one client and its server.

    Args:
        network: Where to run.
        host: To listen on.
        target: The server's address.
        port: The server's.
    """

    def __init__(self, network: Network, host: str, target: str, port: int) -> None:
        self.host = host
        self._network = network
        self._target = target
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[_Link] = set()
        self._armed: Interference | None = None
        self.is_out = False
        """Whether the network is down: connections are refused."""
        self.accepted: Counter[Way] = Counter()
        """How many connections of each kind were made."""
        self._listening = socket.create_server((host, port))
        self._listening.setblocking(False)
        network.call(self._start)

    def arm(self, interference: Interference) -> Interference:
        """Interfere with the bytes that come next; once."""

        async def set_armed() -> None:
            self._armed = interference

        self._network.call(set_armed)
        return interference

    def cut_all(self) -> None:
        """Reset every connection there is."""

        async def cut() -> None:
            for link in list(self._links):
                link.reset()

        self._network.call(cut)

    def silence_now(self) -> None:
        """Let every connection that there is die without a word."""
        self._network.call(self.silence_all)

    def close(self) -> None:
        """End everything, those included that were silenced."""
        self._network.call(self._stop)

    async def _start(self) -> None:
        self._spawn(self._accept())

    async def _stop(self) -> None:
        for link in list(self._links):
            link.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._network.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        while True:
            client, _ = await self._network.loop.sock_accept(self._listening)
            if self.is_out:
                reset(client)
            else:
                self._spawn(self._connect(client))

    async def _connect(self, client: socket.socket) -> None:
        server = socket.socket()
        server.setblocking(False)
        try:
            await self._network.loop.sock_connect(server, (self._target, self._port))
        except OSError:
            server.close()
            reset(client)
            return
        except BaseException:
            server.close()
            client.close()
            raise
        link = _Link(self, client, server)
        self._links.add(link)
        link.pumps = (self._spawn(link.pump("up")), self._spawn(link.pump("down")))

    def take_armed(self, way: Way, direction: Direction, size: int) -> tuple[Interference | None, int]:
        """What to do with so many bytes: an interference that is due, and how many of them pass before it."""
        armed = self._armed
        if armed is None or (armed.way, armed.direction) != (way, direction):
            return None, size
        if armed.after > size:
            armed.after -= size
            return None, size
        self._armed = None
        return armed, size if armed.whole else armed.after

    async def silence_all(self) -> None:
        for link in list(self._links):
            await link.silence(link.client, link.server)

    def forget(self, link: _Link) -> None:
        self._links.discard(link)


class _Link:
    """A connection through the proxy: two sockets, and a task for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._way: Way | None = None
        self.client = client
        self.server = server
        self.pumps: tuple[asyncio.Task[None], ...] = ()
        self._silent = False
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def pump(self, direction: Direction) -> None:
        loop = asyncio.get_running_loop()
        source, sink = (self.client, self.server) if direction == "up" else (self.server, self.client)
        try:
            while data := await loop.sock_recv(source, CHUNK):
                if self._silent:
                    return
                if self._way is None and direction == "up":
                    self._way = "direct" if data.startswith(PREAMBLE) else "grpc"
                    self._proxy.accepted[self._way] += 1
                interference, passing = self._proxy.take_armed(self._way or "grpc", direction, len(data))
                await loop.sock_sendall(sink, data[:passing])
                if interference is not None:
                    await self._interfere(interference)
                    interference.fired.set()
                    if interference.act != "hold":
                        return
                    await loop.sock_sendall(sink, data[passing:])
            if not self._silent:
                sink.shutdown(socket.SHUT_WR)
                if all(pump.done() or pump is asyncio.current_task() for pump in self.pumps):
                    self._end(socket.socket.close)
        except OSError:
            # One side is gone; to the other it looks as it would without a proxy.
            if not self._silent:
                self.reset()

    async def _interfere(self, interference: Interference) -> None:
        if interference.act == "reset":
            self.reset()
        elif interference.act == "hold":
            await asyncio.sleep(interference.seconds)
        elif interference.everywhere:
            await self._proxy.silence_all()
        elif interference.act == "silence":
            await self.silence(self.client, self.server)
        else:
            kept, ended = self.client, self.server
            if interference.act == "forget_server":
                kept, ended = ended, kept
            await self.silence(kept)
            self._stop_pumps()
            asyncio.get_running_loop().call_soon(reset, ended)

    async def silence(self, *sockets: socket.socket) -> None:
        self._silent = True
        for sock in sockets:
            # What is not acknowledged by then would be sent again and again, which is not silent.
            await _acknowledged(sock)
            drop_what_arrives(sock)

    def reset(self) -> None:
        """Close both sides by RST."""
        self._end(reset)

    def _end(self, close: Callable[[socket.socket], None]) -> None:
        self._proxy.forget(self)
        self._stop_pumps()
        # After the pumps have let go of them: the loop knows sockets by numbers, which the next connection may get.
        for sock in (self.client, self.server):
            asyncio.get_running_loop().call_soon(close, sock)

    def _stop_pumps(self) -> None:
        for pump in self.pumps:
            if pump is not asyncio.current_task():
                pump.cancel()


async def _acknowledged(sock: socket.socket) -> None:
    """Wait until all that was sent has been acknowledged, for a second at most."""
    deadline = time.monotonic() + 1.0
    while sock.fileno() >= 0 and time.monotonic() < deadline:
        unacknowledged = array.array("i", [0])
        fcntl.ioctl(sock, termios.TIOCOUTQ, unacknowledged)
        if not unacknowledged[0]:
            return
        await asyncio.sleep(0.001)


def reset(sock: socket.socket) -> None:
    """Close by RST."""
    with contextlib.suppress(OSError):  # closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drop_what_arrives(sock: socket.socket) -> None:
    """Have Linux drop each packet that comes for the socket before TCP sees, and acknowledges, it."""
    if sock.fileno() < 0:
        return
    program = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
