"""Whatever an environment renders arrives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frames import decode_frame, encode_frame
from wire.examples import LIMITS, same

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
OBJECTS = np.fromiter([IMAGE, None], dtype=object, count=2)


@pytest.mark.parametrize(
    "rendered", [IMAGE, IMAGE[::-1, ::2], IMAGE / 255, None, "+-+\n| |", [IMAGE, IMAGE], (), OBJECTS]
)
def test_a_frame_arrives_unchanged(rendered: Any) -> None:
    message = pb.Frame()
    encode_frame(rendered, message, LIMITS)
    assert same(decode_frame(pb.Frame.FromString(message.SerializeToString()), LIMITS), rendered)


def test_an_image_travels_as_an_array() -> None:
    message = pb.Frame()
    encode_frame(IMAGE, message, LIMITS)
    assert message.WhichOneof("content") == "array"


@pytest.mark.parametrize(
    "rendered", [object(), [object()], np.ma.array(IMAGE).view(type("Own", (np.ma.MaskedArray,), {}))]
)
def test_a_frame_without_a_wire_form_is_refused(rendered: Any) -> None:
    with pytest.raises(EncodingError, match="frame"):
        encode_frame(rendered, pb.Frame(), LIMITS)


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"Limits\.array_bytes"):
        encode_frame(IMAGE, pb.Frame(), Limits(array_bytes=10))


def test_a_frame_without_content_is_refused() -> None:
    with pytest.raises(EncodingError, match="content"):
        decode_frame(pb.Frame(), LIMITS)
