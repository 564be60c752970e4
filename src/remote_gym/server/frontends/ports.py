"""A server's ports, put together: the one that all clients come to, and gRPC's private socket behind it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from remote_gym.address import is_unix, unix_path
from remote_gym.auth.identity import IdentityRule
from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError
from remote_gym.server.frontends.grpc import ONE_PORT, Credentials, GrpcServer
from remote_gym.server.frontends.listener import Listener
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb

if TYPE_CHECKING:
    from remote_gym.server.frontends.relay.control import RelayControl
    from remote_gym.server.frontends.relay.private_socket import PrivateSocket


class Ports:
    """Let clients in to a `Service`. Runs on the server's event loop.

    Args:
        service: What answers.
        options: The server's.
        rule: How it knows its clients.

    Attributes:
        port: The TCP port; 0 for a Unix socket.
        grpc_port: That of gRPC alone; 0 without one.
    """

    def __init__(self, service: Service, options: ServerOptions, rule: IdentityRule) -> None:
        self._service = service
        self._options = options
        self._grpc = GrpcServer(service, options, rule, self._cut)
        self._listener: Listener | None = None
        self._private: PrivateSocket | None = None
        self._relay: RelayControl | None = None
        self.port = self.grpc_port = 0

    async def start(self, url: str, port: int, credentials: Credentials | None) -> None:
        """Listen.

        Args:
            url: Host name, address, or ``unix:path``.
            port: TCP port; 0 for a free one.
            credentials: None for plaintext.

        Raises:
            ConfigError: If that cannot be done there.
        """
        own_port = self._options.grpc_port
        if own_port is not None and is_unix(url):
            raise ConfigError(f"ServerOptions.grpc_port is {own_port}, but {url!r} is a Unix socket; leave one out")
        try:
            if ONE_PORT:
                self._listen_privately(url, credentials)
            else:
                self.port = self._grpc.listen(url, port, credentials)
            if own_port is not None:
                self.grpc_port = self._grpc.listen(url, own_port, credentials)
            await self._grpc.start()
            if ONE_PORT:
                self.port = self._listen(url, port)
            elif self._options.direct and hasattr(socket, "send_fds"):
                self._listen(f"{url}.direct" if is_unix(url) else url, 0)
        except BaseException:
            await self.stop()
            raise
        if self._listener is not None and self._options.direct and hasattr(socket, "send_fds"):
            self._service.routes.listener = pb.DirectAddress(
                port=self._listener.port, path=self._listener.path, tls=credentials is not None
            )

    def report_stopping(self) -> None:
        """Answer health checks by NOT_SERVING from now on."""
        self._grpc.report_stopping()

    async def stop_listening(self) -> None:
        """Let nobody in any more; who is in stays."""
        if self._listener is not None:
            await self._listener.stop()

    async def stop(self) -> None:
        """End all calls and connections, once what is to be said by them is on its way."""
        await self._grpc.stop()
        if self._relay is not None:
            await self._relay.stop()
        if self._private is not None:
            self._private.close()

    def _listen_privately(self, url: str, credentials: Credentials | None) -> None:
        from remote_gym.server.frontends.relay.control import RelayControl
        from remote_gym.server.frontends.relay.private_socket import PrivateSocket

        path = unix_path(url) if is_unix(url) else None
        self._private = PrivateSocket(None if path is None else Path(path).parent)
        if path is not None and credentials is None and not self._private.folder:
            raise ConfigError(
                f"{url!r} without TLS is guarded by its folder alone, and no folder can be written to in which gRPC's "
                "private socket would be as safe; set TMPDIR to one that can"
            )
        self._grpc.listen_privately(self._private.grpc_address, credentials)
        self._relay = RelayControl(self._private.address, self._private.folder)

    def _listen(self, url: str, port: int) -> int:
        self._listener = Listener(
            self._service.hand_over,
            self._relay,
            max_pending=self._options.max_pending,
            max_connections=self._options.max_connections,
        )
        self._listener.start(url, port)
        return self._listener.port

    def _cut(self, number: int) -> None:
        """End a relayed connection."""
        if self._relay is not None:
            self._relay.cut(number)
