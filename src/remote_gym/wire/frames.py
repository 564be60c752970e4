"""Rendered frames to messages and back."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import FrameCompressor, decompress_jpeg, decompress_zstd
from remote_gym.wire.values import decode_value, encode_value
from remote_gym.wire.values.arrays import array_obstacle, decode_array, describe_array, to_bytes, told_size
from remote_gym.wire.values.foreign import NoArray, local


def encode_frame(rendered: object, into: pb.Frame, limits: Limits, compressor: FrameCompressor | None = None) -> None:
    """Write what ``render()`` returned.

    Args:
        rendered: An image, usually uint8 of shape ``(height, width, 3)``; or None, a str, a list of images.
        into: An empty message.
        limits: Bounds on its size.
        compressor: Of images; None to leave them as they are.

    Raises:
        EncodingError: If it has no wire form.
    """
    try:
        rendered = local(rendered)
    except NoArray as reason:
        raise EncodingError(f"frame: {reason}") from reason
    if _is_image(rendered):
        _encode_image(rendered, into, limits, compressor)
    elif compressor is not None and type(rendered) is tuple and rendered and all(map(_is_image, rendered)):
        for image in rendered:
            _encode_image(image, into.tuple.frames.add(), limits, compressor)
    else:
        encode_value(rendered, into.value, strict=True, limits=limits, path="frame")


def decode_frame(message: pb.Frame, limits: Limits) -> Any:
    """Read what ``render()`` returned.

    Raises:
        EncodingError: If the message holds no frame, or one whose size is not what it tells or is over the limits.
    """
    content = message.WhichOneof("content")
    if content == "value":
        return decode_value(message.value, limits)
    if content == "tuple":
        return _decode_tuple(message.tuple, limits)
    return _decode_image(message, limits)


def _is_image(rendered: object) -> TypeGuard[NDArray[Any]]:
    return type(rendered) is np.ndarray and rendered.dtype.kind != "O"


def _encode_image(image: NDArray[Any], into: pb.Frame, limits: Limits, compressor: FrameCompressor | None) -> None:
    obstacle = array_obstacle(image, limits)
    if obstacle is not None:
        raise EncodingError(f"frame: {obstacle}")
    data = to_bytes(image)
    compressed = None if compressor is None else compressor.compress_image(image, data)
    array = into.array if compressor is None or compressed is None else getattr(into, compressor.field)
    describe_array(image, array)
    array.data = data if compressed is None else compressed


def _decode_image(message: pb.Frame, limits: Limits) -> NDArray[Any]:
    array, kind = _array_of(message)
    if kind == "array":
        return decode_array(array, limits)
    size = told_size(array, limits)
    if kind == "zstd":
        return decode_array(array, limits, decompress_zstd(array.data, size))
    if array.dtype != pb.UINT8:
        raise EncodingError(f"a JPEG came for an array of dtype number {array.dtype}; it has to be UINT8")
    return decode_array(array, limits, decompress_jpeg(array.data, tuple(array.shape)))


def _decode_tuple(message: pb.FrameTuple, limits: Limits) -> tuple[NDArray[Any], ...]:
    # Together, since what is compressed may be large in a small message, and so may each of many.
    total = sum(told_size(_array_of(frame)[0], limits) for frame in message.frames)
    if len(message.frames) > limits.items or total > limits.array_bytes:
        raise EncodingError(
            f"{len(message.frames):,} frames of {total:,} bytes are over the limit of {limits.items:,} (Limits.items) "
            f"or {limits.array_bytes:,} (Limits.array_bytes)"
        )
    return tuple(_decode_image(frame, limits) for frame in message.frames)


def _array_of(message: pb.Frame) -> tuple[pb.Array, str]:
    """The array of an image, and how its data are compressed."""
    content = message.WhichOneof("content")
    if content is None:
        raise EncodingError("a frame has no content")
    if content not in ("array", "zstd", "jpeg"):
        raise EncodingError(f"a tuple of frames holds a {content}; it has to hold images")
    return getattr(message, content), content
