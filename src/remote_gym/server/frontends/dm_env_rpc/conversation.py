"""One stream of a dm_env_rpc client: what it asks, and what answers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
from dm_env_rpc.v1 import tensor_utils
from google.rpc import code_pb2
from gymnasium.error import ResetNeeded

from remote_gym.errors import (
    ConfigError,
    EncodingError,
    InvalidAction,
    NotPermitted,
    OutOfSequence,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionLost,
)
from remote_gym.server.frontends.dm_env_rpc.worlds import World, Worlds

SEED = "seed"
"""Setting of a reset that seeds it."""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotPermitted, code_pb2.PERMISSION_DENIED),
    (ServerFull, code_pb2.RESOURCE_EXHAUSTED),
    (SessionLost, code_pb2.NOT_FOUND),
    (OutOfSequence, code_pb2.ABORTED),
    (InvalidAction, code_pb2.INVALID_ARGUMENT),
    (ConfigError, code_pb2.INVALID_ARGUMENT),
    (EncodingError, code_pb2.INVALID_ARGUMENT),
    (ResetNeeded, code_pb2.FAILED_PRECONDITION),
    (RemoteEnvironmentError, code_pb2.INTERNAL),
)
"""Codes of google.rpc by kinds of errors, the first that fits."""


class Conversation:
    """Answers a client's requests one after another. It joins one world at a time.

    Args:
        worlds: Those of all clients.
    """

    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds
        self._joined: World | None = None

    async def answer(self, request: Any) -> Any:
        """Answer one request; an error is an answer, too."""
        answer = dm.EnvironmentResponse()
        kind = request.WhichOneof("payload")
        try:
            if kind is None or (handler := getattr(self, f"_{kind}", None)) is None:
                raise ConfigError(f"the request {kind!r} is none that this server knows", field="payload")
            await handler(getattr(request, kind), getattr(answer, kind))
            getattr(answer, kind).SetInParent()
        except (RemoteGymError, ResetNeeded) as error:
            if isinstance(error, SessionLost | OutOfSequence):
                self.leave()
            return refusal(error)
        return answer

    def leave(self) -> None:
        """Leave the world that is joined, if one is. It lives on for its lease."""
        world, self._joined = self._joined, None
        if world is not None:
            world.leave()

    async def end(self) -> None:
        """The stream has ended."""
        self.leave()
        await self._worlds.leave_all(self)

    async def _create_world(self, request: Any, answer: Any) -> None:
        settings = _values(request.settings)
        answer.world_name = await self._worlds.create(_arguments(settings.pop("args", None)), settings, self)

    async def _join_world(self, request: Any, answer: Any) -> None:
        _refuse_settings("joining a world", _values(request.settings))
        if self._joined is not None:
            raise ConfigError(f"the world {self._joined.name!r} is joined; leave it first", field="world_name")
        world = self._worlds.find(request.world_name)
        world.join(self)
        self._joined = world
        self._describe(world, answer.specs)

    async def _leave_world(self, request: Any, answer: Any) -> None:
        self.leave()

    async def _destroy_world(self, request: Any, answer: Any) -> None:
        world = self._worlds.find(request.world_name)
        if world is self._joined:
            self.leave()
        await self._worlds.destroy(world)

    async def _reset_world(self, request: Any, answer: Any) -> None:
        await self._begin(self._worlds.find(request.world_name), _values(request.settings))

    async def _reset(self, request: Any, answer: Any) -> None:
        world = self._world()
        await self._begin(world, _values(request.settings))
        self._describe(world, answer.specs)

    async def _step(self, request: Any, answer: Any) -> None:
        world = self._world()
        wanted = sorted(set(request.requested_observations))
        for uid in wanted:
            if uid not in world.observations:
                raise ConfigError(
                    f"there is no observation of the unique id {uid}; there are {sorted(world.observations)}",
                    field="requested_observations",
                )
        answer.state, tensors = await world.step(request.actions, wanted)
        for uid, tensor in tensors.items():
            answer.observations[uid].CopyFrom(tensor)

    async def _begin(self, world: World, settings: dict[str, Any]) -> None:
        seed = settings.pop(SEED, None)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ConfigError(f"is {seed!r}; use an integer", field=SEED, where="the setting 'seed'")
        await world.reset(seed, settings or None)

    def _world(self) -> World:
        if self._joined is None:
            raise ConfigError("no world is joined; join one first", field="world_name")
        return self._joined

    def _describe(self, world: World, specs: Any) -> None:
        for uid, spec in world.actions.items():
            specs.actions[uid].CopyFrom(spec)
        for uid, spec in world.observations.items():
            specs.observations[uid].CopyFrom(spec)


def refusal(error: Exception) -> Any:
    """Answer that says what went wrong."""
    answer = dm.EnvironmentResponse()
    answer.error.code = next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.UNKNOWN)
    answer.error.message = str(error)
    return answer


def _values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain values: numbers and texts where they have no shape, else arrays."""
    found = {}
    for name, tensor in settings.items():
        try:
            values = tensor_utils.unpack_proto(tensor)
            if tensor.shape and list(tensor.shape) != [values.size]:
                values = values.reshape(tuple(tensor.shape))  # never one number for many, which could be any many
            elif not tensor.shape:
                values = values.reshape(()).item()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"cannot be read: {error}", field=name, where=f"the setting {name!r}") from error
        found[name] = values
    return found


def _arguments(text: Any) -> dict[str, Any]:
    """`RemoteArgs` of a client of remote-gym 0.7, which sends them as JSON."""
    if text is None:
        return {}
    try:
        arguments = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"is no JSON: {error}", field="args", where="the setting 'args'") from error
    if not isinstance(arguments, dict):
        raise ConfigError("is no object of JSON", field="args", where="the setting 'args'")
    return arguments


def _refuse_settings(what: str, settings: Mapping[str, Any]) -> None:
    if settings:
        raise ConfigError(f"{what} takes no settings; found {sorted(settings)}", field="settings")
