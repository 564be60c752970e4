"""Spaces as specs, elements as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("dm_env_rpc", reason="needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'")

from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
from dm_env_rpc.v1 import dm_env_utils, spec_manager, tensor_utils

from remote_gym import ConfigError, InvalidAction
from remote_gym.server.frontends.dm_env_rpc.specs import Leaves

SPACES = [
    spaces.Box(-1, 1, (2, 3), np.float32),
    spaces.Box(-np.inf, np.inf, (3,), np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-5, 5, (2,), np.int16),
    spaces.Box(0, 9, (2,), np.uint16),
    spaces.Box(-1, 1, (2,), np.float16),
    spaces.Box(-(2**62), 2**62, (2,), np.int64),
    spaces.Box(0, 1, (2,), np.bool_),
    spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
    spaces.Box(0, 1, (), np.float32),
    spaces.Discrete(5),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary((2, 2)),
    spaces.Text(5),
    spaces.Dict(arm=spaces.Dict(left=spaces.Box(0, 1, (2,), np.float32)), gripper=spaces.Discrete(2)),
    spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (2,), np.float32)]),
]


def as_sent(space: Any, element: Any) -> dict[int, Any]:
    """What a client of dm_env_rpc makes of an element by the specs: by names, with its own package."""
    leaves = Leaves(space, "action", "action")
    manager = spec_manager.SpecManager(leaves.specs())
    values = {leaf.spec.name: at(element, leaf.path) for leaf in leaves.by_uid.values()}
    return dict(manager.pack(values))


def at(element: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        element = element[key]
    return element


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str):
        return bool(one == other)
    return type(one) is type(other) and one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_elements_come_back_as_they_were(space):
    space.seed(3)
    leaves = Leaves(space, "action", "action")
    for _ in range(20):
        element = space.sample()
        expected = np.asarray(element)[()] if isinstance(space, spaces.Box) and not space.shape else element
        assert same(leaves.unpack(leaves.pack(element)), expected)
        assert same(leaves.unpack(as_sent(space, element)), expected)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_dm_env_reads_the_specs(space):
    specs = Leaves(space, "observation", "observation").specs()
    read = dm_env_utils.dm_env_spec(spec_manager.SpecManager(specs))
    assert all(spec.name in read for spec in specs.values())


def test_bounds_are_told():
    [spec] = Leaves(spaces.Discrete(5, start=-2), "action", "action").specs().values()
    assert (spec.min.int64s.array[:], spec.max.int64s.array[:]) == ([-2], [2])
    [spec] = Leaves(spaces.MultiDiscrete([2, 3]), "action", "action").specs().values()
    assert spec.max.int64s.array[:] == [1, 2]


ACTION = spaces.Dict(a=spaces.Box(-1, 1, (2, 2), np.float32), b=spaces.Discrete(3), c=spaces.Text(4))


def tensor(value: Any, dtype: Any, shape: tuple[int, ...] | None = None) -> Any:
    made = tensor_utils.pack_tensor(value, dtype=dtype)
    if shape is not None:
        made.shape[:] = shape
    return made


def good() -> dict[int, Any]:
    return Leaves(ACTION, "action", "action").pack({"a": np.zeros((2, 2), np.float32), "b": 1, "c": "x"})


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({1: tensor(np.zeros((2, 2)), np.float64)}, "expected float32"),
        ({1: tensor(np.full((2, 2), 2.0), np.float32)}, "not within its bounds"),
        ({1: tensor(np.full((2, 2), np.nan), np.float32)}, "not within its bounds"),
        ({1: tensor(np.zeros((2, 2)), np.float32, (2, 2, 1))}, "expected float32 of shape"),
        ({1: tensor(np.zeros((2, 2)), np.float32, (-1, -1))}, "expected float32 of shape"),
        ({1: tensor(np.zeros(3), np.float32, (2, 2))}, "expected float32 of shape"),
        ({1: tensor(0.0, np.float32, (10**6, 10**6))}, "expected float32 of shape"),
        ({1: dm.Tensor()}, "action 'a'"),
        ({2: tensor(3, np.int64)}, "not within its bounds"),
        ({2: tensor("1", str)}, "expected int64"),
        ({3: tensor(1, np.int64)}, "expected one text"),
        ({3: tensor(["a", "b"], str)}, "expected one text"),
        ({7: tensor(1, np.int64)}, "no action of the unique id 7"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(changed, text):
    with pytest.raises(InvalidAction, match=text):
        Leaves(ACTION, "action", "action").unpack({**good(), **changed})


def test_a_missing_one_is_named():
    sent = good()
    del sent[2]
    with pytest.raises(InvalidAction, match="'b' is missing"):
        Leaves(ACTION, "action", "action").unpack(sent)


def test_one_length_may_be_left_out_and_one_number_stand_for_all():
    leaves = Leaves(ACTION, "action", "action")
    half = np.full((2, 2), 0.5, np.float32)
    for sent in (tensor(half, np.float32, (-1, 2)), tensor(0.5, np.float32, (2, 2))):
        assert same(leaves.unpack({**good(), 1: sent})["a"], half)


@pytest.mark.parametrize("space", [spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Discrete(2), None)])
def test_a_space_without_a_spec_is_refused_by_its_name(space):
    with pytest.raises(ConfigError, match=r"Sequence|Graph"):
        Leaves(spaces.Dict(inner=space), "action", "action")


def test_names_that_meet_are_refused():
    space = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))})
    with pytest.raises(ConfigError, match="one name each"):
        Leaves(space, "action", "action")
