"""Worlds of dm_env_rpc's clients: a session each, which its client joins and leaves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
from dm_env_rpc.v1 import tensor_utils

from remote_gym.config import Limits, read_environment
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.protocol.requests import reset_request
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.dm_env_rpc.specs import Leaves
from remote_gym.server.frontends.hosted import Hosted

RUNNING, TERMINATED, INTERRUPTED = (
    dm.EnvironmentStateType.RUNNING,
    dm.EnvironmentStateType.TERMINATED,
    dm.EnvironmentStateType.INTERRUPTED,
)
OBSERVATION, REWARD, RENDERING, ACTION = "observation", "reward", "rendering", "action"
"""Names of tensors; the first and the last where a space has no parts of its own."""

MODE = "render_mode"
"""Setting of a new world by which its environment renders."""

Tensors = dict[int, Any]


class World:
    """A session, as a world that one connection at a time joins.

    Args:
        name: By which clients know it; a secret.
        hosted: The session.
        limits: Bounds on requests.

    Attributes:
        users: Connections, still open, that have created or joined it.
        was_joined: Whether any has joined it.

    Raises:
        ConfigError: If a space of its environment has no spec.
    """

    def __init__(self, name: str, hosted: Hosted, limits: Limits) -> None:
        self.name = name
        self._hosted = hosted
        self._limits = limits
        self._state = TERMINATED
        self.users: set[object] = set()
        self.was_joined = False
        self._begun: Tensors | None = None  # observations of a reset that no step has returned
        self._action_leaves = Leaves(hosted.action_space, ACTION, "action")
        self._leaves = Leaves(hosted.observation_space, OBSERVATION, "observation")
        self.actions = self._action_leaves.specs()
        self.observations = self._leaves.specs()
        taken = {spec.name for spec in self.observations.values()}
        if own := taken & {REWARD, RENDERING}:
            raise ConfigError(f"the environment's observations have {sorted(own)}, which dm_env_rpc means otherwise")
        self._reward = max(self.observations, default=0) + 1
        self._rendering: int | None = None
        self.observations[self._reward] = dm.TensorSpec(name=REWARD, dtype=dm.DataType.DOUBLE)

    @property
    def is_lost(self) -> bool:
        """Whether its session has ended."""
        return self._hosted.is_lost

    async def find_frames(self) -> None:
        """Have frames among the observations, if the environment renders them: their shape is that of the first one."""
        if self._hosted.description.render_mode != "rgb_array":
            return
        await self.reset(None, None)
        shape = np.shape(await self._hosted.render(lambda frame: frame))
        self._rendering = self._reward + 1
        self.observations[self._rendering] = dm.TensorSpec(name=RENDERING, dtype=dm.DataType.UINT8, shape=shape)
        self._begun = None  # its clients' own first episode begins by a reset of theirs

    def join(self, user: object) -> None:
        """Hold it for a connection. The next step begins an episode.

        Args:
            user: The connection.

        Raises:
            ConfigError: If another connection has joined it.
            RemoteGymError: If its session has ended.
        """
        if self._hosted.holder is not None:
            raise ConfigError(
                f"the world {self.name!r} is joined by another connection, and one may", field="world_name"
            )
        self._hosted.attach()
        self._hosted.holder = user
        self.users.add(user)
        self.was_joined = True
        self._state, self._begun = TERMINATED, None

    def leave(self) -> None:
        """Leave it for its lease."""
        self._hosted.holder = None
        self._hosted.detach()

    async def destroy(self) -> None:
        """End its session."""
        await self._hosted.close()

    async def reset(self, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """Begin an episode, whose first observation the next step returns.

        Raises:
            RemoteGymError: As a reset does.
        """
        self._state, self._begun = INTERRUPTED, None
        request = reset_request(seed, options, self._limits)
        self._begun = await self._hosted.reset(request, lambda observation, _: self._leaves.pack(observation))

    async def step(self, actions: Mapping[int, Any], wanted: Sequence[int]) -> tuple[int, Tensors]:
        """Take a step; or the first of an episode, which takes no action.

        Args:
            actions: Tensors by their unique ids.
            wanted: Unique ids of observations, which exist.

        Returns:
            The state, and the observations that are wanted.

        Raises:
            RemoteGymError: As a step does.
        """
        if self._state == RUNNING:
            self._state, tensors = await self._hosted.step(
                lambda: self._action_leaves.unpack(actions), self._read, size=sum(map(_size, actions.values()))
            )
        else:
            if self._begun is None:
                await self.reset(None, None)
            assert self._begun is not None
            tensors, self._begun = {**self._begun, self._reward: tensor_utils.pack_tensor(0.0)}, None
            self._state = RUNNING
        if self._rendering in wanted:
            assert self._rendering is not None
            shape = tuple(self.observations[self._rendering].shape)
            tensors[self._rendering] = await self._hosted.render(lambda frame: _frame(frame, shape))
        return self._state, {uid: tensors[uid] for uid in wanted}

    def _read(
        self, observation: Any, reward: Any, terminated: Any, truncated: Any, _info: dict[str, Any]
    ) -> tuple[int, Tensors]:
        state = TERMINATED if terminated else INTERRUPTED if truncated else RUNNING
        try:
            tensors = {**self._leaves.pack(observation), self._reward: tensor_utils.pack_tensor(float(reward))}
        except (TypeError, ValueError) as error:
            raise EncodingError(f"what the step returned has no tensors: {error}") from error
        return state, tensors


class Worlds:
    """Worlds of one client.

    Args:
        bridge: Opens their sessions.
        client: Whose they are.
        kept: The worlds of all clients, by identity and name.
    """

    def __init__(self, bridge: Bridge, client: Client, kept: dict[tuple[str, str], World]) -> None:
        self._bridge = bridge
        self._client = client
        self._kept = kept

    async def create(self, arguments: Mapping[str, Any], settings: dict[str, Any], user: object) -> str:
        """Open a session.

        Args:
            arguments: As `RemoteArgs`.
            settings: Keyword arguments of its environment, over those; `MODE` is none of them.
            user: The connection that asks.

        Returns:
            The world's name.

        Raises:
            RemoteGymError: As opening does.
        """
        for key in [key for key, world in self._kept.items() if world.is_lost]:
            del self._kept[key]
        mode = settings.pop(MODE, None)
        if not isinstance(mode, str | None):
            raise ConfigError(f"is {mode!r}; use a text", field=MODE, where=f"the setting {MODE!r}")
        read = dict(read_environment("args", arguments)) if arguments else {}
        read["entrypoint_kwargs"] = {**(read.get("entrypoint_kwargs") or {}), **settings}
        hosted = await self._bridge.open(self._client, read, render_mode=mode)
        try:
            world = World(f"{hosted.id}-{secrets.token_hex(16)}", hosted, self._bridge.options.message_limits)
            await world.find_frames()
        except BaseException:
            await hosted.close()
            raise
        world.users.add(user)
        self._kept[self._client.identity, world.name] = world
        return world.name

    def find(self, name: str) -> World:
        """The world of a name.

        Raises:
            ConfigError: If this client has none of that name.
        """
        world = self._kept.get((self._client.identity, name))
        if world is None or world.is_lost:
            raise ConfigError(f"there is no world {name!r} of this client's, or no longer", field="world_name")
        return world

    async def leave_all(self, user: object) -> None:
        """A connection has ended: so do the worlds that it has made or joined, unless another still uses them.

        One that nobody has joined lives on for its lease: it may have been made for others.
        """
        for world in [world for world in self._kept.values() if user in world.users]:
            world.users.discard(user)
            if not world.users and world.was_joined:
                await self.destroy(world)

    async def destroy(self, world: World) -> None:
        """End a world."""
        self._kept.pop((self._client.identity, world.name), None)
        await world.destroy()


def _size(tensor: Any) -> int:
    return int(tensor.ByteSize())


def _frame(frame: Any, shape: tuple[int, ...]) -> Any:
    if np.shape(frame) != shape:
        raise EncodingError(f"the environment rendered a frame of shape {np.shape(frame)}, and at first of {shape}")
    return tensor_utils.pack_tensor(np.asarray(frame, np.uint8))
