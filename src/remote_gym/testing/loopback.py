"""A server on this machine, for tests."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote_gym.certs import create_all
from remote_gym.client.aio.environment import AsyncRemoteEnvironment
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.client.vector.env import RemoteVectorEnv
from remote_gym.config import EnvironmentLike
from remote_gym.server.create import create_remote_environment_server
from remote_gym.server.serve import RemoteEnvironmentServer


@dataclass
class LoopbackServer:
    """A server that only this machine can reach, and the clients that were made for it.

    Attributes:
        server: The server itself.
        client_credentials_paths: What its clients connect with; None without TLS.
        client_arguments: Further arguments of every client.
    """

    server: RemoteEnvironmentServer
    client_credentials_paths: tuple[Path, Path, Path] | None
    client_arguments: dict[str, Any] = field(default_factory=dict)
    _clients: list[RemoteEnvironment | RemoteVectorEnv] = field(default_factory=list)

    def environment(self, **arguments: Any) -> RemoteEnvironment:
        """A client, closed with the server.

        Args:
            **arguments: Of `RemoteEnvironment`; it connects here unless they have ``addresses``.
        """
        client = RemoteEnvironment(**self._arguments(arguments))
        self._clients.append(client)
        return client

    def vector_environment(self, num_envs: int, **arguments: Any) -> RemoteVectorEnv:
        """A client of several environments, closed with the server.

        Args:
            num_envs: How many.
            **arguments: Of `RemoteVectorEnv`, likewise.
        """
        client = RemoteVectorEnv(num_envs=num_envs, **self._arguments(arguments))
        self._clients.append(client)
        return client

    def async_environment(self, **arguments: Any) -> AsyncRemoteEnvironment:
        """A client whose methods are awaited; it is for its event loop to close it.

        Args:
            **arguments: Of `AsyncRemoteEnvironment`, likewise.
        """
        return AsyncRemoteEnvironment(**self._arguments(arguments))

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a client: this server's, unless it names others."""
        place = {} if "addresses" in given else {"url": self.server.url, "port": self.server.port}
        return {
            **place,
            "client_credentials_paths": self.client_credentials_paths,
            **self.client_arguments,
            **given,
        }


@contextlib.contextmanager
def loopback_server(
    default_args: EnvironmentLike | None, *, secure: bool = True, url: str = "localhost", **options: Any
) -> Iterator[LoopbackServer]:
    """Serve on a free port of this machine, with mutual TLS, until the block ends.

    Args:
        default_args: As for `create_remote_environment_server`.
        secure: Use mutual TLS, with certificates made for the occasion.
        url: Where to listen.
        **options: Further arguments of `create_remote_environment_server`. Without ``check`` nothing is created until
            a client asks.
    """
    options.setdefault("check", False)
    with contextlib.ExitStack() as stack:
        server_paths = client_paths = None
        if secure:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remote_gym-")))
            files = create_all(folder, ["localhost", "127.0.0.1"])
            ca = files.ca.certificate
            server_paths = (files.server.certificate, files.server.private_key, ca)
            client_paths = (ca, files.client.certificate, files.client.private_key)
        server = create_remote_environment_server(default_args, url, 0, server_paths, **options)
        stack.enter_context(server)
        loopback = LoopbackServer(server, client_paths)
        try:
            yield loopback
        finally:
            for client in loopback._clients:
                client.close()
