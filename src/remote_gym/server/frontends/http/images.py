"""Images within observations, and how they are sent: which spaces hold nothing else, and PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remote_gym.errors import ConfigError
from remote_gym.wire.spaces.image import CHANNELS, ImageSpace


def is_image(space: gym.Space[Any]) -> bool:
    """Whether elements of a space can be shown: bytes of shape (height, width), or with 1, 3 or 4 channels."""
    if isinstance(space, ImageSpace):
        return True
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    return (len(shape) == 2 or (len(shape) == 3 and shape[2] in CHANNELS)) and min(shape) > 0


def holds_images(space: gym.Space[Any]) -> bool:
    """Whether elements of a space are images, or hold nothing but images."""
    if isinstance(space, spaces.Sequence):
        return holds_images(space.feature_space)
    members = _members(space)
    return all(map(holds_images, members)) if members else is_image(space)


def images_in(space: gym.Space[Any], value: Any) -> Iterator[NDArray[np.uint8]]:
    """The images in an element of a space that holds nothing else, in order."""
    if isinstance(space, spaces.Sequence):
        for each in value:
            yield from images_in(space.feature_space, each)
    elif isinstance(space, spaces.Dict):
        for name, member in space.spaces.items():
            yield from images_in(member, value[name])
    elif isinstance(space, spaces.Tuple):
        for member, each in zip(space.spaces, value, strict=True):
            yield from images_in(member, each)
    else:
        yield value


def png_of(image: NDArray[np.uint8]) -> bytes:
    """Encode an image as a PNG, as fast as that goes.

    Args:
        image: As `is_image` tells.
    """
    import_pillow()
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(
        data, "PNG", compress_level=1
    )
    return data.getvalue()


def import_pillow() -> None:
    """See that Pillow is there.

    Raises:
        ConfigError: If it is not.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigError("images as PNG need Pillow: pip install 'remote-gym[http,jpeg]'") from error


def _members(space: gym.Space[Any]) -> list[gym.Space[Any]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.values())
    return list(space.spaces) if isinstance(space, spaces.Tuple) else []
