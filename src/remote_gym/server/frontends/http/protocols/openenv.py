"""OpenEnv's protocol, for its clients from 0.1 to 0.10: what their messages mean here, and how ours look there."""

from __future__ import annotations

import functools
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gymnasium import spaces
from starlette.requests import HTTPConnection

from remote_gym.errors import ConfigError, InvalidAction
from remote_gym.protocol.requests import reset_request
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.images import holds_images, is_image, png_of
from remote_gym.server.frontends.http.schemas import Schema, schema_of
from remote_gym.server.frontends.http.values import JsonWriter, base64_text, element_of
from remote_gym.v1 import remote_gym_pb2 as pb

COOKIE = "remote_gym_session"
EPISODE_HEADER = "x-episode-id"
"""Header by which a client that is known names an episode, so that it finds it again by another connection."""

_WRITER = JsonWriter()
_OWN = ("seed", "episode_id", "options", "remote_args")
"""Members of a reset's data that are not options for the environment."""


def new_key() -> str:
    """A new one of those that `cookie_key` finds. Nobody else can guess it, nor take it for a key of another kind."""
    return f"cookie {secrets.token_urlsafe(24)}"


def cookie_key(request: HTTPConnection) -> str:
    """Key under which a client's session is kept that sends our cookie; empty for a client that sends none."""
    value = request.cookies.get(COOKIE, "")
    return f"cookie {value}" if value else ""


def cookie_header(key: str, request: HTTPConnection) -> str:
    """The header that has a client send a key from now on, below the prefix at which it has asked."""
    path = request.url.path.rpartition("/")[0] or "/"
    secure = "; Secure" if request.url.scheme in ("https", "wss") else ""
    return f"{COOKIE}={key.removeprefix('cookie ')}; Path={path}; HttpOnly; SameSite=Strict{secure}"


