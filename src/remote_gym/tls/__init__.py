"""PEM files turned into gRPC credentials and ssl contexts, once nothing is wrong with them."""

from remote_gym.tls.credentials import (
    channel_credentials,
    check_files,
    client_context,
    client_files,
    server_context,
    server_credentials,
    server_files,
)

__all__ = [
    "channel_credentials",
    "check_files",
    "client_context",
    "client_files",
    "server_context",
    "server_credentials",
    "server_files",
]
