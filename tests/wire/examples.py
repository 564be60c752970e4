"""Spaces of every kind, strategies for spaces and values, and what it means that something arrived unchanged."""

from __future__ import annotations

import inspect
import struct
from collections import OrderedDict, deque
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from zoneinfo import TZPATH, ZoneInfo

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from remote_gym.config import Limits
from remote_gym.wire.spaces.image import ImageSpace
from remote_gym.wire.spaces.text import AnyText
from remote_gym.wire.values.named import Member, Record, mark_tuple, marked, remote_type

LIMITS = Limits()
HAS_ONE_OF = hasattr(spaces, "OneOf")
DISCRETE_HAS_DTYPE = "dtype" in inspect.signature(spaces.Discrete).parameters
DICT_HAS_SORT_KEYS = "sort_keys" in inspect.signature(spaces.Dict).parameters
GRAPH_HOLDS_ANY = DICT_HAS_SORT_KEYS  # both came with Gymnasium 1.4

BOX_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOAT_DTYPES = ("float16", "float32", "float64")


def _box(low: Any, high: Any, shape: tuple[int, ...], dtype: str) -> spaces.Box:
    with np.errstate(invalid="ignore"):  # old versions of Gymnasium cast infinite bounds of integers
        return spaces.Box(low, high, shape, np.dtype(dtype).type)


SPACES: dict[str, gym.Space[Any]] = {
    "box": _box(-1, 1, (3,), "float32"),
    "box-scalar": _box(-1, 1, (), "float64"),
    "box-scalar-int": _box(0, 9, (), "int8"),
    "box-image": _box(0, 255, (4, 5, 3), "uint8"),
    "box-empty": _box(0, 1, (2, 0, 3), "float32"),
    "box-bool": _box(0, 1, (7,), "bool"),
    "box-bounds": spaces.Box(np.array([-1, -np.inf, 0]), np.array([1, 3, np.inf]), dtype=np.float64),
    "box-negative-zero": spaces.Box(np.array([-0.0, 0.0]), np.array([0.0, 1.0]), dtype=np.float64),
    "box-half-bounded-int": _box(np.array([-np.inf, 0]), np.array([3, np.inf]), (2,), "int32"),
    "box-unbounded-int": _box(-np.inf, np.inf, (4,), "int16"),
    **{f"box-{dtype}": _box(0, 1, (2, 3), dtype) for dtype in BOX_DTYPES},
    **{f"box-{dtype}": _box(-np.inf, np.inf, (3, 2), dtype) for dtype in FLOAT_DTYPES},
    "discrete": spaces.Discrete(5),
    "discrete-start": spaces.Discrete(3, start=-7),
    "discrete-large": spaces.Discrete(2**63 - 1),
    "multi-discrete": spaces.MultiDiscrete([3, 4, 5]),
    "multi-discrete-2d": spaces.MultiDiscrete(np.array([[1, 2], [3, 4]]), dtype=np.int16),
    "multi-discrete-start": spaces.MultiDiscrete([3, 4], start=[-10, 10]),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary-shape": spaces.MultiBinary((3,)),
    "multi-binary-2d": spaces.MultiBinary((2, 3)),
    "text": spaces.Text(8),
    "text-order": spaces.Text(5, min_length=0, charset="zyx\u00e4\U0001f600a"),
    "dict-order": spaces.Dict([("b", spaces.Discrete(2)), ("a", _box(0, 1, (2,), "float32"))]),
    "dict-keys": spaces.Dict([(3, spaces.Discrete(2)), ((1, "x"), spaces.Discrete(3)), ("s", spaces.Discrete(4))]),
    "dict-empty": spaces.Dict({}),
    "dict-nested": spaces.Dict({"x": spaces.Dict({"y": spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)])})}),
    "dict-text": spaces.Dict({"mission": spaces.Text(4), "flag": _box(0, 1, (), "bool")}),
    "tuple": spaces.Tuple([spaces.Discrete(2), _box(0, 1, (2,), "float16"), _box(0, 1, (3,), "bool")]),
    "tuple-empty": spaces.Tuple([]),
    "sequence": spaces.Sequence(_box(0, 1, (2,), "float32")),
    "sequence-dict": spaces.Sequence(spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Text(3)})),
    "sequence-stack": spaces.Sequence(_box(0, 1, (2,), "float32"), stack=True),
    "sequence-stack-discrete": spaces.Sequence(spaces.Discrete(4), stack=True),
    "sequence-stack-nested": spaces.Sequence(
        spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary((2, 2))])}), stack=True
    ),
    "sequence-stack-text": spaces.Sequence(spaces.Text(3), stack=True),
    "graph": spaces.Graph(_box(0, 1, (3,), "float32"), spaces.Discrete(4)),
    "graph-no-edges": spaces.Graph(spaces.Discrete(4), None),
}
OURS: dict[str, gym.Space[Any]] = {
    "any-text": AnyText(),
    "image": ImageSpace(),
    "sequence-image": spaces.Sequence(ImageSpace()),
}
"""Spaces that Gymnasium does not have, nor then any guest."""
if HAS_ONE_OF:
    SPACES["one-of"] = spaces.OneOf([spaces.Discrete(3), _box(0, 1, (2,), "float32"), spaces.Text(3)])
