"""AgentGPT's protocol over HTTP, in JSON and in msgpack: environments that a caller makes, and names by keys."""

from __future__ import annotations

import functools
import json
import secrets
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import msgpack
import numpy as np
from gymnasium import spaces
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from remote_gym.errors import ConfigError, DenialReason, NotPermitted
from remote_gym.protocol.requests import reset_request
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.connection import Connection, connection_of
from remote_gym.server.frontends.http.doors import client_of
from remote_gym.server.frontends.http.reading import (
    JSON_TYPE,
    Refused,
    answer,
    parse_object,
    read_body,
    status_of,
    text_of,
)
from remote_gym.server.frontends.http.values import JsonWriter, element_of

MSGPACK_TYPES = ("application/x-msgpack", "application/msgpack")
COOKIE = "remote_gym_caller"
MOST_ENVIRONMENTS = 1024
"""Environments of one caller, those that are gone among them until they are next asked for."""

_WRITER = JsonWriter(texts=True)

Environments = dict[str, Hosted]


class AgentGpt:
    """Routes of the protocol.

    Args:
        bridge: Opens sessions.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._callers: dict[tuple[str, str], Environments] = {}  # by identity and cookie
        self._looked = 0.0
        self._connections: weakref.WeakKeyDictionary[Connection, str] = weakref.WeakKeyDictionary()

    def routes(self) -> list[BaseRoute]:
        """Below the prefix."""
        posts = {"make": self._make, "make_vec": self._make, "reset": self._reset, "step": self._step}
        posts["close"] = self._close
        gets = {"action_space": "action_space", "observation_space": "observation_space"}
        found: list[BaseRoute] = [Route("/health", _health, methods=["GET"])]
        found += [Route(f"/{name}", self._answering(method), methods=["POST"]) for name, method in posts.items()]
        for name in gets:
            describe = functools.partial(self._describe, name)
            found.append(Route(f"/{name}", self._answering(describe), methods=["GET", "POST"]))
        return found

    def _answering(self, method: Callable[[Asked], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            is_msgpack = _type_of(request) in MSGPACK_TYPES
            try:
                asked = await self._read(request, is_msgpack=is_msgpack)
                body = await method(asked)
            except Exception as error:  # noqa: BLE001 - the environment's, among others
                status = status_of(error)
                body = json.dumps({"detail" if is_msgpack else "error": text_of(error)}).encode()
                return answer(body, status if status in (401, 403, 408, 413, 415, 503) else 400)
            headers = {} if asked.cookie is None else {"set-cookie": asked.cookie}
            if is_msgpack:
                return Response(msgpack.packb(json.loads(body)), headers=headers, media_type=MSGPACK_TYPES[0])
            return answer(body, headers=headers)

        return endpoint

    async def _read(self, request: Request, *, is_msgpack: bool) -> Asked:
        data: dict[str, Any] = dict(request.query_params)
        size = 0
        if request.method == "POST":
            body = await read_body(request, _type_of(request) if is_msgpack else JSON_TYPE)
            size = len(body)
            data |= _unpacked(body) if is_msgpack else parse_object(body)
        client, connection = client_of(request.scope), connection_of(request.scope)
        known = request.cookies.get(COOKIE, "") or self._connections.get(connection, "")
        if client.identity:
            known = "by its identity"
        asked = Asked(client, data, size, known)
        if not known:
            # Found again by the cookie, or, if the caller keeps none, as long as its connection stands.
            asked.caller = self._connections[connection] = secrets.token_urlsafe(24)
            path = request.url.path.rpartition("/")[0] or "/"
            secure = "; Secure" if request.url.scheme == "https" else ""
            asked.cookie = f"{COOKIE}={asked.caller}; Path={path}; HttpOnly; SameSite=Strict{secure}"
        return asked

    async def _make(self, asked: Asked) -> bytes:
        data = asked.data
        for name in ("env_entry_point", "entry_point", "env_dir"):
            if data.get(name):
                raise NotPermitted(
                    f"a client may not set {name!r}: which code runs is the server's to say", reason=DenialReason.CODE
                )
        self._forget_lost()
        mine = self._callers.setdefault((asked.client.identity, asked.caller), {})
        if len(mine) >= MOST_ENVIRONMENTS:
            raise Refused(503, f"this caller has {len(mine)} environments; close some")
        key = str(data.get("env_key") or uuid.uuid4())
        if (before := mine.pop(key, None)) is not None:
            await before.close()
        num_envs, mode = data.get("num_envs"), data.get("render_mode")
        if num_envs is not None and (isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1):
            raise ConfigError(f"is {num_envs!r}; send a positive integer", field="num_envs", where="num_envs")
        hosted = await self._bridge.open(
            asked.client, self._arguments(data), render_mode=mode and str(mode), num_envs=num_envs or 0
        )
        hosted.progress = data.get("seed")
        # Looked up again: those of a caller that had none have been forgotten meanwhile.
        self._callers.setdefault((asked.client.identity, asked.caller), mine)[key] = hosted
        return json.dumps({"message": f"Environment {key} created.", "env_key": key}).encode()

    def _arguments(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The environment of that name, else the default one, which has that id or leaves it to clients."""
        name = data.get("env_id") or data.get("env_name")
        if not name:
            return {}
        if str(name) in self._bridge.options.environments:
            return {"environment": str(name)}
        return {} if name == self._bridge.default_id else {"entrypoint_kwargs": {"id": str(name)}}

    async def _reset(self, asked: Asked) -> bytes:
        hosted = self._hosted(asked)
        seed, options = asked.data.get("seed"), asked.data.get("options")
        if seed is None:  # that of its making counts once
            seed, hosted.progress = hosted.progress, None
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ConfigError(f"is {seed!r}; send an integer or null", field="seed", where="seed")
        if options is not None and not isinstance(options, dict):
            raise ConfigError(f"is {options!r}; send an object", field="options", where="options")
        request = reset_request(seed, options, self._bridge.options.message_limits)
        return await hosted.reset(request, lambda found, info: _WRITER.write({"observation": found, "info": info}))

    async def _step(self, asked: Asked) -> bytes:
        hosted = self._hosted(asked)
        if "action" not in asked.data:
            raise ConfigError("is missing", field="action", where="action")
        return await hosted.step(
            lambda: element_of(hosted.action_space, asked.data["action"]),
            lambda *found: _WRITER.write(dict(zip(_STEP, found, strict=True))),
            asked.size,
        )

    async def _describe(self, name: str, asked: Asked) -> bytes:
        return _WRITER.write(describe_space(getattr(self._hosted(asked), name)))

    async def _close(self, asked: Asked) -> bytes:
        hosted = self._hosted(asked)
        mine = self._callers[asked.client.identity, asked.caller]
        key = next(key for key, each in mine.items() if each is hosted)
        del mine[key]
        if not mine:
            del self._callers[asked.client.identity, asked.caller]
        await hosted.close()
        return json.dumps({"message": f"Environment {key} closed.", "env_key": key}).encode()

    def _forget_lost(self) -> None:
        """Now and then: environments whose leases are over, and callers that have none."""
        if time.monotonic() - self._looked < 1.0:
            return
        self._looked = time.monotonic()
        there = self._bridge.open_sessions()
        for caller, mine in list(self._callers.items()):
            for key in [key for key, hosted in mine.items() if hosted.id not in there]:
                del mine[key]
            if not mine:
                del self._callers[caller]

    def _hosted(self, asked: Asked) -> Hosted:
        """The environment that is asked for: by its key, or as the only one that the caller has."""
        mine = self._callers.get((asked.client.identity, asked.caller), {})
        key = asked.data.get("env_key")
        if key is None:
            if len(mine) != 1:
                raise ConfigError(f"is missing, and this caller has {len(mine)} environments", field="env_key")
            return next(iter(mine.values()))
        if str(key) not in mine:
            raise ConfigError(f"is {str(key)!r:.200}, and this caller has made none of that key", field="env_key")
        return mine[str(key)]


