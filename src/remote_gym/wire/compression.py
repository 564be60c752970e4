"""Frames and observations in fewer bytes, for links that are slower than compressing them.

Each way needs a library of its own, an extra of this package: ``zstd`` needs zstandard, which knows the size of what
comes out beforehand and so takes one allocation and one pass, and has wheels for every Python from 3.10 on; ``jpeg``
needs Pillow. They are imported where a session uses them, and nowhere else.
"""

from __future__ import annotations

import importlib.util
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from remote_gym.errors import ConfigError, EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb

SMALLEST = 1024
"""Bytes below which nothing is compressed: they fit one packet as they are."""

WORTHWHILE = 0.8
"""The largest share of the bytes that may be left for ``"auto"`` to go on compressing."""

PAUSE = 500
"""How many frames or observations ``"auto"`` leaves as they are before it tries again."""

JPEG_QUALITY = 90
JPEG_LONGEST_SIDE = 65500  # libjpeg's

PACKAGES = {"zstd": "zstandard", "jpeg": "PIL"}
"""Package that each encoding imports."""


def is_installed(encoding: str) -> bool:
    """Whether ``"zstd"`` or ``"jpeg"`` can be used here; imports nothing."""
    return importlib.util.find_spec(PACKAGES[encoding]) is not None


def require(encoding: str, option: str, end: Literal["client", "server"]) -> None:
    """See to it that an encoding can be used.

    Args:
        encoding: One of `PACKAGES`.
        option: Which asked for it.
        end: Where its library has to be.

    Raises:
        ConfigError: If its library is not installed.
    """
    if not is_installed(encoding):
        raise ConfigError(
            f"{option} is {encoding!r}, for which the {end} lacks a library; "
            f"pip install 'remote-gym[{encoding}]' there, or use 'raw'",
            field=option,
        )


class ZstdCompressor:
    """Compresses without loss. Not for several threads at once.

    Args:
        probes: Compress only as long as it saves enough: pause for `PAUSE` arrays after one that does not.
    """

    field: Literal["zstd"] = "zstd"

    def __init__(self, *, probes: bool) -> None:
        import zstandard

        self._probes = probes
        self._pause = 0
        # Level 1: what higher levels save more on frames, they take many times as long for.
        self._zstd = zstandard.ZstdCompressor(level=1)

    def compress(self, data: bytes) -> bytes | None:
        """The compressed form of an array's elements; None where they had better travel as they are."""
        if len(data) < SMALLEST:
            return None
        if self._pause:
            self._pause -= 1
            return None
        compressed: bytes = self._zstd.compress(data)
        if self._probes and len(compressed) > WORTHWHILE * len(data):
            self._pause = PAUSE
            return None
        return compressed if len(compressed) < len(data) else None

    def compress_image(self, image: NDArray[Any], data: bytes) -> bytes | None:
        """As `compress`, of an image's elements, `data`."""
        return self.compress(data)


class JpegCompressor:
    """Compresses images of uint8, shape ``(height, width, 3)``, with some loss."""

    field: Literal["jpeg"] = "jpeg"

    def compress_image(self, image: NDArray[Any], data: bytes) -> bytes | None:
        """The image as a JPEG, in C order as `data`; None where it is not of that kind."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return None
        height, width, _ = image.shape
        if not (0 < height <= JPEG_LONGEST_SIDE and 0 < width <= JPEG_LONGEST_SIDE):
            return None
        from PIL import Image

        file = io.BytesIO()
        Image.frombytes("RGB", (width, height), data).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue()


FrameCompressor = ZstdCompressor | JpegCompressor


def frame_compressor(encoding: int) -> FrameCompressor | None:
    """Compressor of frames; None for none.

    Args:
        encoding: A `pb.Encoding`, as a client asked for it.

    Raises:
        ConfigError: If it is unknown, or its library is not installed here.
    """
    if encoding == pb.ENCODING_JPEG:
        require("jpeg", "frame_encoding", "server")
        return JpegCompressor()
    return _zstd_compressor(encoding, "frame_encoding")


def observation_compressor(encoding: int) -> ZstdCompressor | None:
    """Compressor of packed observations; None for none.

    Args:
        encoding: A `pb.Encoding`, as a client asked for it.

    Raises:
        ConfigError: If it is unknown or has losses, or its library is not installed here.
    """
    return _zstd_compressor(encoding, "observation_encoding")


def _zstd_compressor(encoding: int, option: str) -> ZstdCompressor | None:
    if encoding == pb.ENCODING_RAW or (encoding == pb.ENCODING_AUTO and not is_installed("zstd")):
        return None
    if encoding not in (pb.ENCODING_AUTO, pb.ENCODING_ZSTD):
        raise ConfigError(
            f"{option} is number {encoding}, which this server does not know; use 'auto', 'raw' or 'zstd'", field=option
        )
    require("zstd", option, "server")
    return ZstdCompressor(probes=encoding == pb.ENCODING_AUTO)


def decompress_zstd(data: bytes, size: int) -> bytes:
    """Undo `ZstdCompressor`.

    Args:
        data: One zstd frame that tells its decompressed size.
        size: What that has to be, in bytes. No more is ever taken up.

    Raises:
        EncodingError: If it is none or another, or zstandard is not installed here.
    """
    try:
        import zstandard
    except ImportError as error:
        raise EncodingError("zstd data came, which was not asked for, and zstandard is not installed") from error
    try:
        # Before, not after: what the frame tells is what would be allocated.
        told = zstandard.get_frame_parameters(data).content_size
        if told != size:
            raise EncodingError(f"zstd data tells of {told} bytes; they have to be {size}")
        # One for each call takes 10 µs, and may be used in any thread.
        elements: bytes = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise EncodingError(f"zstd data cannot be read: {error}") from error
    if len(elements) != size:  # as of a frame that is to be skipped, by some versions of zstandard
        raise EncodingError(f"zstd data cannot be read: they tell of {size} bytes and hold {len(elements)}")
    return elements


def decompress_jpeg(data: bytes, shape: tuple[int, ...]) -> bytes:
    """Undo `JpegCompressor`.

    Args:
        data: A JPEG.
        shape: What has to come out, ``(height, width, 3)``. Nothing is decompressed if the JPEG tells of another.

    Returns:
        The elements, uint8 in C order.

    Raises:
        EncodingError: If it is none or of another shape, or Pillow is not installed here.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise EncodingError("a JPEG came, which was not asked for, and Pillow is not installed") from error
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            told = (image.height, image.width, len(image.getbands()))
            if told != shape or image.mode != "RGB":
                raise EncodingError(f"a JPEG of shape {told} and mode {image.mode} came; it has to be {shape} and RGB")
            elements: bytes = image.tobytes()
            return elements
    except EncodingError:
        raise
    # Pillow's readers meet bytes that they do not expect with whatever exception comes up.
    except Exception as error:
        raise EncodingError(f"a JPEG cannot be read: {error}") from error
