"""Infos of vector environments, merged as Gymnasium's ``VectorEnv._add_info`` does.

A key's values become an array with a row for each environment, and under ``_key`` stands the mask of those that have
it; dicts hold such arrays in turn. The first environment that has the key decides the array's dtype, and Gymnasium
casts what others have to that: 0.5 becomes 0 after a first 1. A worker does not know which environment is the first of
all. So it merges without casting, into a list where kinds differ, and the client casts what it joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote_gym.errors import EncodingError

Infos = dict[Any, Any]
_Part = tuple[slice, Infos]  # the rows of a slice's environments, and their infos

_FINAL = ("final_obs", "final_observation")  # before and since Gymnasium 1.0; never stacked
_PYTHON_KINDS = (np.dtype(np.int64), np.dtype(np.float64), np.dtype(np.bool_))


def add_info(infos: Infos, info: Infos, index: int, count: int) -> Infos:
    """Add one environment's info to those of a vector environment; no value is cast.

    Args:
        infos: Is changed.
        info: The environment's.
        index: Its row.
        count: How many rows there are.

    Returns:
        The same infos.

    Raises:
        EncodingError: If a value is a dict in some environments and none in others, or where a mask is to be.
    """
    for key, value in info.items():
        column = infos.get(key)
        if column is None:
            column = {} if isinstance(value, dict) and key not in _FINAL else _new_column(key, value, count)
            infos[key] = column
        # There is one already, too, where the environment itself has an info of that name.
        mask = infos.setdefault(f"_{key}", np.zeros(count, np.bool_))
        if isinstance(mask, dict):
            raise EncodingError(f"info {f'_{key}'!r} is a dict, but it has to tell which environments have {key!r}")
        if isinstance(column, dict):
            if not isinstance(value, dict):
                raise _not_all_dicts(key)
            add_info(column, value, index, count)
        else:
            if isinstance(value, dict) and key not in _FINAL:
                raise _not_all_dicts(key)
            if not _holds(column, value):
                infos[key] = column = _as_list(column, mask)
            column[index] = value
        mask[index] = True
    return infos


def join_infos(sizes: Sequence[int], infos: Sequence[Infos]) -> Infos:
    """The infos of all environments, of those of their slices.

    A key that came without a mask, from a vector environment of its own kind, gets one only if some slices lack it.

    Args:
        sizes: How many environments each slice has.
        infos: What each slice's vector environment returned.

    Raises:
        EncodingError: If a value is a dict in some slices and none in others, or one array cannot hold what there is.
        ValueError: If the rows of one key do not have the same shape.
    """
    if not any(infos):
        return {}
    stops = np.cumsum(sizes).tolist()
    parts = [(slice(stop - size, stop), info) for size, stop, info in zip(sizes, stops, infos, strict=True) if info]
    return _join(parts, stops[-1])


def renumber(info: Infos, start: int) -> None:
    """Let ``env_id`` in an info of a slice, and in dicts within it, count from the slice's first environment."""
    for key, value in info.items():
        if isinstance(value, dict):
            renumber(value, start)
        elif key == "env_id" and isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            info[key] = value + value.dtype.type(start)


def _join(parts: list[_Part], total: int) -> Infos:
    joined: Infos = {}
    for info_rows, info in parts:
        masks = {f"_{key}" for key in info if _mask_of(info, key, info_rows) is not None}
        for key in info:
            if key in joined or key in masks:
                continue
            having = [(rows, other) for rows, other in parts if key in other]
            joined[key] = _join_column(key, having, total)
            count = sum(rows.stop - rows.start for rows, _ in having)
            having_masks = [(rows, _mask_of(other, key, rows)) for rows, other in having]
            if count < total or any(part is not None for _, part in having_masks):
                joined[f"_{key}"] = mask = np.zeros(total, np.bool_)
                for rows, part in having_masks:
                    mask[rows] = True if part is None else part
    return joined


def _mask_of(info: Infos, key: Any, rows: slice) -> NDArray[np.bool_] | None:
    """Which environments of a slice have that key; None for all. What has the name only is another info."""
    mask = info.get(f"_{key}")
    is_mask = type(mask) is np.ndarray and mask.dtype == np.bool_ and mask.shape == (rows.stop - rows.start,)
    return mask if is_mask else None