if DISCRETE_HAS_DTYPE:
    SPACES["discrete-uint8"] = spaces.Discrete(200, start=10, dtype=np.uint8)
    SPACES["discrete-uint64"] = spaces.Discrete(5, start=2**63 + 7, dtype=np.uint64)
if DICT_HAS_SORT_KEYS:
    SPACES["dict-unsorted"] = spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Discrete(3)}, sort_keys=False)
if GRAPH_HOLDS_ANY:
    SPACES["graph-of-dicts"] = spaces.Graph(
        spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple([_box(0, 1, (2,), "float32")])
    )
SPACES |= OURS


def plain(element: Any) -> Any:
    """The element with a dict for each OrderedDict, which is what Gymnasium samples before 1.0."""
    if type(element) in (dict, OrderedDict):
        return {key: plain(item) for key, item in element.items()}
    if type(element) in (list, tuple):
        return type(element)(map(plain, element))
    return element


def same(left: Any, right: Any) -> bool:
    """Whether two values agree in every type, dtype, shape, order and bit."""
    if type(left) is not type(right):
        return False
    if remote_type(left) != remote_type(right):
        return False
    if isinstance(left, Record):
        return same(vars(left), vars(right))
    if isinstance(left, Member):
        return left.name == right.name and same(left.value, right.value)
    if isinstance(left, np.ma.MaskedArray):
        return left is right or _same_masked(left, right)
    if isinstance(left, float) and not isinstance(left, np.generic):
        return struct.pack("<d", left) == struct.pack("<d", right)
    if isinstance(left, np.ndarray) and left.dtype.kind == "O":
        return left.shape == right.shape and same(left.ravel().tolist(), right.ravel().tolist())
    if isinstance(left, str | bytes):
        return left == right and len(left) == len(right)
    if isinstance(left, np.ndarray | np.generic) and left.dtype.names is not None:
        columns = [same(np.asarray(left[name]), np.asarray(right[name])) for name in left.dtype.names]
        return left.dtype == right.dtype and left.shape == right.shape and all(columns)
    if isinstance(left, np.longdouble | np.clongdouble) or (isinstance(left, np.ndarray) and left.dtype.char in "gG"):
        return left.dtype.str == right.dtype.str and repr(left) == repr(right)  # their padding does not travel
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype.str == right.dtype.str and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and all(any(same(one, other) for other in right) for one in left)
    if isinstance(left, deque):
        return left.maxlen == right.maxlen and same(list(left), list(right))
    if isinstance(left, complex):
        return same([left.real, left.imag], [right.real, right.imag])
    if isinstance(left, datetime | time):
        zones = [(value.tzinfo, value.fold, value.tzname()) for value in (left, right)]
        return left.replace(tzinfo=None) == right.replace(tzinfo=None) and zones[0] == zones[1]
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    return bool(left == right)


def _same_masked(left: Any, right: Any) -> bool:
    masks = [value.mask if value.mask is np.ma.nomask else np.asarray(value.mask) for value in (left, right)]
    return (
        same(left.data, right.data)
        and same(*masks)
        and left.hardmask == right.hardmask
        and same(np.asarray(left.fill_value), np.asarray(right.fill_value))
    )


def arrays_in(value: Any) -> list[Any]:
    """Every array in a value that it is made of."""
    if isinstance(value, np.ma.MaskedArray):
        return []
    if isinstance(value, np.ndarray):
        inner = [array for item in value.ravel().tolist() for array in arrays_in(item)] if value.dtype == object else []
        return [value, *inner]
    if isinstance(value, dict):
        return [array for item in value.values() for array in arrays_in(item)]
    if isinstance(value, list | tuple | deque):
        return [array for item in value for array in arrays_in(item)]
    return []