_STEP = ("observation", "reward", "terminated", "truncated", "info")


class Asked:
    """One request.

    Args:
        client: Who makes it.
        data: What it holds.
        size: Bytes of that.
        caller: Whose environments it is about, within the client's identity.

    Attributes:
        cookie: A header of the answer, by which the caller is found again; None for none.
    """

    def __init__(self, client: Client, data: dict[str, Any], size: int, caller: str) -> None:
        self.client = client
        self.data = data
        self.size = size
        self.caller = caller
        self.cookie: str | None = None


@functools.singledispatch
def describe_space(space: gym.Space[Any]) -> dict[str, Any]:
    """Describe a space as their clients read it.

    Raises:
        ConfigError: If the protocol has no form for it.
    """
    raise ConfigError(f"a space of type {type(space).__name__} has no form in AgentGPT's protocol")


@describe_space.register
def _(space: spaces.Box) -> dict[str, Any]:
    facts = {"shape": list(space.shape), "dtype": str(space.dtype)}
    return {"type": "Box", **facts, "low": space.low, "high": space.high}


@describe_space.register
def _(space: spaces.Discrete) -> dict[str, Any]:
    return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}


@describe_space.register
def _(space: spaces.MultiDiscrete) -> dict[str, Any]:
    start = np.broadcast_to(getattr(space, "start", 0), space.shape)
    return {"type": "MultiDiscrete", "nvec": space.nvec, "start": start}


@describe_space.register
def _(space: spaces.MultiBinary) -> dict[str, Any]:
    return {"type": "MultiBinary", "n": list(space.shape)}


@describe_space.register
def _(space: spaces.Text) -> dict[str, Any]:
    return {"type": "Text", "min_length": space.min_length, "max_length": space.max_length}


@describe_space.register(spaces.Tuple)
def _tuple(space: Any) -> dict[str, Any]:
    return {"type": "Tuple", "spaces": [describe_space(each) for each in space.spaces]}


@describe_space.register
def _(space: spaces.Dict) -> dict[str, Any]:
    return {"type": "Dict", "spaces": {str(key): describe_space(each) for key, each in space.spaces.items()}}


def _type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unpacked(body: bytes) -> dict[str, Any]:
    """Read a msgpack map; nothing at all is an empty one.

    Raises:
        Refused: If it is none.
    """
    if not body:
        return {}
    try:
        found = msgpack.unpackb(body, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise Refused(400, f"the body is no msgpack: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise Refused(400, f"the body is a {type(found).__name__}; send a map of texts")
    return found


async def _health(_: Request) -> Response:
    return answer(b'{"status": "healthy"}')
