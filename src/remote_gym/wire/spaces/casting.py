"""Whether an element fits a space, and what it is when converted to exactly that.

What counts is structure: keys, lengths, shapes, and kinds of numbers. Bounds do not: an action outside of them
travels as it is, and the environment answers as it would locally.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.errors import ConfigError
from remote_gym.wire.spaces.image import ImageSpace
from remote_gym.wire.values.unencodable import short_repr, type_name

OneOf: type[gym.Space[Any]] | None = getattr(spaces, "OneOf", None)
"""The space, which Gymnasium has had since 1.0."""


class Mismatch(Exception):
    """An element that does not fit.

    Attributes:
        expected: What the space asks for.
        found: What was there instead.
        path: Where, such as ``['pos'][1]``; empty for the element as a whole.
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found
        self.path = ""

    def under(self, key: object) -> Mismatch:
        """The same, seen from the container that holds the element under a key."""
        self.path = f"[{short_repr(key)}]{self.path}"
        return self

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}"


def is_textual(space: gym.Space[Any]) -> bool:
    """Whether a space of a class unknown to us holds texts, as MiniGrid's mission space does."""
    return getattr(space.dtype, "kind", None) == "U"


@functools.singledispatch
def fit(space: gym.Space[Any], element: Any) -> Any:
    """Convert an element to what the space itself would sample, as NumPy would under ``casting="same_kind"``.

    Python ints and bools of a Discrete space stay as they are, and so does every value, in bounds or not. An
    integer that its space's dtype cannot hold does not fit. An array of floats that are 0 or 1 becomes what a
    MultiBinary space holds.

    Raises:
        Mismatch: If structure, shape or kind are others.
        ConfigError: If the space is of an unknown class.
    """
    if is_textual(space):
        return _fit_text(space, element)
    raise ConfigError(f"a space of type {type_name(space)} cannot travel; use one of Gymnasium's own")


@fit.register(spaces.Box)
@fit.register(spaces.MultiDiscrete)
def _fit_box(space: spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary, element: Any) -> Any:
    array = _fit_array(element, space.dtype, space.shape)
    # Where the shape is (), a NumPy scalar serves as well: Gymnasium itself samples one from an integer box.
    return array[()] if isinstance(element, np.generic) else array


@fit.register(spaces.MultiBinary)
def _fit_multi_binary(space: spaces.MultiBinary, element: Any) -> Any:
    # Floats that are 0 or 1 are elements for Gymnasium, and what a policy of stable-baselines3 gives for such a space.
    if isinstance(element, np.ndarray) and element.dtype.kind == "f" and ((element == 0) | (element == 1)).all():
        element = element.astype(space.dtype)
    return _fit_box(space, element)


@fit.register(spaces.Discrete)
def _fit_discrete(space: spaces.Discrete, element: Any) -> Any:
    if isinstance(element, int):
        return element if type(element) in (bool, int) else int(element)
    if isinstance(element, np.ndarray | np.generic) and element.dtype.kind in "biu" and element.shape == ():
        array = _cast(np.asarray(element), space.dtype)
        return array if isinstance(element, np.ndarray) else array[()]
    raise Mismatch(f"an integer, such as numpy.{space.dtype}", describe(element))


@fit.register(spaces.Text)
def _fit_text(_space: gym.Space[Any], element: Any) -> str:
    if isinstance(element, str):
        return element
    raise Mismatch("a str", describe(element))


@fit.register(spaces.Dict)
def _fit_dict(space: spaces.Dict, element: Any) -> dict[Any, Any]:
    members = _members_of(space, element)
    return {key: _fit_member(member, element[key], key) for key, member in members.items()}


@fit.register(spaces.Tuple)
def _fit_tuple(space: spaces.Tuple[Any], element: Any) -> tuple[Any, ...]:
    _check_length(space, element)
    pairs = enumerate(zip(space.spaces, element, strict=True))
    return tuple(_fit_member(member, item, index) for index, (member, item) in pairs)


@fit.register(spaces.Sequence)
def _fit_sequence(space: spaces.Sequence, element: Any) -> Any:
    if space.stack:
        return _fit_stacked(space.feature_space, element)
    return _fit_each(space.feature_space, element)


@fit.register(spaces.Graph)
def _fit_graph(space: spaces.Graph, element: Any) -> GraphInstance:
    if not isinstance(element, GraphInstance):
        raise Mismatch("a GraphInstance", describe(element))
    nodes = _fit_member(space.node_space, element.nodes, "nodes", stacked=True)
    edges, links = element.edges, element.edge_links
    if edges is not None:
        if space.edge_space is None:
            raise Mismatch("None, since the space has no edge space", describe(edges)).under("edges")
        edges = _fit_member(space.edge_space, edges, "edges", stacked=True)
    if links is not None and not (isinstance(links, np.ndarray) and links.dtype.kind in "iu" and _is_pairs(links)):
        raise Mismatch("an integer array of shape (number of edges, 2)", describe(links)).under("edge_links")
    return GraphInstance(nodes, edges, links)


@fit.register(ImageSpace)
def _fit_image(space: ImageSpace, element: Any) -> NDArray[np.uint8]:
    if space.contains(element):
        return np.asarray(element)
    raise Mismatch(
        "an image: a uint8 array of shape (height, width), or with 1, 3 or 4 channels behind", describe(element)
    )