# Strategies -----------------------------------------------------------------------------------------------

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
POSITIVE_SHAPES = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = np.dtype(draw(st.sampled_from(BOX_DTYPES + FLOAT_DTYPES)))
    shape = draw(SHAPES)
    if dtype.kind == "b":
        bounds = st.sampled_from([False, True])
    elif dtype.kind == "f":
        width = 8 * dtype.itemsize
        bounds = st.floats(-1000, 1000, width=width)
    else:
        bounds = st.integers(-100 if dtype.kind == "i" else 0, 100)
    one, two = (draw(hnp.arrays(dtype, shape, elements=bounds, fill=bounds)) for _ in range(2))
    low, high = np.asarray(np.minimum(one, two)), np.asarray(np.maximum(one, two))  # not scalars, where 0-d
    # Not int64, whose most Gymnasium itself fails to cast from a float array.
    if (dtype.kind == "f" or dtype in (np.int8, np.int16, np.int32)) and draw(st.booleans()):
        free = hnp.arrays(bool, shape, elements=st.booleans(), fill=st.booleans())
        low = np.where(draw(free), -np.inf, low.astype(np.float64))
        high = np.where(draw(free), np.inf, high.astype(np.float64))
        if dtype.kind == "f":
            low, high = low.astype(dtype), high.astype(dtype)
    return _box(low, high, shape, dtype.name)


@st.composite
def discretes(draw: st.DrawFn) -> spaces.Discrete:
    n, start = draw(st.integers(1, 100)), draw(st.integers(-20, 20))
    if DISCRETE_HAS_DTYPE and draw(st.booleans()):
        return spaces.Discrete(n, start=abs(start), dtype=np.dtype(draw(st.sampled_from(BOX_DTYPES[1:]))).type)
    return spaces.Discrete(n, start=start)


@st.composite
def multi_discretes(draw: st.DrawFn) -> spaces.MultiDiscrete:
    shape = draw(POSITIVE_SHAPES)
    dtype = np.dtype(draw(st.sampled_from(BOX_DTYPES[1:])))
    nvec = draw(hnp.arrays(dtype, shape, elements=st.integers(1, 50)))
    start = draw(hnp.arrays(dtype, shape, elements=st.integers(0 if dtype.kind == "u" else -20, 20)))
    return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)


@st.composite
def texts(draw: st.DrawFn) -> spaces.Text:
    characters = draw(st.lists(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10, unique=True))
    least = draw(st.integers(0, 5))
    return spaces.Text(least + draw(st.integers(0, 5)), min_length=least, charset="".join(characters))


MULTI_BINARIES = st.one_of(st.integers(1, 9), POSITIVE_SHAPES).map(spaces.MultiBinary)
LEAVES = st.one_of(boxes(), discretes(), multi_discretes(), MULTI_BINARIES, texts())
KEYS = st.one_of(st.text(max_size=5), st.integers(), st.tuples(st.integers(), st.text(max_size=3)))


def _containers(members: st.SearchStrategy[gym.Space[Any]]) -> st.SearchStrategy[gym.Space[Any]]:
    kinds: list[st.SearchStrategy[Any]] = [
        st.dictionaries(KEYS, members, max_size=3).map(lambda found: spaces.Dict(list(found.items()))),
        st.lists(members, max_size=3).map(spaces.Tuple),
        st.builds(spaces.Sequence, members),
        st.builds(spaces.Sequence, LEAVES, stack=st.just(True)),
        st.builds(spaces.Graph, st.one_of(boxes(), discretes()), st.one_of(st.none(), boxes(), discretes())),
    ]
    if HAS_ONE_OF:
        kinds.append(st.lists(members, min_size=1, max_size=3).map(spaces.OneOf))
    return st.one_of(kinds)


def seeded(space: gym.Space[Any]) -> gym.Space[Any]:
    """The space, which from now on samples the same each time."""
    space.seed(7)
    return space


ANY_SPACE = st.recursive(LEAVES, _containers, max_leaves=6).map(seeded)

SURROGATES = st.text(st.characters(), max_size=10)


def is_known(key: str) -> bool:
    """Whether this system has a time zone in its database, from which alone one is read."""
    return any((Path(folder) / key).is_file() for folder in TZPATH)


