"""Large observations, written and read past protobuf."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import decode_observation, encode_observation
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.splice import LARGE, parse_response, splice
from remote_gym.wire.values import encode_value

LIMITS = Limits()


def make_response(kind: str, sequence: int, *, with_info: bool) -> pb.Response:
    response = pb.Response(sequence=sequence)
    transition = response.step if kind == "step" else response.reset
    transition.SetInParent()
    if kind == "step":
        transition.reward_float = 0.0
        transition.terminated_bool = False
        encode_value(np.True_, transition.truncated_value, strict=True, limits=LIMITS)
    if with_info:
        encode_value({"a": np.arange(3), "b": "x" * 300}, transition.info, strict=True, limits=LIMITS)
        transition.frame.array.data = bytes(50_000)
    return response


@pytest.mark.parametrize("with_info", [False, True])
@pytest.mark.parametrize("sequence", [1, 127, 128, 2**32, 2**64 - 1])
@pytest.mark.parametrize("kind", ["step", "reset"])
@pytest.mark.parametrize("size", [LARGE, 2**16 + 1, 921_600])
def test_protobuf_reads_what_was_spliced_and_so_do_we(kind, sequence, with_info, size):
    response = make_response(kind, sequence, with_info=with_info)
    packed = np.random.default_rng(1).bytes(size)
    data = b"".join(splice(response, packed))
    expected = pb.Response.FromString(response.SerializeToString())
    (expected.step if kind == "step" else expected.reset).packed = packed
    assert pb.Response.FromString(data) == expected
    found, rest = parse_response(data)
    assert found == response
    assert rest is not None
    assert rest.tobytes() == packed


def test_a_response_by_another_encoder_is_read_whole():
    response = make_response("step", 3, with_info=True)
    response.step.packed = bytes(LARGE)
    found, rest = parse_response(response.SerializeToString())
    assert rest is None or rest.tobytes() == bytes(LARGE)
    if rest is None:
        assert found == response


def test_small_responses_and_others_are_read_whole():
    for response in (
        make_response("step", 3, with_info=False),
        pb.Response(sequence=1, error=pb.ErrorDetail(message="x" * 2 * LARGE)),
        pb.Response(sequence=1, render=pb.RenderResponse(frame=pb.Frame(array=pb.Array(data=bytes(LARGE))))),
    ):
        assert parse_response(response.SerializeToString()) == (response, None)


@given(st.data())
def test_mutated_messages_give_an_encoding_error_or_some_response(data):
    spliced = bytearray(b"".join(splice(make_response("step", 300, with_info=True), bytes(LARGE))))
    for _ in range(data.draw(st.integers(1, 4))):
        spliced[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 100))
    mutated = bytes(spliced[: len(spliced) - cut])
    try:
        response, _ = parse_response(mutated)
    except EncodingError:
        return
    assert isinstance(response, pb.Response)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("owned", [False, True])
def test_a_large_observation_arrives_writable_and_aligned(dtype, owned):
    high = 1 if dtype in (np.bool_, np.float32, np.float64) else 100
    space = spaces.Box(0, high, (90, 90, 8), dtype)
    layout = compile_layout(space)
    observation = space.sample()
    response = pb.Response(sequence=9)
    response.step.SetInParent()
    packed = encode_observation(layout, observation, response.step, LIMITS)
    assert packed is not None
    data = b"".join(splice(response, packed))
    buffer = memoryview(bytearray(data)) if owned else memoryview(data)
    found, rest = parse_response(buffer)
    decoded = decode_observation(layout, found.step, LIMITS, rest)
    assert decoded.dtype == observation.dtype
    assert np.array_equal(decoded, observation)
    assert decoded.flags.writeable
    assert decoded.flags.aligned
    assert np.shares_memory(decoded, np.frombuffer(buffer, np.uint8)) == (
        owned and decoded.itemsize == 1 and dtype != np.bool_
    )
    decoded[0] = 0


def test_a_large_observation_of_the_wrong_size_is_refused():
    layout = compile_layout(spaces.Box(0, 255, (200, 200), np.uint8))
    with pytest.raises(EncodingError, match="has 40000 bytes"):
        layout.adopt(memoryview(bytearray(39_999)))
