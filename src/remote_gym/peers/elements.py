"""Elements of spaces out of what JSON and msgpack hold, and as these hold them."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.errors import ConfigError, EncodingError, InvalidAction
from remote_gym.logs.escaping import printable, shortened
from remote_gym.wire.spaces.casting import Mismatch, OneOf, describe, fit

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names for images, by their channels."""


def shown(text: object) -> str:
    """A text of the other end's, as an error may hold it: of bounded length, and printable."""
    return printable(shortened(str(text)))


def element_of(space: gym.Space[Any], value: Any, what: str) -> Any:
    """Turn what the other end sent into an element of a space, of the space's own dtypes.

    Nested lists become arrays, the texts ``NaN``, ``Infinity`` and ``-Infinity`` floats, and base64 of an image, PNG
    or JPEG, the array of its pixels where the space is one of images.

    Args:
        space: Of the element.
        value: As `json.loads` or `msgpack.unpackb` returns it.
        what: Name of it, for errors.

    Raises:
        EncodingError: If it does not fit: where, what was expected, and what was found.
        ConfigError: If it is an image and Pillow is not installed, or the space is of an unknown class.
    """
    try:
        return _read(space, value)
    except Mismatch as mismatch:
        raise EncodingError(f"the server's {what}{shown(mismatch)}") from None


def plain(space: gym.Space[Any], action: Any) -> Any:
    """An action as JSON and msgpack hold it: of lists, dicts, texts and Python's own numbers.

    Raises:
        InvalidAction: If it does not fit the space.
    """
    try:
        return plain_value(fit(space, action))
    except Mismatch as mismatch:
        raise InvalidAction(f"action{mismatch}") from None


def plain_value(value: Any) -> Any:
    """A value without anything of NumPy's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, GraphInstance):
        return plain_value(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain_value(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(member) for member in value]
    return value


def number_of(value: Any, what: str) -> float:
    """A reward.

    Raises:
        EncodingError: If it is no number.
    """
    value = _WORDS.get(value, value) if isinstance(value, str) else value
    if isinstance(value, (bool, int, float)):
        try:
            return float(value)
        except OverflowError:
            pass
    raise EncodingError(f"the server's {what}: expected a number, found {shown(describe(value))}")


def flag_of(value: Any, what: str) -> bool:
    """Whether an episode has ended.

    Raises:
        EncodingError: If it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise EncodingError(f"the server's {what}: expected true or false, found {shown(describe(value))}")
    return value


def is_image(space: gym.Space[Any]) -> bool:
    """Whether elements of a space can be images: bytes of shape (height, width), or with 1, 3 or 4 channels."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    return min(space.shape) > 0 and (len(space.shape) == 2 or space.shape[2] in _MODES)


@functools.singledispatch
def _read(space: gym.Space[Any], value: Any) -> Any:
    return fit(space, value)


@_read.register(spaces.Box)
@_read.register(spaces.MultiDiscrete)
@_read.register(spaces.MultiBinary)
def _read_array(space: gym.Space[Any], value: Any) -> Any:
    if isinstance(value, str) and is_image(space):
        return _read_image(space.shape or (), value)
    try:
        return fit(space, value)
    except Mismatch:
        if np.dtype(space.dtype).kind != "f":
            raise
        return fit(space, _numbers(value, len(space.shape or ())))
    except OverflowError:  # an integer of hundreds of digits among floats
        raise Mismatch(f"numbers that {space.dtype} can hold", "a larger one") from None


@_read.register(spaces.Discrete)
def _read_integer(space: spaces.Discrete, value: Any) -> Any:
    if not isinstance(value, int):
        raise Mismatch(f"an integer, such as numpy.{space.dtype}", describe(value))
    try:
        return space.dtype.type(value)
    except OverflowError:
        raise Mismatch(f"an integer that {space.dtype} can hold", "a larger one") from None


@_read.register(spaces.Dict)
def _read_dict(space: spaces.Dict, value: Any) -> dict[Any, Any]:
    names = {str(key): key for key in space.spaces}  # there, keys are texts
    if not isinstance(value, dict) or {str(key) for key in value} != names.keys():
        found = f"the keys {list(value)!r:.200}" if isinstance(value, dict) else describe(value)
        raise Mismatch(f"the keys {list(names)!r:.200}", found)
    return {names[str(key)]: _read_member(space.spaces[names[str(key)]], each, key) for key, each in value.items()}


@_read.register(spaces.Tuple)
def _read_tuple(space: Any, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != len(space.spaces):
        raise Mismatch(f"a list of length {len(space.spaces)}", describe(value))
    pairs = zip(space.spaces, value, strict=True)
    return tuple(_read_member(member, each, index) for index, (member, each) in enumerate(pairs))


@_read.register(spaces.Sequence)
def _read_sequence(space: spaces.Sequence, value: Any) -> Any:
    if space.stack or not isinstance(value, (list, tuple)):
        return fit(space, value)
    return tuple(_read_member(space.feature_space, each, index) for index, each in enumerate(value))


@_read.register(spaces.Graph)
def _read_graph(space: spaces.Graph, value: Any) -> Any:
    names = ("nodes", "edges", "edge_links")
    if not isinstance(value, dict) or "nodes" not in value or not value.keys() <= set(names):
        raise Mismatch(f"an object of {', '.join(names)}", describe(value))
    nodes, edges, links = value["nodes"], value.get("edges"), value.get("edge_links")
    if isinstance(links, list):
        length = len(links)
        try:
            links = (
                fit(spaces.MultiDiscrete(np.full((length, 2), 2**31 - 1)), links) if length else np.empty((0, 2), int)
            )
        except Mismatch as mismatch:
            raise mismatch.under("edge_links") from None
        links = links.astype(np.int32)
    return fit(space, GraphInstance(nodes, edges, links))


if OneOf is not None:

    @_read.register(OneOf)
    def _read_one_of(space: Any, value: Any) -> tuple[Any, Any]:
        index, element = fit(space, value)
        return np.int64(index), _read_member(space.spaces[index], value[1], 1) if element is not None else element


def _read_member(space: gym.Space[Any], value: Any, key: object) -> Any:
    try:
        return _read(space, value)
    except Mismatch as mismatch:
        raise mismatch.under(key) from None


def _numbers(value: Any, depth: int) -> Any:
    """The same lists with the texts that stand for floats replaced, no deeper than an array of that many axes."""
    if isinstance(value, (list, tuple)) and depth:
        return [_numbers(each, depth - 1) for each in value]
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _read_image(shape: tuple[int, ...], text: str) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("images as base64 need Pillow: pip install 'remote-gym[http,jpeg]'") from error
    expected = f"base64 of an image of {shape[1]} x {shape[0]} pixels"
    mode = _MODES[shape[2] if len(shape) == 3 else 1]
    head, _, tail = text.partition(",")
    try:
        data = base64.b64decode(tail if head.startswith("data:image/") else text, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            # By its header, before a pixel is read: a small file can be an image of any size.
            if image.size != (shape[1], shape[0]):
                raise Mismatch(expected, f"one of {image.size[0]} x {image.size[1]}")
            if image.mode not in (mode, "P"):
                raise Mismatch(f"{expected} in {mode}", f"one in {image.mode}")
            return np.array(image.convert(mode), np.uint8).reshape(shape)
    except Mismatch:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds for bytes that are no image
        raise Mismatch(expected, f"what is none ({type(error).__name__})") from None
