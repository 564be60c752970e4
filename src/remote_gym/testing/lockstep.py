"""Whether two environments agree, step by step, in value and in kind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np


def find_difference(expected: Any, found: Any, path: str = "value") -> str | None:
    """Where and how two values differ, in value or in kind; None if they do not.

    NaNs are equal where their bits are. Kinds have to be the same: ``1``, ``1.0``, ``True``, ``np.int64(1)`` and
    ``np.array(1)`` all differ.
    """
    if type(expected) is OrderedDict:  # which travels as a dict, and which gymnasium < 1.0 samples
        expected = dict(expected)
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
    elif isinstance(expected, float):
        same = np.float64(expected).tobytes() == np.float64(found).tobytes()
        return None if same else f"{path}: expected {expected!r}, found {found!r}"
    else:
        return None if expected == found else f"{path}: expected {expected!r}, found {found!r}"
    return next((difference for part in parts if (difference := find_difference(*part))), None)


def _find_array_difference(expected: Any, found: Any, path: str) -> str | None:
    if expected.dtype != found.dtype or expected.shape != found.shape:
        kinds = f"{expected.dtype} of shape {expected.shape}", f"{found.dtype} of shape {found.shape}"
        return f"{path}: expected {kinds[0]}, found {kinds[1]}"
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
