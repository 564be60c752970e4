"""The order of a launched server, what it is to serve and how, as JSON; and the files by which both ends know it.

Keyword arguments are in it as the protocol's `Value`, so that they arrive as what they are.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from remote_gym.config import Limits, ServerOptions, differing_options, place_of, read_environment
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.protocol.constants import PROTOCOL_VERSION
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import decode_value, encode_value

ORDER = "order.json"
"""File of a launched server's private folder that holds the order; the server removes it once it has read it."""
SOCKET = "socket"
"""Unix socket in it, at which the server listens."""
LOG = "server.log"
"""File in it that the server logs to, and its environments print to."""
HOLD = "hold"
"""Unix socket in it, of a server on another host than its program: it serves while somebody is connected there."""

DIALECT = f"{PROTOCOL_VERSION}.1"
"""Version of orders and of what is said around them. Another release's has to be the same."""


def write_order(environment: Mapping[str, Any], options: ServerOptions) -> dict[str, Any]:
    """Bring an order into the form in which it travels.

    Args:
        environment: As `RemoteArgs`.
        options: The server's.

    Raises:
        ConfigError: If something of it has no such form, as a function has none.
    """
    return {
        "environment": _environment("environment", environment),
        "options": {name: _plain(name, value) for name, value in differing_options(options).items()},
    }


def read_order(order: Mapping[str, Any]) -> tuple[dict[str, Any], ServerOptions]:
    """Environment and options of an order.

    Raises:
        ConfigError: If an option cannot work.
    """
    named: dict[str, Any] = order["options"]
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in named.items()}
    if "message_limits" in read:
        read["message_limits"] = Limits(**read["message_limits"])
    if "environments" in read:
        read["environments"] = {name: _read_environment(each) for name, each in read["environments"].items()}
    return _read_environment(order["environment"]), ServerOptions(**read)


def _environment(where: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    message = pb.Value()
    kwargs = dict(environment.get("entrypoint_kwargs") or {})
    try:
        encode_value(kwargs, message, strict=True, limits=Limits(), path="entrypoint_kwargs")
    except EncodingError as error:
        raise ConfigError(f"cannot be told to a server's process: {error}", field=where, where=where) from error
    plain = {name: _plain(name, value) for name, value in environment.items()}
    return {**plain, "entrypoint_kwargs": base64.b64encode(message.SerializeToString()).decode()}


def _read_environment(order: Mapping[str, Any]) -> dict[str, Any]:
    data = base64.b64decode(order["entrypoint_kwargs"])
    return {**order, "entrypoint_kwargs": decode_value(pb.Value.FromString(data), Limits())}


def _plain(name: str, value: Any) -> Any:
    """An option, or a key of an environment, as JSON can say it."""
    if name == "entrypoint_kwargs":
        return None
    if isinstance(value, Limits):
        return dataclasses.asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if name == "environments":
        return {
            each: _environment(place_of(name, each), read_environment(name, given, each))
            for each, given in value.items()
        }
    if isinstance(value, Mapping):
        return {key: _plain(key, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain("", each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    problem = f"is {value!r:.200}, which a process of its own cannot be told; use create_remote_environment_server"
    raise ConfigError(problem, field=name, where=name)
