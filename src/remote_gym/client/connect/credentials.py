"""Credentials that a client shows a server, as its files are when it connects."""

from __future__ import annotations

import functools
import ssl

import grpc

from remote_gym.config import TlsFiles
from remote_gym.tls import Reloaded, channel_credentials, client_context, file_paths


class Credentials:
    """For both kinds of connection. Files that change are read again; what then does not fit leaves the old in use.

    Args:
        files: This client's; None for plaintext.
        token: What the server knows the client by, where that is no certificate; empty without one. Needs TLS.
    """

    def __init__(self, files: TlsFiles | None, token: str = "") -> None:
        self.token = token
        # Not by gRPC's call credentials. They are a plugin in Python, for which gRPC's threads need the interpreter's
        # lock when a channel ends; `close`, which has it, was seen to wait for ever then.
        self.metadata = (("authorization", f"Bearer {token}"),) if token and files is not None else ()
        """The client's token, sent with each call."""
        self._channel: Reloaded[grpc.ChannelCredentials] | None = None
        self._context: Reloaded[ssl.SSLContext] | None = None
        if files is not None:
            paths = file_paths(files)
            self._channel = Reloaded(paths, functools.partial(channel_credentials, files))
            self._context = Reloaded(paths, functools.partial(client_context, files))

    def channel(self) -> grpc.ChannelCredentials | None:
        """For a channel, which keeps them; the same object until the files change. None for plaintext.

        Raises:
            ConfigError: If the files never fitted.
        """
        return None if self._channel is None else self._channel.get()

    def context(self) -> ssl.SSLContext | None:
        """For a direct connection. None for plaintext.

        Raises:
            ConfigError: If the files never fitted.
        """
        return None if self._context is None else self._context.get()
