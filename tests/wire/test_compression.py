"""What was compressed arrives; what only says that it was costs nothing."""

from __future__ import annotations

import contextlib
import io
import sys
import tracemalloc
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.config import ClientOptions, Limits
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.protocol.open_request import choose_encodings
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import (
    PAUSE,
    SMALLEST,
    ZstdCompressor,
    decompress_jpeg,
    decompress_zstd,
    frame_compressor,
    observation_compressor,
)
from remote_gym.wire.frames import decode_frame, encode_frame
from remote_gym.wire.spaces.elements import decode_observation, encode_observation
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.worker.host import Host
from wire.examples import LIMITS, same

zstandard = pytest.importorskip("zstandard")
Image = pytest.importorskip("PIL.Image")

SHADES = np.tile(np.arange(80, dtype=np.uint8)[:, None], (60, 1, 3))
NOISE = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
BOMB = zstandard.ZstdCompressor().compress(bytes(2**26))


def sent(rendered: Any, compressor: Any) -> pb.Frame:
    message = pb.Frame()
    encode_frame(rendered, message, LIMITS, compressor)
    return pb.Frame.FromString(message.SerializeToString())


def as_jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    "rendered",
    [SHADES, SHADES[::-1, ::2], SHADES / 255, SHADES.astype(">i4"), SHADES > 20, np.full(400, "text"), SHADES[..., 0]],
)
def test_zstd_frames_arrive_bit_for_bit_in_fewer_bytes(rendered):
    message = sent(rendered, frame_compressor(pb.ENCODING_ZSTD))
    assert message.WhichOneof("content") == "zstd"
    assert message.ByteSize() < rendered.nbytes / 5
    found = decode_frame(message, LIMITS)
    assert same(found, rendered)
    assert found.flags.writeable


@pytest.mark.parametrize("encoding", [pb.ENCODING_AUTO, pb.ENCODING_ZSTD])
def test_what_would_not_become_smaller_travels_as_it_is(encoding):
    message = sent(NOISE, frame_compressor(encoding))
    assert message.WhichOneof("content") == "array"
    assert same(decode_frame(message, LIMITS), NOISE)


@pytest.mark.parametrize("encoding", [pb.ENCODING_ZSTD, pb.ENCODING_JPEG])
@pytest.mark.parametrize("rendered", [None, "text", [SHADES], np.float32(3)])
def test_what_is_no_array_travels_as_it_is(encoding, rendered):
    message = sent(rendered, frame_compressor(encoding))
    assert message.WhichOneof("content") == "value"
    assert same(decode_frame(message, LIMITS), rendered)


def test_auto_pauses_where_compressing_saves_little_and_tries_again():
    compressor = ZstdCompressor(probes=True)
    noise, shades = NOISE.tobytes(), SHADES.tobytes()
    assert compressor.compress(noise) is None
    assert [compressor.compress(shades) for _ in range(PAUSE)] == [None] * PAUSE
    for _ in range(3):
        assert compressor.compress(shades) is not None


