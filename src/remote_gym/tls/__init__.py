"""PEM files turned into gRPC credentials and ssl contexts, once nothing is wrong with them."""

from remote_gym.tls.credentials import (
    ServerCertificates,
    absolute_paths,
    channel_credentials,
    check_files,
    client_context,
    client_files,
    file_paths,
    server_context,
    server_credentials,
    server_files,
)
from remote_gym.tls.reloading import Reloaded

__all__ = [
    "Reloaded",
    "ServerCertificates",
    "absolute_paths",
    "channel_credentials",
    "check_files",
    "client_context",
    "client_files",
    "file_paths",
    "server_context",
    "server_credentials",
    "server_files",
]
