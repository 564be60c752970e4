"""gRPC channels of one event loop, each shared by many sessions at one server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio

from remote_gym.address import Place, grpc_address
from remote_gym.client.connect import forking
from remote_gym.client.connect.channel import channel_options
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.diagnosis import Check, diagnose
from remote_gym.client.connect.registry import CHANNELS
from remote_gym.config import ClientOptions, TlsFiles

MOST_SESSIONS = 500
"""Sessions on one channel. A server takes 1,024 calls at a time of a connection, and a session over gRPC is one that
lasts; when it breaks, each asks by another what has become of it."""

MOST_OPENING = 64
"""Sessions that are being opened, or closed, at a server at the same time. It reads what 256 calls of a client ask for,
and refuses more; a machine with some cores creates fewer environments at a time than these."""

MOST_ATTACHING = 16
"""Direct connections that are made at the same time: the work is this loop's, and each has little time."""


class SharedChannel:
    """A channel, open as long as somebody uses it.

    Args:
        address: As gRPC takes it.
        credentials: What the client shows.
        options: The client's.

    Attributes:
        users: How many use it.
    """

    def __init__(self, address: str, credentials: Credentials, options: ClientOptions) -> None:
        forking.check_usable()
        self._credentials = credentials
        self._used = credentials.channel()
        settings = channel_options(options.message_limits, options.server_name)
        if self._used is None:
            self._channel = grpc.aio.insecure_channel(address, options=settings)
        else:
            self._channel = grpc.aio.secure_channel(address, self._used, options=settings)
        self._is_closed = False
        self.users = 0
        CHANNELS.add(self)

    @property
    def is_outdated(self) -> bool:
        """Whether certificates have changed: a channel keeps those that it was made with."""
        return self._credentials.channel() is not self._used

    def unary(self, method: str) -> Any:
        """Function that makes calls of that method, for one answer to one message."""
        return self._channel.unary_unary(method)

    def stream(self, method: str) -> Any:
        """Function that makes calls of that method, for many."""
        return self._channel.stream_stream(method)

    async def close(self) -> None:
        """End every call and close the channel."""
        self._is_closed = True
        await self._channel.close()
        forking.channel_closed()

    def before_fork(self, deadline: float) -> bool:
        """Leave it open, since it is closed by its loop alone: a child that is forked meanwhile cannot use gRPC."""
        return self._is_closed

    def after_fork(self) -> None:
        """Do nothing: it was left open."""

    def in_child(self) -> None:
        """Do nothing: it is the parent's."""


class Server:
    """A server as one event loop knows it: what all of its sessions there share.

    Args:
        place: Where it is.
        files: PEM files; None for plaintext.
        token: What the server knows the client by; empty for a certificate.
        options: The client's. Of them, those count of who came first.

    Attributes:
        credentials: What the client shows.
        opening: Admits those that open a session.
        closing: Admits those that close one.
        attaching: Admits those that make a direct connection.
        connecting: Admits those that connect for the first time, before they learn where to.
    """

    def __init__(self, place: Place, files: TlsFiles | None, token: str, options: ClientOptions) -> None:
        self._place, self._files, self._options = place, files, options
        self.credentials = Credentials(files, token)
        self.opening = asyncio.Semaphore(MOST_OPENING)
        self.closing = asyncio.Semaphore(MOST_OPENING)
        self.attaching = asyncio.Semaphore(MOST_ATTACHING)
        self.connecting = asyncio.Semaphore(MOST_ATTACHING)
        self._channels: list[SharedChannel] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._diagnosis: asyncio.Task[list[Check]] | None = None
        self._lock = threading.Lock()  # of the two below
        self._blocking: GrpcConnection | None = None
        self._blocking_users = 0

    def acquire(self) -> SharedChannel:
        """A channel for one more session, to be released by it.

        Raises:
            ConfigError: If the files never fitted.
            ConnectError: In a forked child in which gRPC cannot be used.
        """
        for channel in self._channels:
            if channel.users < MOST_SESSIONS and not channel.is_outdated:
                break
        else:
            channel = SharedChannel(grpc_address(*self._place), self.credentials, self._options)
            self._channels.append(channel)
        channel.users += 1
        return channel

    def release(self, channel: SharedChannel) -> None:
        """Use it no more; the last one has it closed."""
        channel.users -= 1
        if channel.users == 0:
            self._channels.remove(channel)
            closing = asyncio.ensure_future(channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def closed(self) -> None:
        """Wait until channels are closed that nobody uses."""
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def diagnose(self, timeout: float) -> list[Check]:
        """Look at the connection: what is wrong, if something is. All who ask at the same time get one answer.

        Args:
            timeout: Seconds, of whoever asked first.
        """
        if self._diagnosis is None or self._diagnosis.done():
            # In a thread, since it tries one thing after another by blocking calls.
            looking = asyncio.to_thread(
                diagnose, *self._place, self._files, server_name=self._options.server_name, timeout=timeout
            )
            self._diagnosis = asyncio.ensure_future(looking)
        return await asyncio.shield(self._diagnosis)

    @contextlib.contextmanager
    def blocking(self) -> Iterator[GrpcConnection]:
        """A connection for a thread that has no event loop; threads that need one at the same time share it."""
        with self._lock:
            if self._blocking is None:
                token = self.credentials.token
                self._blocking = GrpcConnection(*self._place, self._files, self._options, token, self.credentials)
            self._blocking_users += 1
            connection = self._blocking
        try:
            yield connection
        finally:
            with self._lock:
                self._blocking_users -= 1
                if not self._blocking_users:
                    self._blocking = None
            if self._blocking is not connection:
                connection.close()


_Key = tuple[Place, TlsFiles | None, str, str | None, int]
_servers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakValueDictionary[_Key, Server]] = (
    weakref.WeakKeyDictionary()
)


def server_at(place: Place, files: TlsFiles | None, token: str, options: ClientOptions) -> Server:
    """The server as the running loop knows it. It is forgotten once nobody has it.

    Raises:
        ConfigError: If the files cannot be used.
    """
    key = place, files, token, options.server_name, options.message_limits.message_bytes
    servers = _servers.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    server = servers.get(key)
    if server is None:
        server = servers[key] = Server(place, files, token, options)
    return server
