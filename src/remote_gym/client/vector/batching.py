"""Joining of what the workers of a vector environment send to values of all environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote_gym.client.vector.shard import Shard
from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.autoreset import autoreset_mode
from remote_gym.wire.infos import join_infos, renumber
from remote_gym.wire.spaces.batches import Part, compile_batch, join_spaces
from remote_gym.wire.spaces.encoding import decode_space
from remote_gym.wire.values import decode_value

Step = tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]


class Joiner:
    """Joins what shards hold. A pickled copy does the same.

    Args:
        descriptions: What each slice's worker told of its environments, in their order.
        limits: Bounds on what is decoded.

    Attributes:
        single_observation_space: Of one environment.
        single_action_space: Of one environment.
        observation_space: Of all.
        action_space: Of all.
        metadata: As on the server, with the autoreset mode as Gymnasium has it.
        autoreset: The same as the protocol has it.
        actions: Fits and encodes actions.

    Raises:
        EncodingError: If a description is none.
    """

    def __init__(self, descriptions: Sequence[pb.Description], limits: Limits) -> None:
        first = descriptions[0]
        self._limits = limits
        self.single_observation_space = decode_space(first.single_observation_space, limits)
        self.single_action_space = decode_space(first.single_action_space, limits)
        observation_spaces = [decode_space(each.observation_space, limits) for each in descriptions]
        action_spaces = [decode_space(each.action_space, limits) for each in descriptions]
        self.observation_space = join_spaces(self.single_observation_space, observation_spaces)
        self.action_space = join_spaces(self.single_action_space, action_spaces)
        metadata = decode_value(first.metadata, limits)
        if not isinstance(metadata, dict):
            raise EncodingError(f"the environments' metadata is {metadata!r}, not a dict")
        self.metadata = metadata
        self.autoreset = first.autoreset_mode
        self._numbers_environments = first.numbers_environments
        if (mode := autoreset_mode(self.autoreset)) is not None:
            self.metadata["autoreset_mode"] = mode
        self._compile()

    def _compile(self) -> None:
        self._observations = compile_batch(self.single_observation_space, self.observation_space)
        self.actions = compile_batch(self.single_action_space, self.action_space)

    def __getstate__(self) -> dict[str, Any]:
        compiled = ("_observations", "actions")  # made of functions
        return {name: value for name, value in self.__dict__.items() if name not in compiled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compile()

    def transitions(self, shards: Sequence[Shard]) -> Step:
        """Join what a step of some shards returned: observations, rewards, terminations, truncations and infos.

        Raises:
            EncodingError: If something does not fit.
        """
        rewards, terminations, truncations = (
            np.concatenate([each.array(name, self._limits) for each in shards])
            for name in ("reward_value", "terminated_value", "truncated_value")
        )
        return self.observations(shards), rewards, terminations, truncations, self.infos(shards, shards)

    def observations(self, shards: Sequence[Shard]) -> Any:
        """The newest observations of some shards, in writable arrays of their own.

        Raises:
            EncodingError: If one does not fit the space.
        """
        parts = [Part(each.size, each.transition, each.packed) for each in shards if each.transition is not None]
        return self._observations.join(parts, self._limits)

    def infos(self, shards: Sequence[Shard], having: Sequence[Shard]) -> dict[str, Any]:
        """The infos of those among some shards that have new ones, in rows for all of these.

        Raises:
            EncodingError: If one is no dict.
        """
        infos = [each.info(self._limits) if each in having else {} for each in shards]
        if self._numbers_environments:
            for each, info in zip(shards, infos, strict=True):
                renumber(info, each.start)
        return join_infos([each.size for each in shards], infos)
