"""Slices' infos, joined, are what Gymnasium makes of all environments' infos at once."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.errors import EncodingError
from remote_gym.testing import find_difference
from remote_gym.wire.autoreset import AutoresetMode
from remote_gym.wire.infos import add_info, join_infos

pytestmark = pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium < 1.1 merges infos in other ways")

values = st.one_of(
    st.integers(-1000, 1000),
    st.floats(-1e6, 1e6),
    st.booleans(),
    st.floats(-10, 10, width=32).map(np.float32),
    st.booleans().map(np.bool_),
    st.text(max_size=3),
    st.none(),
    st.lists(st.integers(0, 3), max_size=2),
    st.integers(0, 5).map(lambda number: np.full((2, 3), number, np.int16)),
)
columns = {
    "kinds": values,
    "numbers": st.one_of(st.integers(-9, 9), st.floats(-9, 9), st.booleans(), st.integers(0, 9).map(np.int32)),
    "arrays": st.integers(0, 9).map(lambda number: np.full(2, number, np.float64)),
    "final_obs": st.integers(0, 9).map(lambda number: np.full(2, number)),
    "nested": st.fixed_dictionaries({}, optional={"deep": st.integers(0, 9), "text": st.text(max_size=2)}),
    "_hidden": st.integers(0, 9),
}
infos = st.lists(st.fixed_dictionaries({}, optional=columns), min_size=1, max_size=7)


def all_at_once(found: list[dict[str, Any]]) -> dict[str, Any]:
    """By Gymnasium."""
    vector = gym.vector.VectorEnv()
    vector.num_envs = len(found)
    merged: dict[str, Any] = {}
    for index, info in enumerate(found):
        merged = vector._add_info(merged, info, index)
    return merged


def in_slices(found: list[dict[str, Any]], size: int) -> dict[str, Any]:
    slices = [found[start : start + size] for start in range(0, len(found), size)]
    merged = []
    for part in slices:
        merged.append({})
        for index, info in enumerate(part):
            add_info(merged[-1], info, index, len(part))
    return join_infos([len(part) for part in slices], merged)


@given(infos, st.integers(1, 7))
def test_join_of_slices_is_what_gymnasium_merges(found, size):
    try:
        expected = all_at_once(found)
    except (ValueError, TypeError, OverflowError):  # such as a text after a number, or a number too large
        with pytest.raises((ValueError, TypeError, OverflowError)):
            in_slices(found, size)
        return
    assert find_difference(expected, in_slices(found, size)) is None


def test_the_first_environment_decides_the_dtype_wherever_it_is():
    found = [{"prob": 0.5}, {"prob": 0.25}, {"prob": 1}, {"prob": 0.75}]
    assert in_slices(found, 2)["prob"].tolist() == [0.5, 0.25, 1.0, 0.75]
    assert in_slices(found[2:] + found[:2], 2)["prob"].tolist() == [1, 0, 0, 0]


def test_keys_without_masks_get_one_only_where_they_are_missing():
    one, other = {"speed": np.arange(2.0), "name": "fast"}, {"speed": np.arange(3.0)}
    joined = join_infos([2, 3], [one, other])
    assert joined["speed"].tolist() == [0, 1, 0, 1, 2]
    assert joined["name"].tolist() == ["fast", "fast", None, None, None]
    assert joined["_name"].tolist() == [True, True, False, False, False]
    assert "_speed" not in joined


def test_dicts_and_other_values_of_one_key_are_refused():
    with pytest.raises(EncodingError, match="'a' is a dict in some"):
        in_slices([{"a": 1}, {"a": {"b": 2}}], 1)
    with pytest.raises(EncodingError, match="'a' is a dict in some"):
        in_slices([{"a": 1}, {"a": {"b": 2}}], 2)
    with pytest.raises(EncodingError, match="'a' is a dict in some"):
        in_slices([{"a": {"b": 2}}, {"a": 1}], 2)


def test_a_number_fills_the_row_that_an_array_began():
    found = [{}, {"kinds": np.full((2, 3), 7, np.int16)}, {"kinds": 1}, {"kinds": 2}]
    assert in_slices(found, 2)["kinds"][:, 0, 0].tolist() == [0, 7, 1, 2]


def test_a_number_that_does_not_fit_is_an_error_rather_than_another_number():
    with pytest.raises(EncodingError, match="32768"):
        in_slices([{"kinds": np.full(3, 0, np.int16)}, {"kinds": 32768.0}], 1)
