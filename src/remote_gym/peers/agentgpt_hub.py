"""Place at which environment hosts of AgentGPT dial in: a port of this process, and the hosts that are there."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError, DeadlineExceeded
from remote_gym.logs import get_logger
from remote_gym.peers.agentgpt_wire import event_of, is_heartbeat
from remote_gym.peers.background import Background
from remote_gym.peers.conversation import Conversation
from remote_gym.peers.elements import shown
from remote_gym.tls import server_context
from remote_gym.transport.direct_socket import set_options
from remote_gym.transport.waiting import within

logger = get_logger(__name__)

INIT_TIMEOUT = 10.0
"""Seconds that a connection has to show the training key."""

INIT_BYTES = 2**14
"""Bytes of a message of one that has not."""

MOST_STRANGERS = 64
"""Connections at once that have not."""

MOST_HOSTS = 1024


@dataclass(frozen=True)
class Settings:
    """How hosts are listened for.

    Attributes:
        address: Where.
        port: There; 0 for a free one.
        key: The training key.
        tls: PEM files; None for no TLS.
        message_bytes: Size of one message.
    """

    address: str
    port: int
    key: bytes = field(repr=False)
    tls: TlsFiles | None
    message_bytes: int


class Host:
    """An environment host that has dialled in, and shown the training key.

    Attributes:
        conversation: With it.
        index: Its ``env_idx``.
        is_taken: Whether an environment uses it.
    """

    def __init__(self, conversation: Conversation, index: int) -> None:
        self.conversation = conversation
        self.index = index
        self.is_taken = False


class Hub:
    """A port at which hosts dial in, and which the environments of a process share that name it.

    Attributes:
        background: Where it runs.
        port: That it listens on.
    """

    _all: ClassVar[dict[tuple[str, int], Hub]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts: list[Host] = []
        self._strangers = self._users = 0
        self.port = settings.port
        self.background = Background(f"remote_gym.agentgpt {settings.port}")
        try:
            self._server = self.background.run(self._start())
        except BaseException:
            self.background.stop()
            raise

    @classmethod
    def join(cls, settings: Settings) -> Hub:
        """Hub of that address and port; there is one from the first that joins it until the last has left.

        Raises:
            ConfigError: If it cannot listen there, or does so with another key, other files or limits.
        """
        with cls._lock:
            hub = cls._all.get((settings.address, settings.port))
            if hub is None:
                hub = cls(settings)
                cls._all[settings.address, hub.port] = hub
            elif (hub._settings.key, hub._settings.tls, hub._settings.message_bytes) != (
                settings.key,
                settings.tls,
                settings.message_bytes,
            ):
                raise ConfigError(
                    f"is {settings.port}, where this process listens with another key, other certificates or limits",
                    field="port",
                    where="port",
                )
            hub._users += 1
            return hub

    def leave(self) -> None:
        """Say that one of those that have joined it needs it no more."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            del self._all[self._settings.address, self.port]
            try:
                self.background.run(self._stop())
            finally:
                self.background.stop()

    def take(self, index: int | None, timeout: float) -> Host:
        """Take a host that nobody else uses; wait for one.

        Args:
            index: Its ``env_idx``; None for any.
            timeout: Seconds.

        Raises:
            DeadlineExceeded: If none came.
        """
        return self.background.run(self._take(index, timeout))

    def give_back(self, host: Host) -> None:
        """Let others use a host; one that still owes an answer is cut."""
        self.background.run(self._give_back(host))

    async def _start(self) -> Server:
        self._changed = asyncio.Condition()
        settings = self._settings
        more: dict[str, Any] = {}
        if settings.tls is not None:
            more = {"ssl": server_context(settings.tls), "ssl_handshake_timeout": INIT_TIMEOUT}
        try:
            server: Server = await serve(
                self._serve,
                settings.address,
                settings.port,
                process_request=self._check_request,
                compression=None,  # a message of a few bytes could else fill the memory
                open_timeout=INIT_TIMEOUT,
                # A host answers no pings while its environment works; TCP notices those that are gone.
                ping_interval=None,
                close_timeout=1.0,
                max_size=INIT_BYTES,
                **more,
            )
        except OSError as error:
            text = f"is {settings.port}, where nobody can listen at {settings.address!r}: {error.strerror or error}"
            raise ConfigError(text, field="port", where="port") from error
        self.port = next(iter(server.sockets)).getsockname()[1]
        return server

    async def _stop(self) -> None:
        self._server.close()
        for host in list(self._hosts):
            await host.conversation.close(1.0)
        with contextlib.suppress(asyncio.TimeoutError):
            await within(5.0, self._server.wait_closed())

    def _check_request(self, connection: ServerConnection, request: Any) -> Any:
        """Refuse pages of browsers, whose Origin is another one than the host that they ask, and crowds."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
            return connection.respond(http.HTTPStatus.FORBIDDEN, "pages of other sites are refused\n")
        if self._strangers >= MOST_STRANGERS or len(self._hosts) >= MOST_HOSTS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        peer = shown(connection.remote_address)
        self._strangers += 1
        try:
            index = await self._greeted(connection, peer)
        finally:
            self._strangers -= 1
        if index is None:
            await connection.close(1008, "show the training key")
            return
        # Under one name or another, in all releases there are.
        for name in ("max_size", "max_message_size"):
            if hasattr(connection.protocol, name):
                setattr(connection.protocol, name, self._settings.message_bytes)
        if (sock := connection.transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                set_options(sock)
        host = Host(Conversation(connection, f"the environment host {index} at {peer}", is_heartbeat), index)
        logger.info("an environment host has dialled in from %s, with env_idx %d", peer, index)
        async with self._changed:
            self._hosts.append(host)
            self._changed.notify_all()
        try:
            await asyncio.wait({host.conversation.reading})
        finally:
            self._hosts.remove(host)
            logger.info("the environment host with env_idx %d at %s is gone", index, peer)

    async def _greeted(self, connection: ServerConnection, peer: str) -> int | None:
        """The host's ``env_idx``; None for a stranger."""
        try:
            event = event_of(await within(INIT_TIMEOUT, _received(connection)))
        except (asyncio.TimeoutError, ConnectionClosed):
            return None
        key = event.get("training_key") if event is not None and event.get("action") == "init" else None
        sent = key.encode("utf-8", "replace") if isinstance(key, str) else b""
        if not hmac.compare_digest(sent, self._settings.key) or event is None:
            logger.warning(
                "refused an environment host at %s, which does not know the training key", peer, repeats=peer
            )
            return None
        data = event.get("data")
        index = data.get("env_idx", 0) if isinstance(data, dict) else 0
        return index if type(index) is int and 0 <= index < 2**31 else None

    async def _take(self, index: int | None, timeout: float) -> Host:
        try:
            return await within(timeout, self._taken(index), _untake)
        except asyncio.TimeoutError:
            which = "no environment host" if index is None else f"no environment host with env_idx {index}"
            used = sum(host.is_taken for host in self._hosts)
            text = (
                f"{which} was there to be used at port {self.port} within {timeout:g} s; {len(self._hosts)} are there"
            )
            raise DeadlineExceeded(f"{text}, and {used} in use") from None

    async def _taken(self, index: int | None) -> Host:
        async with self._changed:
            while True:
                free = [host for host in self._hosts if not host.is_taken and host.conversation.is_open]
                free = [host for host in free if index is None or host.index == index]
                if free:
                    host = min(free, key=lambda each: each.index)
                    host.is_taken = True
                    return host
                await self._changed.wait()

    async def _give_back(self, host: Host) -> None:
        if host.conversation.owes:
            await host.conversation.cut()
        async with self._changed:
            host.is_taken = False
            self._changed.notify_all()


def _untake(host: Host) -> None:
    host.is_taken = False


async def _received(connection: ServerConnection) -> Any:
    return await connection.recv()