@dataclass
class Progress:
    """Position within an episode.

    Attributes:
        episode_id: The client's name for it, or one of ours.
        step_count: Steps since its reset.
        is_over: Whether it has ended.
        last: The newest answer's data, as JSON; empty before the first.
        arguments: By which the session was opened.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    episode_id: str = ""
    step_count: int = 0
    is_over: bool = False
    last: bytes = b""

    def state(self) -> dict[str, Any]:
        """As a client asks for it."""
        return {"episode_id": self.episode_id or None, "step_count": self.step_count}


class Player:
    """Plays one client's episodes.

    Args:
        bridge: Opens sessions.
        client: Whose they are.
        environment: Name of what is played; empty for the server's default.

    Attributes:
        hosted: The session; None before the first reset.
    """

    def __init__(self, bridge: Bridge, client: Client, environment: str) -> None:
        self._bridge = bridge
        self._client = client
        self._environment = environment
        self._images = bridge.options.http_images
        self.hosted: Hosted | None = None

    @property
    def progress(self) -> Progress:
        """Position in the session there is."""
        return Progress() if self.hosted is None else self.hosted.progress

    async def open(self) -> Hosted:
        """The session there is, or a new one, without a reset.

        Raises:
            RemoteGymError: Why there is none.
        """
        if self.hosted is None or self.hosted.is_lost:
            arguments = self._arguments({})
            self.hosted = hosted = await self._bridge.open(self._client, arguments)
            hosted.progress = Progress(arguments)
            await self._opened(hosted)
        return self.hosted

    async def reset(self, data: Mapping[str, Any]) -> bytes:
        """Begin an episode, in a new session where there is none.

        Returns:
            An observation's data, as JSON.

        Raises:
            Exception: Why not: of the service, the environment, or the data.
        """
        request = _reset_of(data, self._bridge)
        arguments = self._arguments(data)
        hosted = self.hosted
        if hosted is not None and (hosted.is_lost or hosted.progress.arguments != arguments):
            self.hosted = None
            await hosted.close()
            hosted = None
        given = data.get("episode_id")
        progress = Progress(arguments, str(given) if given else str(uuid.uuid4()))
        if hosted is None:
            self.hosted = hosted = await self._bridge.open(self._client, arguments, request)
            hosted.progress = Progress(arguments)
            await self._opened(hosted)
            return await hosted.first(functools.partial(self._begun, hosted, progress))
        return await hosted.reset(request, functools.partial(self._begun, hosted, progress))

    async def step(self, data: Mapping[str, Any], size: int) -> bytes:
        """Step once.

        Args:
            data: The action's members.
            size: Bytes that they came in.

        Returns:
            An observation's data, as JSON.

        Raises:
            Exception: As for `reset`.
        """
        if self.hosted is None:
            raise ConfigError("there is no episode yet, or its connection was lost; reset first")
        hosted = self.hosted
        read = functools.partial(self._stepped, hosted, hosted.progress)
        return await hosted.step(lambda: action_of(hosted.action_space, data), read, size)

    async def close(self) -> None:
        """End the session, if there is one."""
        hosted, self.hosted = self.hosted, None
        if hosted is not None:
            await hosted.close()

    async def _opened(self, hosted: Hosted) -> None:
        """Called when a session is there, before its first answer is read."""

    def _arguments(self, data: Mapping[str, Any]) -> dict[str, Any]:
        given = data.get("remote_args") or {}
        if not isinstance(given, dict):
            raise ConfigError(f"is {given!r}; send an object", field="remote_args", where="remote_args")
        return {**({"environment": self._environment} if self._environment else {}), **given}

    # What is noted of an episode is noted where an answer is read, before the next request is made, whoever has stopped
    # waiting for it.

    def _begun(self, hosted: Hosted, progress: Progress, observation: Any, info: Any) -> bytes:
        progress.last = self._data(hosted, observation, None, False, info)
        hosted.progress = progress
        return progress.last

    def _stepped(
        self,
        hosted: Hosted,
        progress: Progress,
        observation: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        info: Any,
    ) -> bytes:
        progress.step_count += 1
        progress.is_over = bool(terminated) or bool(truncated)
        metadata = {**(info if isinstance(info, dict) else {}), "terminated": terminated, "truncated": truncated}
        progress.last = self._data(hosted, observation, reward, progress.is_over, metadata)
        return progress.last

    def _data(self, hosted: Hosted, observation: Any, reward: Any, done: bool, metadata: Any) -> bytes:
        shown = observation_of(hosted.observation_space, observation, self._images)
        data = {"observation": shown, "reward": reward, "done": done}
        return _WRITER.write({**data, "metadata": metadata} if metadata else data)


def action_of(space: Any, data: Mapping[str, Any]) -> Any:
    """The action that the data of a step holds: the members of a Dict, or ``action``.

    Raises:
        InvalidAction: If there is none.
    """
    if isinstance(space, spaces.Dict):
        if "metadata" in data and "metadata" not in space.spaces:  # a field of all their actions
            data = {key: value for key, value in data.items() if key != "metadata"}
        return element_of(space, dict(data))
    names = ("action", "text", "message") if isinstance(space, spaces.Text) else ("action",)
    for name in names:
        if name in data:
            return element_of(space, data[name])
    raise InvalidAction(f"the step has no action: its data has {sorted(data)!r:.200}; send {' or '.join(names)}")


def observation_of(space: Any, observation: Any, images: str) -> dict[str, Any]:
    """An observation as their clients read it: an object, whose one member is ``observation`` where it is no Dict.

    Args:
        space: Its space.
        observation: As the environment returned it.
        images: As `ServerOptions.http_images`.
    """
    is_dict = isinstance(space, spaces.Dict) and isinstance(observation, Mapping)
    members = dict(observation) if is_dict else {"observation": observation}
    if images == "list":
        return members
    return _with_pngs(space.spaces if is_dict else {"observation": space}, members, images)


def _with_pngs(kinds: Mapping[str, Any], value: Mapping[str, Any], images: str) -> dict[str, Any]:
    """The members of a Dict, with images as PNG instead of lists, or beside them."""
    shown: dict[str, Any] = {}
    for name, member in value.items():
        kind = kinds.get(name)
        if isinstance(kind, spaces.Dict) and isinstance(member, Mapping):
            shown[name] = _with_pngs(kind.spaces, member, images)
        elif kind is None or not holds_images(kind):
            shown[name] = member
        else:
            if images == "both":
                shown[name] = member
            shown[f"{name}_png" if images == "both" else name] = _pngs(kind, member)
    return shown


def _pngs(space: Any, value: Any) -> Any:
    if is_image(space):
        return base64_text(png_of(value))
    if isinstance(space, spaces.Dict):
        return {name: _pngs(member, value[name]) for name, member in space.spaces.items()}
    members = space.spaces if isinstance(space, spaces.Tuple) else [space.feature_space] * len(value)
    return [_pngs(member, each) for member, each in zip(members, value, strict=True)]


def schemas(hosted: Hosted) -> dict[str, Schema]:
    """The environment's schemas, by what they are for."""
    return {
        "action": _members(hosted.action_space, "action"),
        "observation": _members(hosted.observation_space, "observation"),
        "state": {
            "type": "object",
            "properties": {"episode_id": {"type": ["string", "null"]}, "step_count": {"type": "integer", "minimum": 0}},
        },
    }


def metadata(hosted: Hosted, version: str) -> dict[str, Any]:
    """Name and version of an environment, for people to read."""
    spec = hosted.description.spec
    name = spec.id or "environment"
    return {"name": name, "description": f"{name}, served by remote_gym", "version": version}


def _members(space: Any, name: str) -> Schema:
    if isinstance(space, spaces.Dict):
        return schema_of(space)
    return {"type": "object", "properties": {name: schema_of(space)}, "required": [name]}


def _reset_of(data: Mapping[str, Any], bridge: Bridge) -> pb.Request:
    seed, options = data.get("seed"), data.get("options")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ConfigError(f"is {seed!r}; send an integer or null", field="seed", where="seed")
    if options is not None and not isinstance(options, dict):
        raise ConfigError(f"is {options!r}; send an object", field="options", where="options")
    more = {name: value for name, value in data.items() if name not in _OWN}
    return reset_request(seed, {**(options or {}), **more} or options, bridge.options.message_limits)
