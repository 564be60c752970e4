"""Infos of several vector environments, joined into those of one as Gymnasium's ``VectorEnv._add_info`` builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote_gym.errors import EncodingError

Infos = dict[Any, Any]


def join_infos(sizes: Sequence[int], infos: Sequence[Infos]) -> Infos:
    """The infos of all environments, of those of their slices.

    A key's values are an array of a row for each environment, and ``_key`` is the mask of those that have it; a dict
    holds such arrays in turn. The first slice that has a key decides the array's dtype, as the first environment does
    in Gymnasium. A key that came without a mask gets one only if some slices lack it.

    Args:
        sizes: How many environments each slice has.
        infos: What each slice's vector environment returned.

    Raises:
        EncodingError: If slices disagree whether a value is a dict.
        ValueError: If rows of one key do not have the same shape.
    """
    if len(infos) == 1:
        return infos[0]
    stops = np.cumsum(sizes).tolist()
    parts = [(slice(stop - size, stop), info) for size, stop, info in zip(sizes, stops, infos, strict=True) if info]
    return _join(parts, stops[-1])


def _join(parts: list[tuple[slice, Infos]], total: int) -> Infos:
    joined: Infos = {}
    for _, info in parts:
        masks = {f"_{key}" for key in info}
        for key in info:
            if key in joined or key in masks:
                continue
            having = [(rows, other) for rows, other in parts if key in other]
            joined[key] = _column(key, having, total)
            if sum(rows.stop - rows.start for rows, _ in having) < total or any(
                f"_{key}" in other for _, other in having
            ):
                joined[f"_{key}"] = mask = np.zeros(total, np.bool_)
                for rows, other in having:
                    mask[rows] = other.get(f"_{key}", True)
    return joined


def _column(key: Any, having: list[tuple[slice, Infos]], total: int) -> Infos | NDArray[Any]:
    are_dicts = {isinstance(info[key], dict) for _, info in having}
    if are_dicts == {True}:
        return _join([(rows, info[key]) for rows, info in having], total)
    if True in are_dicts:
        raise EncodingError(f"info {key!r} is a dict in some environments and none in others, so they cannot be merged")
    values = [_rows(info[key], rows.stop - rows.start) for rows, info in having]
    first = values[0]
    column: NDArray[Any] = np.zeros((total, *first.shape[1:]), first.dtype)
    if first.dtype == object:
        column[...] = None
    for (rows, info), value in zip(having, values, strict=True):
        mask = info.get(f"_{key}", slice(None))
        column[rows][mask] = value[mask]
    return column


def _rows(value: Any, size: int) -> NDArray[Any]:
    """A row for each environment, of a value that may be one for the whole slice."""
    if isinstance(value, np.ndarray) and value.ndim and len(value) == size:
        return value
    rows = np.empty(size, object)
    for row in range(size):
        rows[row] = value
    return rows
