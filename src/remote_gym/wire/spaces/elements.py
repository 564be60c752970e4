"""Observations and actions to messages and back."""

from __future__ import annotations

from typing import Any

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, InvalidAction, InvalidObservation
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import ZstdCompressor, decompress_zstd
from remote_gym.wire.spaces.casting import Mismatch, fit
from remote_gym.wire.spaces.layout import Layout
from remote_gym.wire.splice import LARGE
from remote_gym.wire.values import decode_value, encode_value
from remote_gym.wire.values.foreign import NoArray, local


def encode_observation(
    layout: Layout,
    observation: Any,
    into: pb.Transition,
    limits: Limits,
    compressor: ZstdCompressor | None = None,
) -> bytes | None:
    """Write an observation so that it arrives exactly as the environment returned it.

    Args:
        layout: Of its space.
        observation: What the environment returned.
        into: A transition without one.
        limits: Bounds on its size.
        compressor: Of packed forms; None to leave them as they are.

    Returns:
        Its packed form where that is large: it was not written, for `remote_gym.wire.splice.splice` to do. Else None.

    Raises:
        InvalidObservation: If it does not fit its space, bounds aside.
        EncodingError: If it fits, but has no wire form, such as a masked array or one over the limits.
    """
    packed = layout.pack(observation)
    if packed is None:
        given, observation = observation, _local(observation, "observation", EncodingError)
        packed = None if observation is given else layout.pack(observation)
    if packed is not None:
        if compressor is not None and (compressed := compressor.compress(packed)) is not None:
            into.zstd = compressed
            return None
        if len(packed) >= LARGE:
            return packed
        into.packed = packed
        return None
    try:
        fit(layout.space, observation)
    except Mismatch as mismatch:
        raise InvalidObservation(f"observation{mismatch}") from None
    encode_value(observation, into.value, strict=True, limits=limits, path="observation")
    return None


def decode_observation(layout: Layout, message: pb.Transition, limits: Limits, packed: memoryview | None = None) -> Any:
    """Read an observation. Its arrays are writable and share no memory with each other.

    Args:
        layout: Of its space.
        message: What holds it.
        limits: Bounds.
        packed: The observation itself, if `remote_gym.wire.splice.parse_response` left it out of the message. If it can
            be written to, it becomes the caller's array rather than being copied once more.

    Raises:
        EncodingError: If there is none, or it does not fit its space.
    """
    if packed is not None:
        return layout.adopt(packed)
    if data := message.packed:
        return layout.unpack(data)
    form = message.WhichOneof("observation")
    if form == "packed":  # of a space whose elements take no byte
        return layout.unpack(message.packed)
    if form == "zstd":
        if layout.size is None:
            raise EncodingError(f"an observation came packed, and {layout.space} has no packed form")
        return layout.unpack(decompress_zstd(message.zstd, layout.size))
    if form is None:
        raise EncodingError("a transition has no observation")
    observation = decode_value(message.value, limits)
    try:
        fit(layout.space, observation)
    except Mismatch as mismatch:
        raise EncodingError(f"observation{mismatch}") from None
    return observation


def encode_action(layout: Layout, action: Any, into: pb.StepRequest, limits: Limits) -> None:
    """Write an action, converted to its space's types as `remote_gym.wire.spaces.casting.fit` tells.

    Raises:
        InvalidAction: If it does not fit its space, bounds aside.
        EncodingError: If it fits, but exceeds the limits.
    """
    packed = layout.pack(action)
    if packed is None:
        action = _fit_action(layout, _local(action, "action", InvalidAction))
        packed = layout.pack(action)
    if packed is not None:
        into.packed = packed
    else:
        encode_value(action, into.value, strict=True, limits=limits, path="action")


def decode_action(layout: Layout, message: pb.StepRequest, limits: Limits) -> Any:
    """Read an action. One that came as a Value is converted as `encode_action` would have.

    Raises:
        EncodingError: If there is none, or it cannot be read.
        InvalidAction: If it does not fit its space, bounds aside.
    """
    if data := message.packed:
        return layout.unpack(data)
    form = message.WhichOneof("action")
    if form == "packed":  # of a space whose elements take no byte
        return layout.unpack(message.packed)
    if form is None:
        raise EncodingError("a step has no action")
    return _fit_action(layout, decode_value(message.value, limits))


def _local(element: Any, what: str, error: type[Exception]) -> Any:
    try:
        return local(element)
    except NoArray as reason:
        raise error(f"{what}: {reason}") from reason


def _fit_action(layout: Layout, action: Any) -> Any:
    try:
        return fit(layout.space, action)
    except Mismatch as mismatch:
        raise InvalidAction(f"action{mismatch}") from None
