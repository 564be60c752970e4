"""The order of a launched server, what it is to serve and how, as JSON; and the files by which both ends know it.

Keyword arguments are in it as the protocol's `Value`, so that they arrive as what they are.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
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

FILES = "files"
"""Folder in it of the files that have travelled along."""

_CONTENT = "entrypoint_content"
_LARGEST_FILE = 16 * 2**20
"""Bytes of an entrypoint's file."""

DIALECT = f"{PROTOCOL_VERSION}.1"
"""Version of orders and of what is said around them. Another release's has to be the same."""


def write_order(environment: Mapping[str, Any], options: ServerOptions, *, sends: bool = False) -> dict[str, Any]:
    """Bring an order into the form in which it travels.

    Args:
        environment: As `RemoteArgs`.
        options: The server's.
        sends: Whether files of entrypoints that are here travel along, as to another host.

    Raises:
        ConfigError: If something of it has no such form, as a function has none, or a file cannot be sent.
    """
    order = {
        "environment": _environment("environment", environment),
        "options": {name: _plain(name, value) for name, value in differing_options(options).items()},
    }
    if sends:
        for each in (order["environment"], *order["options"].get("environments", {}).values()):
            _add_file(each)
    return order


def read_order(order: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], ServerOptions]:
    """Environment and options of an order.

    Args:
        order: As `write_order` makes it.
        folder: Gets the files that have travelled along.

    Raises:
        ConfigError: If an option cannot work.
    """
    for number, each in enumerate((order["environment"], *order["options"].get("environments", {}).values())):
        if _CONTENT in each:
            file = folder / FILES / str(number) / PurePath(each["entrypoint"]).name
            file.parent.mkdir(parents=True)
            file.write_bytes(base64.b64decode(each.pop(_CONTENT)))
            each["entrypoint"] = str(file)
    named: dict[str, Any] = order["options"]
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in named.items()}
    if "message_limits" in read:
        read["message_limits"] = Limits(**read["message_limits"])
    if "environments" in read:
        read["environments"] = {name: _read_environment(each) for name, each in read["environments"].items()}
    return _read_environment(order["environment"]), ServerOptions(**read)


def _add_file(order: dict[str, Any]) -> None:
    """Add the entrypoint's file, if it is here. With other files beside it, or a repository, all is the host's."""
    name = order.get("entrypoint")
    if not name or any(order.get(key) for key in ("repo", "there", "include")) or not Path(name).is_file():
        return
    try:
        with Path(name).open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{name!r} cannot be read: {error.strerror}", field="environment") from error
    if len(content) > _LARGEST_FILE:
        raise ConfigError(
            f"{name!r} is larger than the {_LARGEST_FILE:,} bytes that are sent; put it there, under a path of its own",
            field="environment",
        )
    order[_CONTENT] = base64.b64encode(content).decode()


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
