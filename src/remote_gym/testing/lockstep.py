"""Whether two environments agree, step by step, in value and in kind."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from remote_gym.wire.values.foreign import array_of
from remote_gym.wire.values.named import remote_type
from remote_gym.wire.values.nearest import nearest
from remote_gym.wire.values.unencodable import type_name


def find_difference(expected: Any, found: Any, path: str = "value") -> str | None:
    """Where and how two values differ, in value or in kind; None if they do not.

    NaNs are equal where their bits are. Kinds have to be the same: ``1``, ``1.0``, ``True``, ``np.int64(1)`` and
    ``np.array(1)`` all differ.
    """
    if type(expected) is OrderedDict and type(found) is dict:  # gymnasium < 1.0 samples these, and dicts are packed
        expected = dict(expected)
    if (name := remote_type(found)) is not None and name == type_name(expected):
        return find_difference(_plain(expected), _plain(found), path)
    if type(found) is np.ndarray and not isinstance(expected, np.ndarray | np.generic):
        array = array_of(expected)  # another library's
        expected = expected if array is None else array
    if type(expected) is not type(found):
        return f"{path}: expected a {type(expected).__name__}, found a {type(found).__name__}: {expected!r}, {found!r}"
    if isinstance(expected, (np.ndarray, np.generic)):
        return _find_array_difference(expected, found, path)
    if isinstance(expected, Mapping):
        if list(expected) != list(found):
            return f"{path}: expected the keys {list(expected)}, found {list(found)}"
        parts = [(expected[key], found[key], f"{path}[{key!r}]") for key in expected]
    elif isinstance(expected, (tuple, list)):
        if len(expected) != len(found):
            return f"{path}: expected {len(expected)} items, found {len(found)}"
        parts = [(one, other, f"{path}[{n}]") for n, (one, other) in enumerate(zip(expected, found, strict=True))]
    elif isinstance(expected, deque):
        parts = [(expected.maxlen, found.maxlen, f"{path}.maxlen"), (list(expected), list(found), path)]
    elif isinstance(expected, float):
        same = np.float64(expected).tobytes() == np.float64(found).tobytes()
        return None if same else f"{path}: expected {expected!r}, found {found!r}"
    else:
        return None if expected == found else f"{path}: expected {expected!r}, found {found!r}"
    return next((difference for part in parts if (difference := find_difference(*part))), None)


def _plain(value: object) -> tuple[Any, ...]:
    """Form in which an instance of a class that one end does not have is compared."""
    found = nearest(value, 2**20)
    return found.value, found.fields, found.member


def _find_array_difference(expected: Any, found: Any, path: str) -> str | None:
    if expected.dtype != found.dtype or expected.shape != found.shape:
        kinds = f"{expected.dtype} of shape {expected.shape}", f"{found.dtype} of shape {found.shape}"
        return f"{path}: expected {kinds[0]}, found {kinds[1]}"
    if isinstance(expected, np.ma.MaskedArray):
        parts = [[np.asarray(each.data), np.asarray(each.mask)] for each in (expected, found)]
        return None if expected is found else find_difference(parts[0], parts[1], path)
    if expected.dtype.names is not None:
        columns = [[np.asarray(each[name]) for name in expected.dtype.names] for each in (expected, found)]
        return find_difference(columns[0], columns[1], path)
    if expected.dtype.char in "gG":  # whose padding is anything
        return None if repr(expected) == repr(found) else f"{path}: expected {expected!r}, found {found!r}"
    if expected.dtype == object:
        return find_difference(expected.tolist(), found.tolist(), path)
    if expected.tobytes() != found.tobytes():
        differing = np.flatnonzero(np.ravel(expected != found))
        return f"{path}: {differing.size} of {expected.size} elements differ in value (or NaNs, zeros in their bits)"
    return None


def play_in_lockstep(
    local: gym.Env[Any, Any], remote: gym.Env[Any, Any], *, steps: int, seed: int = 0, frames: bool = False
) -> None:
    """Step two environments with the same seeds and actions, and compare all that they return, value and kind.

    Args:
        local: The reference.
        remote: What should not differ from it.
        steps: How many to take; after the end of an episode both are reset with the next seed.
        seed: Of the first reset, and of the actions, which are sampled from the local environment's space.
        frames: Compare what `render` returns, too.

    Raises:
        AssertionError: At the first difference, saying at which step and where.
    """
    local.action_space.seed(seed)
    returned: tuple[Any, ...] = ()

    def compare(what: str, expected: Any, found: Any) -> None:
        difference = find_difference(expected, found, what)
        if difference is not None:
            raise AssertionError(difference)

    done = True
    for number in range(steps):
        if done:
            compare(f"step {number}: reset()", local.reset(seed=seed), remote.reset(seed=seed))
            seed += 1
        action = local.action_space.sample()
        returned = local.step(action)
        compare(f"step {number}: step({action!r})", returned, remote.step(action))
        if frames:
            compare(f"step {number}: render()", local.render(), remote.render())
        done = bool(returned[2] or returned[3])
