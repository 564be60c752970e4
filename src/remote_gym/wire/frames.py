"""Rendered frames to messages and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.arrays import array_obstacle, decode_array, encode_array
from remote_gym.wire.values import decode_value, encode_value


def encode_frame(rendered: object, into: pb.Frame, limits: Limits) -> None:
    """Write what ``render()`` returned.

    Args:
        rendered: An image, usually uint8 of shape ``(height, width, 3)``; or None, a str, a list of images.
        into: An empty message.
        limits: Bounds on its size.

    Raises:
        EncodingError: If it has no wire form.
    """
    if type(rendered) is np.ndarray and rendered.dtype.kind != "O":
        obstacle = array_obstacle(rendered, limits)
        if obstacle is not None:
            raise EncodingError(f"frame: {obstacle}")
        encode_array(rendered, into.array)
    else:
        encode_value(rendered, into.value, strict=True, limits=limits, path="frame")


def decode_frame(message: pb.Frame, limits: Limits) -> Any:
    """Read what ``render()`` returned.

    Raises:
        EncodingError: If the message holds no frame.
    """
    content = message.WhichOneof("content")
    if content == "array":
        return decode_array(message.array, limits)
    if content == "value":
        return decode_value(message.value, limits)
    raise EncodingError("a frame has no content")