def test_saving_a_little_is_enough_only_where_zstd_was_asked_for():
    data = NOISE.tobytes() + bytes(NOISE.size // 10)
    assert ZstdCompressor(probes=True).compress(data) is None
    assert ZstdCompressor(probes=False).compress(data) is not None


def test_what_is_small_is_not_compressed():
    compressor = ZstdCompressor(probes=False)
    assert compressor.compress(bytes(SMALLEST - 1)) is None
    assert compressor.compress(bytes(SMALLEST)) is not None


def test_jpeg_frames_look_alike_and_are_smaller():
    image = SHADES.copy()
    image[20:40, 20:40] = 160, 60, 60
    message = sent(image, frame_compressor(pb.ENCODING_JPEG))
    assert message.WhichOneof("content") == "jpeg"
    assert message.ByteSize() < image.nbytes / 5
    found = decode_frame(message, LIMITS)
    assert (found.shape, found.dtype, found.flags.writeable) == (image.shape, np.uint8, True)
    assert np.abs(found.astype(int) - image).mean() < 3


def test_jpeg_takes_an_image_by_its_elements_whatever_its_memory_looks_like():
    found = decode_frame(sent(SHADES[:, ::-1], frame_compressor(pb.ENCODING_JPEG)), LIMITS)
    assert np.abs(found.astype(int) - SHADES[:, ::-1]).max() < 8


@pytest.mark.parametrize(
    "image",
    [
        SHADES[..., 0],
        SHADES / 255,
        SHADES.astype(np.int8),
        SHADES[:0],
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((65501, 1, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}",
)
def test_other_arrays_are_never_made_jpegs(image):
    message = sent(image, frame_compressor(pb.ENCODING_JPEG))
    assert message.WhichOneof("content") == "array"
    assert same(decode_frame(message, LIMITS), image)


@pytest.mark.parametrize("field", ["zstd", "jpeg"])
def test_each_image_of_a_tuple_is_compressed_by_itself(field):
    small = SHADES[:2, :2, 0]
    message = sent((SHADES, small, SHADES[::-1]), frame_compressor(pb.Encoding.Value(f"ENCODING_{field.upper()}")))
    assert [frame.WhichOneof("content") for frame in message.tuple.frames] == [field, "array", field]
    found = decode_frame(message, LIMITS)
    assert same(found[1], small)
    for image, expected in zip(found, (SHADES, small, SHADES[::-1]), strict=True):
        assert np.abs(image.astype(int) - expected).max() <= (0 if field == "zstd" else 8)


SPACE = spaces.Dict({"image": spaces.Box(0, 255, SHADES.shape, np.uint8), "count": spaces.Discrete(5)})


def test_observations_arrive_bit_for_bit_and_writable():
    layout, transition = compile_layout(SPACE), pb.Transition()
    observation = {"count": np.int64(3), "image": SHADES}
    observation = {key: observation[key] for key in SPACE.spaces}
    left = encode_observation(layout, observation, transition, LIMITS, observation_compressor(pb.ENCODING_ZSTD))
    assert left is None
    assert transition.ByteSize() < SHADES.nbytes / 5
    found = decode_observation(layout, pb.Transition.FromString(transition.SerializeToString()), LIMITS)
    assert same(found, observation)
    assert found["image"].flags.writeable


def test_an_observation_without_a_packed_form_cannot_come_compressed():
    layout = compile_layout(spaces.Text(5))
    with pytest.raises(EncodingError, match="no packed form"):
        decode_observation(layout, pb.Transition(zstd=ZstdCompressor(probes=False).compress(bytes(2000))), LIMITS)


# ---------------------------------------------------------------------------------------------------------
# Hostile bytes


LARGE_JPEG = as_jpeg(np.zeros((3000, 3000, 3), np.uint8))


def bomb_frame(**fields: Any) -> pb.Frame:
    return pb.Frame(zstd=pb.Array(dtype=pb.UINT8, shape=[2, 500], data=BOMB, **fields))


@pytest.mark.parametrize(
    "decode",
    [
        lambda: decode_frame(bomb_frame(), LIMITS),
        lambda: decode_frame(pb.Frame(zstd=pb.Array(dtype=pb.UINT8, shape=[2**26], data=BOMB)), Limits(array_bytes=99)),
        lambda: decode_observation(compile_layout(spaces.Discrete(3)), pb.Transition(zstd=BOMB), LIMITS),
        lambda: decode_frame(
            pb.Frame(jpeg=pb.Array(dtype=pb.UINT8, shape=[4, 4, 3], data=LARGE_JPEG)),
            LIMITS,
        ),
    ],
    ids=["frame", "limit", "observation", "jpeg"],
)
def test_a_bomb_is_refused_before_it_takes_memory(decode):
    tracemalloc.start()
    try:
        with pytest.raises(EncodingError):
            decode()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_frames_of_a_tuple_are_bounded_together():
    frame = sent(SHADES, frame_compressor(pb.ENCODING_ZSTD))
    message = pb.Frame(tuple=pb.FrameTuple(frames=[frame] * 3))
    assert len(decode_frame(message, Limits(array_bytes=3 * SHADES.size))) == 3
    with pytest.raises(EncodingError, match=r"3 frames of 43,200 bytes are over .*Limits\.array_bytes"):
        decode_frame(message, Limits(array_bytes=3 * SHADES.size - 1))
    with pytest.raises(EncodingError, match=r"Limits\.items"):
        decode_frame(message, Limits(items=2))


@pytest.mark.parametrize("content", [pb.Frame(tuple=pb.FrameTuple()), pb.Frame(value=pb.Value(text="x")), pb.Frame()])
def test_a_tuple_of_frames_holds_images(content):
    with pytest.raises(EncodingError, match=r"hold images|no content"):
        decode_frame(pb.Frame(tuple=pb.FrameTuple(frames=[content])), LIMITS)


GOOD = zstandard.ZstdCompressor(level=1).compress(SHADES.tobytes())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"no zstd at all", "cannot be read"),
        (GOOD[:-1], "cannot be read"),
        (GOOD + b"x", "cannot be read"),
        (GOOD + GOOD, "cannot be read"),
        (zstandard.ZstdCompressor().compress(SHADES.tobytes()[:-1]), f"tells of {SHADES.size - 1} bytes"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(SHADES.tobytes()), "tells of"),
        (b"\x50\x2a\x4d\x18" + SHADES.size.to_bytes(4, "little") + bytes(SHADES.size), "cannot be read"),
    ],
    ids=["empty", "other", "cut", "longer", "twice", "shorter", "unsized", "skippable"],
)
def test_zstd_data_that_is_not_what_it_has_to_be_is_refused(data, message):
    with pytest.raises(EncodingError, match=message):
        decompress_zstd(data, SHADES.size)


