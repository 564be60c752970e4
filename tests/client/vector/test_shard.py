"""What a slice makes of answers that are not what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from remote_gym.client.vector.shard import Shard
from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import encode_value


def slice_with(**fields: Any) -> Shard:
    """Environments 4 to 6, whose newest transition has those fields."""

    def no_session(_: int) -> Any:
        raise AssertionError("nothing is asked here")

    found = Shard(4, 7, no_session)
    found.transition = pb.Transition()
    for name, value in fields.items():
        encode_value(value, getattr(found.transition, name), strict=True, limits=Limits())
    return found


@pytest.mark.parametrize(
    "rewards",
    [
        np.array([0.5, np.nan, -0.0]),
        np.array([1, 2, 3], np.float32),
        np.array([True, False, True]),
        np.array([1.0, 2.0, 3.0], ">f8"),
    ],
)
def test_rewards_and_flags_keep_dtype_and_bits(rewards):
    found = slice_with(reward_value=rewards).array("reward_value", Limits())
    assert found.dtype == rewards.dtype
    assert found.tobytes() == rewards.tobytes()


@pytest.mark.parametrize("rewards", [np.zeros(2), np.zeros((3, 1)), 1.0, [1.0, 2.0, 3.0], None])
def test_rewards_of_another_shape_are_refused_by_name(rewards):
    with pytest.raises(EncodingError, match=r"(?s)environments 4 to 6: reward_value .* shape \(3,\)"):
        slice_with(reward_value=rewards).array("reward_value", Limits())


def test_flags_that_are_neither_0_nor_1_are_refused():
    each = slice_with(terminated_value=np.zeros(3, np.bool_))
    assert each.transition is not None
    each.transition.terminated_value.array.data = b"\0\1\2"
    with pytest.raises(EncodingError, match="neither 0 nor 1"):
        each.array("terminated_value", Limits())


def test_an_info_is_a_dict_or_absent():
    assert slice_with().info(Limits()) == {}
    assert slice_with(info={"a": 1}).info(Limits()) == {"a": 1}
    with pytest.raises(EncodingError, match="environments 4 to 6: the info"):
        slice_with(info=[1]).info(Limits())
