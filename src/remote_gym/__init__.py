"""Host Gymnasium environments on one machine and use them from another as if they were local."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from remote_gym.errors import (
    ConfigError,
    ConnectError,
    ConnectionLost,
    ConnectReason,
    DeadlineExceeded,
    DenialReason,
    EncodingError,
    FullReason,
    InvalidAction,
    InvalidObservation,
    LossReason,
    NotPermitted,
    OutOfSequence,
    ProtocolMismatch,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionError,
    SessionLost,
    TransportError,
)
from remote_gym.registration import register as _register

if TYPE_CHECKING:
    __version__: str

    from remote_gym.client.aio.environment import AsyncRemoteEnvironment
    from remote_gym.client.connection_info import ConnectionInfo
    from remote_gym.client.environment import RemoteEnvironment
    from remote_gym.client.launching import LaunchedServer, launch
    from remote_gym.client.vector.env import RemoteVectorEnv
    from remote_gym.config import ClientOptions, Limits, RemoteArgs, RetryPolicy, ServerOptions, TlsFiles
    from remote_gym.peers.agentgpt import from_agentgpt
    from remote_gym.peers.dm_env_rpc import from_dm_env_rpc
    from remote_gym.peers.openenv import from_openenv
    from remote_gym.protocol.ticket import SessionTicket
    from remote_gym.server.create import create_remote_environment_server
    from remote_gym.server.serve import RemoteEnvironmentServer
    from remote_gym.wire.spaces.image import ImageSpace
    from remote_gym.wire.spaces.text import AnyText
    from remote_gym.wire.values import Member, Record, Unencodable, remote_type

__all__ = [
    "AnyText",
    "AsyncRemoteEnvironment",
    "ClientOptions",
    "ConfigError",
    "ConnectError",
    "ConnectReason",
    "ConnectionInfo",
    "ConnectionLost",
    "DeadlineExceeded",
    "DenialReason",
    "EncodingError",
    "FullReason",
    "ImageSpace",
    "InvalidAction",
    "InvalidObservation",
    "LaunchedServer",
    "Limits",
    "LossReason",
    "Member",
    "NotPermitted",
    "OutOfSequence",
    "ProtocolMismatch",
    "Record",
    "RemoteArgs",
    "RemoteEnvironment",
    "RemoteEnvironmentError",
    "RemoteEnvironmentServer",
    "RemoteGymError",
    "RemoteVectorEnv",
    "RetryPolicy",
    "ServerFull",
    "ServerOptions",
    "SessionError",
    "SessionLost",
    "SessionTicket",
    "TlsFiles",
    "TransportError",
    "Unencodable",
    "create_remote_environment_server",
    "from_agentgpt",
    "from_dm_env_rpc",
    "from_openenv",
    "launch",
    "remote_type",
]

# Loaded when first asked for. A worker, which imports this package too, must not load gRPC, and neither should a
# trainer's process that only wants the exceptions.
_HOMES = {
    "AnyText": "remote_gym.wire.spaces.text",
    "AsyncRemoteEnvironment": "remote_gym.client.aio.environment",
    "ClientOptions": "remote_gym.config",
    "ConnectionInfo": "remote_gym.client.connection_info",
    "ImageSpace": "remote_gym.wire.spaces.image",
    "LaunchedServer": "remote_gym.client.launching",
    "Limits": "remote_gym.config",
    "Member": "remote_gym.wire.values",
    "Record": "remote_gym.wire.values",
    "RemoteArgs": "remote_gym.config",
    "RemoteEnvironment": "remote_gym.client.environment",
    "RemoteEnvironmentServer": "remote_gym.server.serve",
    "RemoteVectorEnv": "remote_gym.client.vector.env",
    "RetryPolicy": "remote_gym.config",
    "ServerOptions": "remote_gym.config",
    "SessionTicket": "remote_gym.protocol.ticket",
    "TlsFiles": "remote_gym.config",
    "Unencodable": "remote_gym.wire.values",
    "create_remote_environment_server": "remote_gym.server.create",
    "from_agentgpt": "remote_gym.peers.agentgpt",
    "from_dm_env_rpc": "remote_gym.peers.dm_env_rpc",
    "from_openenv": "remote_gym.peers.openenv",
    "launch": "remote_gym.client.launching",
    "remote_type": "remote_gym.wire.values",
}

_register()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        protocol = importlib.import_module("remote_gym.protocol.constants")
        return protocol.package_versions()["remote-gym"]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