@pytest.mark.parametrize(
    "data",
    [b"", b"no JPEG", as_jpeg(SHADES)[:-40], as_jpeg(SHADES[..., 0]), as_jpeg(SHADES[1:]), as_jpeg(SHADES)[:3]],
    ids=["empty", "other", "cut", "grey", "smaller", "magic"],
)
def test_a_jpeg_that_is_not_what_it_has_to_be_is_refused(data):
    with pytest.raises(EncodingError, match="JPEG"):
        decompress_jpeg(data, SHADES.shape)


def test_another_picture_format_is_not_even_tried():
    file = io.BytesIO()
    Image.fromarray(SHADES).save(file, "PNG")
    with pytest.raises(EncodingError, match="JPEG"):
        decompress_jpeg(file.getvalue(), SHADES.shape)


def test_a_jpeg_for_another_dtype_is_refused():
    with pytest.raises(EncodingError, match="has to be UINT8"):
        decode_frame(pb.Frame(jpeg=pb.Array(dtype=pb.INT8, shape=SHADES.shape, data=as_jpeg(SHADES))), LIMITS)


@given(st.sampled_from(["zstd", "jpeg"]), st.data())
def test_mutated_bytes_give_an_encoding_error_or_some_image(field, data):
    mutated = bytearray(GOOD if field == "zstd" else as_jpeg(SHADES))
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    array = pb.Array(dtype=pb.UINT8, shape=SHADES.shape, data=bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))
    with contextlib.suppress(EncodingError):
        assert decode_frame(pb.Frame(**{field: array}), LIMITS).shape == SHADES.shape


# ---------------------------------------------------------------------------------------------------------
# Who chooses


@pytest.mark.parametrize(("url", "expected"), [("localhost", "RAW"), ("unix:/x", "RAW"), ("gpu.example.com", "AUTO")])
def test_auto_compresses_only_between_machines(url, expected):
    request = pb.OpenRequest()
    choose_encodings(request, ClientOptions(), url)
    assert request.frame_encoding == request.observation_encoding == pb.Encoding.Value(f"ENCODING_{expected}")


def test_what_is_asked_for_is_told_whatever_the_link_is():
    request = pb.OpenRequest()
    choose_encodings(request, ClientOptions(frame_encoding="jpeg", observation_encoding="zstd"), "localhost")
    assert (request.frame_encoding, request.observation_encoding) == (pb.ENCODING_JPEG, pb.ENCODING_ZSTD)
    choose_encodings(request, ClientOptions(frame_encoding="raw", observation_encoding="raw"), "gpu.example.com")
    assert (request.frame_encoding, request.observation_encoding) == (pb.ENCODING_RAW, pb.ENCODING_RAW)


@pytest.fixture(params=[("zstd", "zstandard"), ("jpeg", "PIL")], ids=lambda pair: pair[0])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An encoding whose library cannot be imported."""
    encoding, package = request.param
    monkeypatch.setitem(sys.modules, package, None)
    return str(encoding)


def test_without_the_library_a_client_names_the_extra(missing):
    with pytest.raises(ConfigError, match=rf"frame_encoding is '{missing}'.* client .*remote-gym\[{missing}\]"):
        choose_encodings(pb.OpenRequest(), ClientOptions(frame_encoding=missing), "localhost")


def test_without_the_library_a_server_names_the_extra(missing):
    with pytest.raises(ConfigError, match=rf"frame_encoding is '{missing}'.* server .*remote-gym\[{missing}\]"):
        Host(gym.make("CartPole-v1"), frame_encoding=pb.Encoding.Value(f"ENCODING_{missing.upper()}"), limits=LIMITS)


def test_without_the_library_what_comes_all_the_same_is_refused(missing):
    array = pb.Array(dtype=pb.UINT8, shape=SHADES.shape, data=GOOD)
    with pytest.raises(EncodingError, match="not asked for"):
        decode_frame(pb.Frame(**{missing: array}), LIMITS)


def test_without_zstandard_auto_is_raw_at_either_end(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    request = pb.OpenRequest()
    choose_encodings(request, ClientOptions(), "gpu.example.com")
    assert request.frame_encoding == request.observation_encoding == pb.ENCODING_RAW
    assert frame_compressor(pb.ENCODING_AUTO) is None
    assert observation_compressor(pb.ENCODING_AUTO) is None


def test_an_encoding_that_the_server_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="frame_encoding is number 99"):
        frame_compressor(99)
    with pytest.raises(ConfigError, match=f"observation_encoding is number {pb.ENCODING_JPEG}"):
        observation_compressor(pb.ENCODING_JPEG)
