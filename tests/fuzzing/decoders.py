"""Fuzz targets: each decoder of ``remote_gym.wire``, and the readers of configuration and certificate files.

A target takes any bytes. What it documents to raise it may raise; anything else that comes out is a finding.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from remote_gym.certs.cfssl import read_profile, read_request
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, InvalidAction, NotPermitted
from remote_gym.tls.facts import decode_certificate, read_certificate
from remote_gym.tls.peer import read_peer_certificate
from remote_gym.tls.pem import check_authority, check_pair
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire import splice as large
from remote_gym.wire.bounds import check_items
from remote_gym.wire.compression import decompress_jpeg, decompress_zstd
from remote_gym.wire.errors import decode_error, encode_error
from remote_gym.wire.frames import decode_frame, encode_frame
from remote_gym.wire.infos import add_info, join_infos
from remote_gym.wire.parse import parse
from remote_gym.wire.parts import Joining, announced, cut, is_part
from remote_gym.wire.spaces.batches import Part, compile_batch
from remote_gym.wire.spaces.elements import decode_action, decode_observation, encode_observation
from remote_gym.wire.spaces.encoding import decode_space, encode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import decode_array, decode_value, encode_value
from wire.examples import SPACES, same

with contextlib.suppress(ImportError):  # what is loaded once is not the first input's cost
    import zstandard  # noqa: F401
    from PIL import Image

    Image.preinit()

SMALL = Limits(message_bytes=2**20, items=2**12, array_bytes=2**20, text_length=2**12)
LAYOUTS = [compile_layout(space) for space in SPACES.values()]
_SINGLES: list[Any] = [
    spaces.Box(-1, 1, (2,)),
    spaces.Discrete(5),
    spaces.Dict({"a": spaces.MultiBinary(3), "b": spaces.Box(0, 1, (), bool)}),
    spaces.Tuple([spaces.Discrete(3), spaces.MultiDiscrete([3, 4])]),
    spaces.Text(4),
]
BATCHES = [compile_batch(single, batch_space(single, 4)) for single in _SINGLES]
FOLDER = Path(tempfile.mkdtemp(prefix="remote_gym-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def fuzz_value(data: bytes) -> None:
    """Read a value; write what was read, and read the same again."""
    with contextlib.suppress(EncodingError):
        value = decode_value(parse(pb.Value, data), SMALL)
        again = pb.Value()
        with contextlib.suppress(EncodingError):  # a text of replaced characters, say, may have become too long
            encode_value(value, again, strict=True, limits=SMALL)
            assert same(decode_value(again, SMALL), value), value


def fuzz_array(data: bytes) -> None:
    """Read an array, and the same as a scalar."""
    with contextlib.suppress(EncodingError):
        message = parse(pb.Array, data)
        with contextlib.suppress(EncodingError):
            decode_array(message, SMALL)
        decode_value(pb.Value(scalar=message), SMALL)


def fuzz_space(data: bytes) -> None:
    """Read a space; its layout compiles, and written again it is the same space."""
    with contextlib.suppress(EncodingError):
        space = decode_space(parse(pb.Space, data), SMALL)
        compile_layout(space)
        message = encode_space(space, Limits())
        assert encode_space(decode_space(message, Limits()), Limits()) == message, space


def fuzz_observation(data: bytes) -> None:
    """Read a transition's observation, of a space that the first byte chooses, and write it again."""
    layout = LAYOUTS[data[0] % len(LAYOUTS)] if data else LAYOUTS[0]
    with contextlib.suppress(EncodingError):
        message = parse(pb.Transition, data[1:])
        observation = decode_observation(layout, message, SMALL)
        encode_observation(layout, observation, pb.Transition(), SMALL)


def fuzz_action(data: bytes) -> None:
    """Read an action, of a space that the first byte chooses."""
    layout = LAYOUTS[data[0] % len(LAYOUTS)] if data else LAYOUTS[0]
    with contextlib.suppress(EncodingError, InvalidAction):
        decode_action(layout, parse(pb.StepRequest, data[1:]), SMALL)


def fuzz_frame(data: bytes) -> None:
    """Read a frame, and write what was read."""
    with contextlib.suppress(EncodingError):
        frame = decode_frame(parse(pb.Frame, data), SMALL)
        encode_frame(frame, pb.Frame(), SMALL, None)


