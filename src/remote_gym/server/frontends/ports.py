"""A server's ports, put together: the one that all clients come to, and what answers behind it."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_gym.address import is_unix, unix_path
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.grpc import ONE_PORT, GrpcCredentials, GrpcServer, OtherService
from remote_gym.server.frontends.grpc_conduct import Conduct
from remote_gym.server.frontends.hub_dialler import HubDialler
from remote_gym.server.frontends.listener import Listener
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb

if TYPE_CHECKING:
    from remote_gym.server.frontends.http.server import HttpServer
    from remote_gym.server.frontends.relay.control import RelayControl
    from remote_gym.server.frontends.relay.private_socket import PrivateSocket


class Ports:
    """Bound, and closed to everybody until `open`. Runs on the server's event loop.

    Args:
        url: Host name, address, or ``unix:path``.
        port: TCP port; 0 for a free one.
        credentials: None for plaintext.
        options: The server's.
        files: The server's, for HTTP and for a hub; None for plaintext.

    Attributes:
        port: The TCP port; 0 for a Unix socket.
        grpc_port: That of gRPC alone, once open; 0 without one.
        http_port: That of HTTP alone; 0 without one.
        direct: Where direct connections come to, routing id aside; None where there are none.

    Raises:
        ConfigError: If one cannot listen there.
    """

    def __init__(
        self,
        url: str,
        port: int,
        credentials: GrpcCredentials | None,
        options: ServerOptions,
        files: TlsFiles | None = None,
    ) -> None:
        if options.grpc_port is not None and is_unix(url):
            raise ConfigError(
                f"ServerOptions.grpc_port is {options.grpc_port}, but {url!r} is a Unix socket; leave one out"
            )
        self._url = url
        self._credentials = credentials
        self._options = options
        self._files = files
        self._dialler: HubDialler | None = None
        self._grpc: GrpcServer | None = None
        self._others: dict[str, OtherService] = {}
        self._listener: Listener | None = None
        self._private: PrivateSocket | None = None
        self._relay: RelayControl | None = None
        self._http = _http_server(files, options, url)
        if options.dm_env_rpc:
            _dm_env_rpc()  # refuses what is not installed before anybody is let in
        self.port = port
        self.grpc_port = 0
        self.http_port = 0 if self._http is None else self._http.port
        self.direct: pb.DirectAddress | None = None
        has_direct = options.direct and hasattr(socket, "send_fds")
        if ONE_PORT:
            self._listener = self._bind(url, port)
            self.port = self._listener.port
        elif has_direct:
            self._listener = self._bind(f"{url}.direct" if is_unix(url) else url, 0)
        if self._listener is not None and has_direct:
            self.direct = pb.DirectAddress(
                port=self._listener.port, path=self._listener.path, tls=credentials is not None
            )

    async def open(self, service: Service) -> None:
        """Let clients in to a service.

        Raises:
            ConfigError: If gRPC cannot listen.
        """
        self._others = _other_services(service, self._options)
        self._grpc = grpc = GrpcServer(service, self._options, Conduct(self._cut, self._shut_out), self._others)
        if ONE_PORT:
            self._listen_privately(grpc)
        else:
            self.port = grpc.listen(self._url, self.port, self._credentials)
        if self._options.grpc_port is not None:
            self.grpc_port = grpc.listen(self._url, self._options.grpc_port, self._credentials)
        await grpc.start()
        if self._http is not None:
            self._http.start(service)
        if self._listener is not None:
            self._listener.start(service.hand_over, self._relay, self._http if self._options.http else None)
            self._dial_out(self._listener)

    def report_stopping(self) -> None:
        """Answer health checks by NOT_SERVING from now on."""
        if self._grpc is not None:
            self._grpc.report_stopping()

    async def stop_listening(self) -> None:
        """Let nobody in any more; who is in stays."""
        if self._dialler is not None:
            await self._dialler.stop()
        if self._listener is not None:
            await self._listener.stop()
        if self._http is not None:
            await self._http.stop_listening()

    async def stop(self) -> None:
        """End all calls and connections, once what is to be said by them is on its way."""
        if self._http is not None:
            await self._http.stop()
        if self._grpc is not None:
            await self._grpc.stop()
        for other in self._others.values():
            other.close()
        if self._relay is not None:
            await self._relay.stop()
        if self._private is not None:
            self._private.close()

    def _bind(self, url: str, port: int) -> Listener:
        options = self._options
        return Listener(url, port, max_pending=options.max_pending, max_connections=options.max_connections)

    def _listen_privately(self, grpc: GrpcServer) -> None:
        from remote_gym.server.frontends.relay.control import RelayControl
        from remote_gym.server.frontends.relay.private_socket import PrivateSocket

        path = unix_path(self._url) if is_unix(self._url) else None
        self._private = PrivateSocket(None if path is None else Path(path).parent)
        if path is not None and self._credentials is None and not self._private.folder:
            raise ConfigError(
                f"{self._url!r} without TLS is guarded by its folder alone, and no folder can be written to in which "
                "gRPC's private socket would be as safe; set TMPDIR to one that can"
            )
        grpc.listen_privately(self._private.grpc_address, self._credentials)
        self._relay = RelayControl(self._private.address, self._private.folder)

    def _dial_out(self, listener: Listener) -> None:
        if self._options.hub is None:
            return
        assert self._files is not None
        self._dialler = HubDialler(self._options.hub, self._files, listener.adopt)
        self._dialler.start()

    def _cut(self, number: int) -> bool:
        """End a relayed connection; False if it ends already."""
        return self._relay is not None and self._relay.cut(number)

    def _shut_out(self, network: str) -> None:
        """Take no more connections of gRPC's of an address for a while."""
        if self._listener is not None:
            self._listener.shut_out(network)


def _http_server(files: TlsFiles | None, options: ServerOptions, url: str) -> HttpServer | None:
    """Make what answers HTTP, if anything does; else nothing of it is loaded.

    Raises:
        ConfigError: If it cannot.
    """
    if not options.http and options.http_port is None:
        return None
    if options.http and not ONE_PORT:
        raise ConfigError("ServerOptions.http shares the port by what only Linux has; use http_port here")
    try:
        from remote_gym.server.frontends.http.server import HttpServer
    except ImportError as error:
        raise ConfigError(f"HTTP needs packages ({error}): pip install 'remote-gym[http]'", field="http") from error
    return HttpServer(files, options, url)


def _other_services(service: Service, options: ServerOptions) -> dict[str, OtherService]:
    """Services of other protocols that gRPC carries, too."""
    if not options.dm_env_rpc:
        return {}
    calls = _dm_env_rpc()
    return {calls.SERVICE_NAME: calls.DmEnvRpcCalls(Bridge(service, options), options.message_limits)}


def _dm_env_rpc() -> Any:
    """The module of dm_env_rpc's calls.

    Raises:
        ConfigError: If what it needs is not installed.
    """
    try:
        return importlib.import_module("remote_gym.server.frontends.dm_env_rpc.calls")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs dm-env-rpc ({error}): pip install 'remote-gym[dm-env-rpc]'",
            field="dm_env_rpc",
            where="ServerOptions.dm_env_rpc",
        ) from error
