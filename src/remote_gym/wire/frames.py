"""Rendered frames to messages and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.arrays import array_obstacle, decode_array, describe_array, to_bytes, told_size
from remote_gym.wire.compression import FrameCompressor, decompress_jpeg, decompress_zstd
from remote_gym.wire.values import decode_value, encode_value


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
    if type(rendered) is np.ndarray and rendered.dtype.kind != "O":
        obstacle = array_obstacle(rendered, limits)
        if obstacle is not None:
            raise EncodingError(f"frame: {obstacle}")
        data = to_bytes(rendered)
        compressed = None if compressor is None else compressor.compress_image(rendered, data)
        array = into.array if compressor is None or compressed is None else getattr(into, compressor.field)
        describe_array(rendered, array)
        array.data = data if compressed is None else compressed
    else:
        encode_value(rendered, into.value, strict=True, limits=limits, path="frame")


def decode_frame(message: pb.Frame, limits: Limits) -> Any:
    """Read what ``render()`` returned.

    Raises:
        EncodingError: If the message holds no frame, or one whose size is not what it tells or is over the limits.
    """
    content = message.WhichOneof("content")
    if content == "array":
        return decode_array(message.array, limits)
    if content == "zstd":
        array = message.zstd
        return decode_array(array, limits, decompress_zstd(array.data, told_size(array, limits)))
    if content == "jpeg":
        array = message.jpeg
        if array.dtype != pb.UINT8:
            raise EncodingError(f"a JPEG came for an array of dtype number {array.dtype}; it has to be UINT8")
        told_size(array, limits)
        return decode_array(array, limits, decompress_jpeg(array.data, tuple(array.shape)))
    if content == "value":
        return decode_value(message.value, limits)
    raise EncodingError("a frame has no content")