def _fit_one_of(space: Any, element: Any) -> tuple[Any, Any]:
    if not isinstance(element, tuple | list) or len(element) != 2:
        raise Mismatch("a tuple of an index and an element", describe(element))
    index, choice = element
    count = len(space.spaces)
    if not isinstance(index, int | np.integer) or not 0 <= index < count:
        raise Mismatch(f"an index from 0 to {count - 1}", describe(index)).under(0)
    return index if type(index) is int else np.int64(index), _fit_member(space.spaces[index], choice, 1)


if OneOf is not None:
    fit.register(OneOf, _fit_one_of)


def describe(element: Any) -> str:
    """Description of an element for an error message."""
    if isinstance(element, np.ndarray):
        return f"{element.dtype} array of shape {element.shape}"
    if isinstance(element, list | tuple) and not isinstance(element, GraphInstance):
        return f"{type(element).__name__} of length {len(element)}"
    return f"{type_name(element)} {short_repr(element)}"


def _fit_member(space: gym.Space[Any], element: Any, key: object, *, stacked: bool = False) -> Any:
    try:
        return _fit_stacked(space, element) if stacked else fit(space, element)
    except Mismatch as mismatch:
        raise mismatch.under(key) from None


def _fit_each(space: gym.Space[Any], element: Any) -> tuple[Any, ...]:
    if not isinstance(element, tuple | list):
        raise Mismatch("a tuple", describe(element))
    return tuple(_fit_member(space, item, index) for index, item in enumerate(element))


@functools.singledispatch
def _fit_stacked(space: gym.Space[Any], element: Any) -> Any:
    """Any number of elements in one, as Gymnasium's ``concatenate`` joins them."""
    return _fit_each(space, element)


@_fit_stacked.register(spaces.Box)
@_fit_stacked.register(spaces.Discrete)
@_fit_stacked.register(spaces.MultiDiscrete)
@_fit_stacked.register(spaces.MultiBinary)
def _fit_stacked_box(space: Any, element: Any) -> NDArray[Any]:
    if isinstance(element, list | tuple) or (isinstance(element, np.ndarray) and element.ndim):
        return _fit_array(element, space.dtype, (len(element), *space.shape))
    raise Mismatch(f"{space.dtype} array of shape {('any', *space.shape)}", describe(element))


@_fit_stacked.register(spaces.Dict)
def _fit_stacked_dict(space: spaces.Dict, element: Any) -> dict[Any, Any]:
    members = _members_of(space, element)
    return {key: _fit_member(member, element[key], key, stacked=True) for key, member in members.items()}


@_fit_stacked.register(spaces.Tuple)
def _fit_stacked_tuple(space: spaces.Tuple[Any], element: Any) -> tuple[Any, ...]:
    _check_length(space, element)
    pairs = enumerate(zip(space.spaces, element, strict=True))
    return tuple(_fit_member(member, item, index, stacked=True) for index, (member, item) in pairs)


def _members_of(space: spaces.Dict, element: Any) -> dict[Any, gym.Space[Any]]:
    members: dict[Any, gym.Space[Any]] = space.spaces
    if not isinstance(element, Mapping):
        raise Mismatch(f"a dict with the keys {short_repr(list(members))}", describe(element))
    if element.keys() != members.keys():
        raise Mismatch(f"the keys {short_repr(list(members))}", f"the keys {short_repr(list(element))}")
    return members


def _check_length(space: spaces.Tuple[Any], element: Any) -> None:
    sized = isinstance(element, tuple | list) or (isinstance(element, np.ndarray) and element.ndim)
    if not sized or len(element) != len(space.spaces):
        raise Mismatch(f"tuple of length {len(space.spaces)}", describe(element))


def _fit_array(element: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        # Looked through before NumPy sees it: of a long text in a long list it would make an array of such texts.
        _check_nested(element, shape)
    except Mismatch as mismatch:
        if not mismatch.path:
            mismatch.expected = f"{dtype} array of shape {shape}"
        raise
    if 0 in shape and not isinstance(element, np.ndarray):
        return np.empty(shape, dtype)  # an empty list has no dtype, nor further dimensions
    return _cast(np.asarray(element), dtype)


def _check_nested(element: Any, shape: tuple[int, ...]) -> None:
    if isinstance(element, np.ndarray):
        if element.shape != shape:
            raise Mismatch(f"an array of shape {shape}", describe(element))
    elif isinstance(element, list | tuple):
        if not shape:
            raise Mismatch("a number", describe(element))
        if len(element) != shape[0]:
            raise Mismatch(f"list of length {shape[0]}", describe(element))
        for index, item in enumerate(element):
            try:
                _check_nested(item, shape[1:])
            except Mismatch as mismatch:
                raise mismatch.under(index) from None
    elif shape or not isinstance(element, bool | int | float | np.number | np.bool_):
        raise Mismatch(f"list of length {shape[0]}" if shape else "a number", describe(element))


def _cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if array.dtype == dtype:
        return array
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        # "same_kind" lets int64 overflow in int32, yet never become uint8; what matters is whether the numbers fit.
        info = np.iinfo(dtype)
        for bound in (array.min(initial=0), array.max(initial=0)):
            if not info.min <= int(bound) <= info.max:
                raise Mismatch(f"integers that {dtype} can hold", str(bound))
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise Mismatch(f"{dtype} array of shape {array.shape}", describe(array))
    with np.errstate(over="ignore", invalid="ignore"):  # float64 to float32 may give inf, as it would locally
        return array.astype(dtype)


def _is_pairs(links: NDArray[Any]) -> bool:
    return links.ndim == 2 and links.shape[1] == 2
