"""Describes an environment, spaces aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.logs import get_logger
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import encode_value

logger = get_logger(__name__)


def encode_metadata(metadata: Mapping[str, Any], into: pb.Value, limits: Limits) -> None:
    """Write an environment's metadata, without what has no wire form."""
    encodable = {}
    for key, value in metadata.items():
        try:
            encode_value(value, pb.Value(), strict=True, limits=limits)
        except EncodingError as error:
            logger.debug("metadata[%r] stays here: %s", key, error)
        else:
            encodable[key] = value
    encode_value(encodable, into, strict=True, limits=limits)


def encode_spec(spec: Any, into: pb.EnvironmentSpec) -> None:
    """Write what a client may know of a registered environment's spec."""
    into.CopyFrom(
        pb.EnvironmentSpec(
            id=spec.id,
            reward_threshold=spec.reward_threshold,
            nondeterministic=spec.nondeterministic,
            max_episode_steps=spec.max_episode_steps,
        )
    )
