"""Options of servers and clients, as frozen dataclasses; where PEM files lie; how an environment is named."""

from remote_gym.config.arguments import (
    SERVERS_ALONE,
    EnvironmentKeys,
    EnvironmentLike,
    RemoteArgs,
    place_of,
    read_environment,
)
from remote_gym.config.client import SERVER_VARIABLE, TOKEN_VARIABLE, ClientOptions, is_server_name, is_token
from remote_gym.config.hub import HubOptions
from remote_gym.config.keywords import ClientKeywords, LaunchKeywords, ServerKeywords, shows_options
from remote_gym.config.limits import Limits
from remote_gym.config.names import check_names, differing_options, merge_options, nearest
from remote_gym.config.retry import RetryPolicy
from remote_gym.config.server import ServerOptions
from remote_gym.config.tls import CERTS_FOLDER, CERTS_VARIABLE, TlsFiles

__all__ = [
    "CERTS_FOLDER",
    "CERTS_VARIABLE",
    "SERVERS_ALONE",
    "SERVER_VARIABLE",
    "TOKEN_VARIABLE",
    "ClientKeywords",
    "ClientOptions",
    "EnvironmentKeys",
    "EnvironmentLike",
    "HubOptions",
    "LaunchKeywords",
    "Limits",
    "RemoteArgs",
    "RetryPolicy",
    "ServerKeywords",
    "ServerOptions",
    "TlsFiles",
    "check_names",
    "differing_options",
    "is_server_name",
    "is_token",
    "merge_options",
    "nearest",
    "place_of",
    "read_environment",
    "shows_options",
]