def fuzz_compressed(data: bytes) -> None:
    """Decompress, by zstd to the size that two bytes tell, and as a JPEG to the shape that three tell."""
    if len(data) < 3:
        return
    with contextlib.suppress(EncodingError):
        assert len(decompress_zstd(data[2:], size := int.from_bytes(data[:2], "big"))) == size
    with contextlib.suppress(EncodingError):
        shape = (data[0], data[1], 3)
        assert len(decompress_jpeg(data[2:], shape)) == data[0] * data[1] * 3


def fuzz_error(data: bytes) -> None:
    """Read an error, and write it again: no text of a peer's may break who reports it."""
    with contextlib.suppress(EncodingError):
        error = decode_error(parse(pb.ErrorDetail, data))
        str(error)
        encode_error(error, limits=SMALL)


def fuzz_bounds(data: bytes) -> None:
    """Count what a message holds, however few values are allowed; the first byte chooses the kind of message."""
    kinds = (pb.Value, pb.Space, pb.Request, pb.Response, pb.OpenResponse, worker_pb2.Opening)
    for items in (1, 100, 10_000):
        with contextlib.suppress(EncodingError):
            check_items(kinds[data[0] % len(kinds)] if data else pb.Value, data[1:], Limits(items=items))


def fuzz_parts(data: bytes) -> None:
    """Join a request that comes in messages, each after two bytes of length: only what was announced comes out."""
    messages = []
    while data:
        size = int.from_bytes(data[:2], "big")
        messages.append(data[2 : 2 + size])
        data = data[2 + size :]
    with contextlib.suppress(EncodingError):
        if not messages or not is_part(messages[0]) or announced(messages[0]) > SMALL.message_bytes:
            return
        joining = Joining(announced(messages[0]))
        for message in messages:
            joining.add(message)
            if joining.request is not None:
                assert len(joining.request) == announced(messages[0])
                again = [bytes(part) for part in cut(bytes(joining.request), 40)]
                assert is_part(again[0]) or again == [bytes(joining.request)]
                return


def fuzz_peer(data: bytes) -> None:
    """Read whose a client's certificate is."""
    with contextlib.suppress(NotPermitted):
        for kind, name in read_peer_certificate(data).names:
            assert kind in ("URI", "DNS", "email", "CN")
            assert isinstance(name, str)


def fuzz_large(data: bytes) -> None:
    """Take a response apart as `parse_response` does for large ones: protobuf itself has to understand the same."""
    large.LARGE, was = 8, large.LARGE
    try:
        try:
            response, packed = large.parse_response(data)
        except EncodingError:
            return
    finally:
        large.LARGE = was
    if packed is not None:
        name = response.WhichOneof("result")
        getattr(response, name).packed = bytes(packed)
    assert response == parse(pb.Response, data), (response, data)


def fuzz_batch(data: bytes) -> None:
    """Join two slices' observations of a batched space that the first byte chooses."""
    if len(data) < 2:
        return
    batch = BATCHES[data[0] % len(BATCHES)]
    middle = 2 + data[1]
    with contextlib.suppress(EncodingError):
        parts = [Part(2, parse(pb.Transition, part)) for part in (data[2:middle], data[middle:])]
        batch.join(parts, SMALL)


def fuzz_infos(data: bytes) -> None:
    """Merge the infos of environments, and join those of slices."""
    if not data:
        return
    middle = 1 + data[0]
    with contextlib.suppress(EncodingError, ValueError):
        one, other = (decode_value(parse(pb.Value, part), SMALL) for part in (data[1:middle], data[middle:]))
        if isinstance(one, dict) and isinstance(other, dict):
            with contextlib.suppress(EncodingError):
                add_info(add_info({}, one, 0, 2), other, 1, 2)
            join_infos([2, 2], [one, other])


def fuzz_cfssl(data: bytes) -> None:
    """Read a certificate request, and a signing configuration with its profile."""
    path = FOLDER / "config.json"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        read_request(path)
    for profile in (None, "server"):
        with contextlib.suppress(ConfigError):
            read_profile(path, profile)


def fuzz_pem(data: bytes) -> None:
    """Check a PEM file as certificate, key and authority, and tell what is in it."""
    path = FOLDER / "some.pem"
    path.write_bytes(data)
    for role in ("server", "client"):
        with contextlib.suppress(ConfigError):
            check_pair(path, path, role, check_time=True)  # type: ignore[arg-type]
    with contextlib.suppress(ConfigError):
        check_authority(path)
    with contextlib.suppress(ConfigError):
        str(read_certificate(path))


def fuzz_der(data: bytes) -> None:
    """Tell what is in a certificate that a server showed."""
    with contextlib.suppress(ConfigError, ValueError):
        str(decode_certificate(data))