def _join_column(key: Any, having: list[_Part], total: int) -> Infos | NDArray[Any]:
    are_dicts = {isinstance(info[key], dict) for _, info in having}
    if are_dicts == {True}:
        return _join([(rows, info[key]) for rows, info in having], total)
    if True in are_dicts:
        raise _not_all_dicts(key)
    found = [(rows, _rows(info[key], mask := _mask_of(info, key, rows), rows), mask) for rows, info in having]
    column = _new_like(key, *found[0][1:], total)
    for rows, values, mask in found:
        indices = np.arange(len(values)) if mask is None else np.flatnonzero(mask)
        try:
            _fill(column[rows], values, indices)
        except (TypeError, OverflowError) as error:
            raise EncodingError(f"info {key!r} is of kinds that one array cannot hold: {error}") from error
    return column


def _fill(target: NDArray[Any], values: NDArray[Any] | list[Any], indices: NDArray[np.intp]) -> None:
    if isinstance(values, np.ndarray) and _casts_alike(values, target):
        target[indices] = values[indices]
    else:
        # NumPy scalars stay what they are, and arrays become rows; a Python number that does not fit has to raise.
        single = values.tolist() if isinstance(values, np.ndarray) and _holds_python_numbers(values) else values
        for index in indices:
            target[index] = single[index]


def _new_like(key: Any, values: NDArray[Any] | list[Any], mask: NDArray[np.bool_] | None, total: int) -> NDArray[Any]:
    """An empty column that continues those of the first slice."""
    if not isinstance(values, np.ndarray):
        return _new_column(key, values[0 if mask is None else int(mask.argmax())], total)
    column: NDArray[Any] = np.zeros((total, *values.shape[1:]), values.dtype)
    if column.dtype == object:
        column[...] = None
    return column


def _new_column(key: Any, first: Any, count: int) -> NDArray[Any]:
    """An empty column, of the dtype that the first value decides."""
    kind = type(first)
    if key not in _FINAL:
        if kind in (int, float, bool) or issubclass(kind, np.number):
            return np.zeros(count, kind)
        if isinstance(first, np.ndarray):
            return np.zeros((count, *first.shape), first.dtype)
    return np.full(count, None, object)


def _holds(column: NDArray[Any] | list[Any], value: Any) -> bool:
    """Whether the value can be a row of the column without being cast."""
    if not isinstance(column, np.ndarray) or (column.dtype == object and column.ndim == 1):
        return True
    if isinstance(value, np.ndarray):
        return bool(value.dtype == column.dtype and value.shape == column.shape[1:])
    kind = type(value)
    if column.ndim > 1 or not (kind in (int, float, bool) or issubclass(kind, np.number)):
        return False
    return np.dtype(kind) == column.dtype and (kind is not int or -(2**63) <= value < 2**63)


def _as_list(column: NDArray[Any], mask: NDArray[np.bool_]) -> list[Any]:
    # A column of bools began with Python's own: with NumPy's, Gymnasium makes one of objects.
    values = column.tolist() if column.ndim == 1 and column.dtype in _PYTHON_KINDS else list(column)
    return [value if has_it else None for value, has_it in zip(values, mask, strict=True)]


def _casts_alike(values: NDArray[Any], column: NDArray[Any]) -> bool:
    """Whether NumPy gives many values at once what it gives each: Python's own numbers, where objects are wanted."""
    if column.dtype == object:
        return values.dtype == object or _holds_python_numbers(values)
    return values.shape[1:] == column.shape[1:] and np.can_cast(values.dtype, column.dtype)


def _holds_python_numbers(column: NDArray[Any]) -> bool:
    """Whether it is a column that Python's own numbers began."""
    return column.ndim == 1 and column.dtype in _PYTHON_KINDS


def _rows(value: Any, mask: Any, rows: slice) -> NDArray[Any] | list[Any]:
    """A row for each environment, of a value that may be one for the whole slice."""
    size = rows.stop - rows.start
    if isinstance(value, list) and mask is not None and len(value) == size:
        return value
    if isinstance(value, np.ndarray) and value.ndim and len(value) == size:
        return value
    found = np.empty(size, object)
    for row in range(size):
        found[row] = value
    return found


def _not_all_dicts(key: Any) -> EncodingError:
    return EncodingError(f"info {key!r} is a dict in some environments and none in others, so they cannot be merged")
