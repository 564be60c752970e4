"""Questions to an environment host of AgentGPT, and its answers: base64 of msgpack, and events in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import msgpack

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, ProtocolMismatch, RemoteEnvironmentError
from remote_gym.peers.elements import shown
from remote_gym.peers.openenv_schema import Schemas

Message = str | bytes


def pack(method: str, env_key: str, data: Mapping[str, Any]) -> str:
    """A request.

    Raises:
        ConfigError: If msgpack has no form for what it holds.
    """
    try:
        packed = msgpack.packb({"data": {"method": method, "env_key": env_key, **data}}, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{method}: msgpack has no form for what is sent: {error}") from None
    return base64.b64encode(packed).decode()


def unpack(method: str, message: Message, limits: Limits) -> Any:
    """Read what a host answered.

    Raises:
        RemoteEnvironmentError: If that is an error.
        ProtocolMismatch: If it cannot be read.
    """
    event = event_of(message)
    if event is not None:
        raise RemoteEnvironmentError(f"agentgpt.{method}", shown(event.get("message", event)))
    try:
        data = base64.b64decode(message, validate=True)
        most = min(limits.items, len(data))
        return msgpack.unpackb(
            data,
            strict_map_key=False,
            max_array_len=most,
            max_map_len=most,
            timestamp=1,
            ext_hook=_refuse,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error, msgpack.UnpackException) as error:
        raise ProtocolMismatch(f"the host's answer to {method} cannot be read: {shown(error) or 'it is cut'}") from None


def event_of(message: Message) -> dict[str, Any] | None:
    """Event that a host tells of by itself, in JSON; None for an answer."""
    if message[:1] not in ("{", b"{"):
        return None
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_heartbeat(message: Message) -> bool:
    """Whether a message says no more than that the host is there."""
    if len(message) > 10_000:
        return False
    event = event_of(message)
    return event is not None and event.get("action") == "event" and event.get("type") == "heartbeat"


def space_of(description: Any, what: str, limits: Limits) -> gym.Space[Any]:
    """Space that a host describes.

    Args:
        description: As `unpack` returns it.
        what: ``"action"`` or ``"observation"``, for errors.
        limits: Bounds on arrays, texts and depth.

    Raises:
        EncodingError: If it describes none.
    """
    try:
        schema = _schema(description, limits.depth)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        text = f"the host's {what}_space is {shown(description)!r:.200}, which describes none ({type(error).__name__})"
        raise EncodingError(f"{text}; give {what}_space") from None
    return Schemas({}, what, limits).space(schema)


def _schema(description: Any, depth: int) -> dict[str, Any]:
    """The same as a schema of ours."""
    kind = description["type"]
    if depth < 0:
        raise ValueError("too deep")
    if kind == "Box":
        return {"space": "Box", **{name: description[name] for name in ("shape", "dtype", "low", "high")}}
    if kind == "Discrete":
        start = int(description.get("start", 0))
        bounds = {"minimum": start, "maximum": start + int(description["n"]) - 1}
        return {"space": "Discrete", "shape": [], "dtype": "int64", **bounds}
    if kind == "MultiDiscrete":
        nvec = description["nvec"]
        shape = _lengths(nvec)
        start = description.get("start") or _zeros(shape)
        return {"space": "MultiDiscrete", "shape": shape, "dtype": "int64", "nvec": nvec, "start": start}
    if kind == "MultiBinary":
        n = description["n"]
        return {"space": "MultiBinary", "shape": n if isinstance(n, list) else [n], "dtype": "int8"}
    if kind == "Text":
        return {"space": "Text", "maxLength": description["max_length"], "minLength": description.get("min_length", 1)}
    members = description["spaces"]
    if kind == "Dict":
        return {"space": "Dict", "properties": {str(key): _schema(each, depth - 1) for key, each in members.items()}}
    if kind == "Tuple":
        return {"space": "Tuple", "prefixItems": [_schema(each, depth - 1) for each in members]}
    raise ValueError("of no kind that is known")


def _lengths(nested: Any) -> list[int]:
    lengths: list[int] = []
    while isinstance(nested, list) and nested and len(lengths) < 32:
        lengths.append(len(nested))
        nested = nested[0]
    return lengths


def _zeros(shape: list[int]) -> Any:
    if len(shape) > 1:
        raise ValueError("of several axes, and without a start")
    return [0] * shape[0]


def _refuse(code: int, data: bytes) -> Any:
    raise ValueError(f"it holds an extension, of code {code}")
