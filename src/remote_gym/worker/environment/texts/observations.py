"""Observations of text environments: the dicts that these return, as elements of one space."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remote_gym.errors import InvalidObservation
from remote_gym.logs import get_logger
from remote_gym.wire.spaces.image import ImageSpace
from remote_gym.wire.spaces.text import AnyText
from remote_gym.wire.values.unencodable import short_repr, type_name
from remote_gym.worker.environment.user_code import FromGuest

logger = get_logger(__name__)

TEXT = "obs_str"
MODALITIES = "multi_modal_input"
IMAGES = "<image>"


class InvalidTextObservation(InvalidObservation, FromGuest):
    """An observation that a text environment has returned, and that is none."""


def observation_space() -> spaces.Dict:
    """The space of all observations: a text, and any number of images of any size."""
    return spaces.Dict(
        {TEXT: AnyText(), MODALITIES: spaces.Dict({IMAGES: spaces.Sequence(ImageSpace())})},
    )


def observation_of(returned: Any, where: str) -> dict[str, Any]:
    """Turn what an environment returned into an element of that space: images as arrays, and none where it has none.

    Args:
        returned: A dict with ``obs_str``, and perhaps ``multi_modal_input``, whose ``<image>`` lists images of Pillow
            or arrays.
        where: By what it was returned, for errors.

    Raises:
        InvalidObservation: If it is no such dict, or has another modality.
    """
    if not isinstance(returned, Mapping):
        raise InvalidTextObservation(
            f"{where} returned the observation {short_repr(returned)}; return a dict with obs_str"
        )
    text, modalities = returned.get(TEXT, ""), returned.get(MODALITIES) or {}
    if not isinstance(text, str):
        raise InvalidTextObservation(f"{where} returned the obs_str {short_repr(text)}; return a text")
    if not isinstance(modalities, Mapping):
        raise InvalidTextObservation(f"{where} returned the multi_modal_input {short_repr(modalities)}; return a dict")
    others = [name for name, value in modalities.items() if name != IMAGES and value]
    if others:
        raise InvalidTextObservation(
            f"{where} returned {others!r:.200} in multi_modal_input; only '<image>' can travel"
        )
    if unknown := [name for name in returned if name not in (TEXT, MODALITIES)]:
        logger.warning("observations hold %r, which no client of these environments reads", unknown, repeats="")
    images = modalities.get(IMAGES) or ()
    if not isinstance(images, (list, tuple)):
        raise InvalidTextObservation(f"{where} returned the images {short_repr(images)}; return a list")
    return {TEXT: text, MODALITIES: {IMAGES: tuple(_image(image, where) for image in images)}}


def without_pillow(value: Any) -> Any:
    """A value, with arrays in place of Pillow's images in its dicts, lists and tuples."""
    if "PIL.Image" not in sys.modules:
        return value
    if _is_pillows(value):
        return _array_of(value)
    if type(value) is dict:
        return {key: without_pillow(member) for key, member in value.items()}
    return type(value)(map(without_pillow, value)) if type(value) in (list, tuple) else value


def _image(image: Any, where: str) -> NDArray[np.uint8]:
    array = _array_of(image) if _is_pillows(image) else image
    if not ImageSpace().contains(array):
        found = f"a {array.dtype} array of shape {array.shape}" if isinstance(array, np.ndarray) else type_name(image)
        raise InvalidTextObservation(
            f"{where} returned {found} as an image; return Pillow's images, or uint8 arrays of shape (height, width) "
            "or (height, width, channels)"
        )
    return array


def _is_pillows(value: Any) -> bool:
    # Without an import: an image of Pillow's is there only where it was imported.
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _array_of(image: Any) -> NDArray[np.uint8]:
    """Gray images stay gray, RGB ones RGB, RGBA ones RGBA; palettes and others become what they show."""
    if image.mode not in ("L", "RGB", "RGBA"):
        is_transparent = image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if is_transparent else "RGB")
    return np.array(image)