TIME_DTYPES = st.one_of(hnp.datetime64_dtypes(endianness="?"), hnp.timedelta64_dtypes(endianness="?"))
NUMBER_DTYPES = st.one_of(
    TIME_DTYPES,
    st.sampled_from(["g", ">g", "G", "m8", "M8", "m8[25s]"]).map(np.dtype),
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    hnp.unicode_string_dtypes(endianness="?", max_len=5),
    hnp.byte_string_dtypes(max_len=5),
)
ARRAYS = hnp.arrays(NUMBER_DTYPES, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
SCALARS = hnp.arrays(NUMBER_DTYPES.map(lambda dtype: dtype.newbyteorder("=")), ()).map(lambda array: array[()])
VOIDS = st.binary(max_size=6).map(lambda data: np.frombuffer(data, f"V{len(data)}") if data else np.zeros(2, "V0"))
SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    SURROGATES,
    st.binary(max_size=10),
)

ZONES = st.one_of(
    st.none(),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.just("CEST")),
)
IN_PLACES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]).filter(is_known).map(ZoneInfo)
PATH_TEXTS = st.text(st.characters(exclude_characters="\0"), max_size=8)
STANDARD = st.one_of(
    st.dates(),
    st.times(timezones=ZONES),
    st.datetimes(timezones=st.one_of(ZONES, IN_PLACES), allow_imaginary=True),
    st.timedeltas(),
    st.complex_numbers(),
    st.decimals(allow_nan=True).filter(lambda value: not value.is_snan()),
    st.fractions(),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
    PATH_TEXTS.map(PurePosixPath),
    PATH_TEXTS.map(PureWindowsPath),
)
HASHABLE = st.recursive(
    st.one_of(SIMPLE, SCALARS.filter(lambda value: value.dtype.kind != "V"), STANDARD),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
NAMES = st.text("abc", min_size=1, max_size=3)


@st.composite
def structured(draw: st.DrawFn) -> Any:
    """Structured arrays and scalars, with and without what C's alignment puts between fields."""
    array = draw(
        hnp.arrays(hnp.array_dtypes(allow_subarrays=True), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
    )
    # Without titles, which do not travel.
    array = array.astype(np.dtype([(name, array.dtype[name]) for name in array.dtype.names]))
    aligned = array.astype(np.dtype(array.dtype.descr, align=True)) if draw(st.booleans()) else array
    return aligned[()] if not aligned.ndim and draw(st.booleans()) else aligned


@st.composite
def masked(draw: st.DrawFn) -> Any:
    """Masked arrays of numbers, and of none masked."""
    data = draw(hnp.arrays(hnp.integer_dtypes() | hnp.floating_dtypes(sizes=(32, 64)), SHAPES))
    mask = draw(st.just(np.ma.nomask) | hnp.arrays(bool, data.shape))
    fill_value = draw(st.none() | st.just(3))
    return np.ma.MaskedArray(data, mask=mask, fill_value=fill_value, hard_mask=draw(st.booleans()))


def _named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What arrives of classes that are not here, which is sent on as it came."""
    fields = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        st.builds(Record, NAMES, fields),
        st.builds(Member, NAMES, NAMES, inner),
        st.builds(lambda items: mark_tuple(tuple(items.values()), "a.B", tuple(items)), fields),
        st.builds(lambda value: marked(type(value), value, "a.B", {}), st.integers() | st.text() | STANDARD_MARKED),
        st.lists(inner, max_size=3).map(lambda items: marked(list, items, "a.B", {})),
    )


STANDARD_MARKED = st.one_of(st.dates(), st.timedeltas(), st.fractions(), st.times(), st.datetimes())


def _object_arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3).map(lambda items: np.fromiter(items, dtype=object, count=len(items)))


def _values(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(SURROGATES, inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=4),
        _object_arrays(inner),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
        st.builds(lambda items, room: deque(items, room), st.lists(inner, max_size=3), st.none() | st.integers(3, 9)),
        _named(inner),
        st.builds(GraphInstance, ARRAYS, st.one_of(st.none(), ARRAYS), st.one_of(st.none(), ARRAYS)),
    )


LEAF_VALUES = st.one_of(
    VOIDS,
    VOIDS.map(lambda array: array[0]),
    SIMPLE,
    ARRAYS,
    SCALARS,
    STANDARD,
    st.binary(max_size=5).map(bytearray),
    structured(),
    masked(),
)
ANY_VALUE = st.recursive(LEAF_VALUES, _values, max_leaves=10)
