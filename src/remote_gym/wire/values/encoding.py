"""Values to messages.

Encoding fills a message in place, since to build one apart would copy each level of it once more. One pure
function per type does it, found by the value's exact type: this runs for every step.
"""

from __future__ import annotations

import datetime
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import standard, times
from remote_gym.wire.values.arrays import array_obstacle, encode_array, encode_scalar
from remote_gym.wire.values.budget import Budget, NoWireForm
from remote_gym.wire.values.decoding import are_distinct
from remote_gym.wire.values.dtypes import SCALAR_TYPES
from remote_gym.wire.values.foreign import NoArray, array_of
from remote_gym.wire.values.named import remote_type
from remote_gym.wire.values.nearest import Nearest, nearest
from remote_gym.wire.values.structured import describe_structured, fill_value_of, without_gaps
from remote_gym.wire.values.unencodable import (
    Unencodable,
    describe,
    log_as_base,
    log_unencodable,
    printable,
    short_repr,
    type_name,
)

_ONLY_STR = {str}
_SIMPLE = frozenset({bool, int, float, str, bytes, type(None)})
"""Types whose instances are as different where they arrive as they were here."""


def encode_value(value: object, into: pb.Value, *, strict: bool, limits: Limits, path: str = "value") -> None:
    """Write a value into an empty message.

    Instances of classes that the other end may not have are written as the nearest plain value, beside the class's
    name; arrays of other libraries as NumPy's. What a type arrives as is in the page on fidelity.

    Args:
        value: Anything.
        into: Left in an undefined state when this raises.
        strict: Whether what has no wire form raises; else an `Unencodable` takes its place.
        limits: Bounds; what exceeds them has no wire form.
        path: What error messages call the value, such as ``"options"``.

    Raises:
        EncodingError: If `strict`, and the value or part of it has no wire form.
    """
    try:
        _encode(value, into, Budget(strict, limits))
    except NoWireForm as obstacle:
        raise EncodingError(f"{path}{''.join(reversed(obstacle.path))}: {obstacle.reason}") from None


def _encode(value: object, into: pb.Value, budget: Budget) -> None:
    try:
        _ENCODERS.get(type(value), _encode_other)(value, into, budget)
    except NoWireForm as obstacle:
        if budget.strict:
            raise
        _encode_unencodable(describe(value), into, budget)
        log_unencodable(type_name(value), obstacle.reason)


def _encode_none(_value: None, into: pb.Value, _budget: Budget) -> None:
    into.none.SetInParent()


def _encode_bool(value: bool, into: pb.Value, _budget: Budget) -> None:
    into.boolean = value


def _encode_int(value: int, into: pb.Value, budget: Budget) -> None:
    if -(2**63) <= value < 2**63:
        into.integer = value
        return
    size = value.bit_length() // 8 + 1  # one bit more, for the sign
    budget.check_length("an int", size, "bytes")
    into.big_integer = value.to_bytes(size, "little", signed=True)


def _encode_float(value: float, into: pb.Value, _budget: Budget) -> None:
    into.number = value


def _encode_str(value: str, into: pb.Value, budget: Budget) -> None:
    budget.check_length("a str", len(value), "characters")
    try:
        into.text = value
    except UnicodeEncodeError:
        into.surrogate_text = value.encode("utf-8", "surrogatepass")


def _encode_bytes(value: bytes, into: pb.Value, budget: Budget) -> None:
    budget.check_bytes(len(value))
    into.binary = value


def _encode_list(value: list[Any], into: pb.Value, budget: Budget) -> None:
    _encode_items(value, value, into.list, budget)


def _encode_tuple(value: tuple[Any, ...], into: pb.Value, budget: Budget) -> None:
    _encode_items(value, value, into.tuple, budget)


def _encode_items(
    owner: object, items: Collection[Any], into: pb.List | pb.ObjectArray | pb.Deque, budget: Budget
) -> None:
    budget.enter(owner, len(items))
    into.SetInParent()
    add = into.items.add
    index = 0
    try:
        for index, item in enumerate(items):  # noqa: B007 - told to the error below
            _encode(item, add(), budget)
    except NoWireForm as obstacle:
        obstacle.path.append(f"[{index}]")
        raise
    budget.leave(owner)


def _encode_set(value: set[Any], into: pb.Value, budget: Budget) -> None:
    _encode_members(value, value, into.set, budget)


def _encode_frozenset(value: frozenset[Any], into: pb.Value, budget: Budget) -> None:
    _encode_members(value, value, into.frozen_set, budget)


def _encode_members(owner: object, items: Collection[Any], into: pb.List, budget: Budget) -> None:
    _encode_items(owner, items, into, budget)
    if not _SIMPLE.issuperset(map(type, items)):
        _keep_apart(items, into.items, budget)


def _encode_deque(value: deque[Any], into: pb.Value, budget: Budget) -> None:
    _write_deque(value, value, into.deque, budget)


def _write_deque(owner: object, value: deque[Any], into: pb.Deque, budget: Budget) -> None:
    _encode_items(owner, value, into, budget)
    if value.maxlen is not None:
        into.max_length = value.maxlen


def _encode_dict(value: dict[Any, Any], into: pb.Value, budget: Budget) -> None:
    _encode_entries(value, value, into.dict, budget)


def _encode_entries(owner: object, entries: dict[Any, Any], into: pb.Dict, budget: Budget) -> None:
    budget.enter(owner, len(entries))
    into.SetInParent()
    _encode_keys(entries, into, budget)
    add = into.values.add
    key = None
    try:
        for key, item in entries.items():  # noqa: B007 - told to the error below
            _encode(item, add(), budget)
    except NoWireForm as obstacle:
        obstacle.path.append(f"[{short_repr(key)}]")
        raise
    budget.leave(owner)


def _encode_keys(keys: Collection[Any], into: pb.Dict, budget: Budget) -> None:
    if set(map(type, keys)) == _ONLY_STR and max(map(len, keys)) <= budget.limits.text_length:
        try:
            into.names.extend(keys)
            return
        except UnicodeEncodeError:
            del into.names[:]
    for key in keys:
        try:
            _encode(key, into.keys.add(), budget)
        except NoWireForm as obstacle:
            obstacle.reason = f"the key {short_repr(key)} cannot travel: {obstacle.reason}"
            obstacle.path.clear()
            raise
    if not _SIMPLE.issuperset(map(type, keys)):
        _keep_apart(keys, into.keys, budget)


def _keep_apart(values: Collection[Any], messages: Sequence[pb.Value], budget: Budget) -> None:
    """See to it that dict keys, or items of a set, are still such where they arrive.

    There an instance of a class may have no hash, or be equal to another, as it is here a list's subclass with a hash,
    or a text that compares by identity. What that happens to is summed up, if it may be.

    Raises:
        NoWireForm: If it may not.
    """
    if not are_distinct(messages, budget.limits):
        if budget.strict:
            raise NoWireForm("keys of a dict, or items of a set, that would have no hash or be equal where they arrive")
        for value, message in zip(values, messages, strict=True):
            if type(value) not in _SIMPLE:
                message.Clear()
                _encode_unencodable(describe(value), message, budget)
    seen: set[bytes] = set()
    for message in messages:
        if message.WhichOneof("kind") == "unencodable":
            # Two keys may look alike once they are shortened; as equal keys they would not be a dict.
            while (form := message.SerializeToString()) in seen:
                message.unencodable.repr += "'"
            seen.add(form)


def _encode_ndarray(value: NDArray[Any], into: pb.Value, budget: Budget) -> None:
    if value.dtype.names is not None:
        _encode_structured(value, value, into, budget)
        return
    obstacle = array_obstacle(value, budget.limits)
    if obstacle is not None:
        raise NoWireForm(obstacle)
    if value.dtype.kind != "O":
        encode_array(value, into.array)
        return
    target = into.object_array
    _encode_items(value, value.ravel().tolist(), target, budget)
    target.shape.extend(value.shape)


def _encode_structured(owner: object, value: NDArray[Any], into: pb.Value, budget: Budget) -> None:
    array = without_gaps(value)
    names = array.dtype.names or ()
    budget.enter(owner, len(names))
    describe_structured(array, into.structured_array)
    name = ""
    try:
        for name in names:
            _encode_ndarray(array[name], into.structured_array.columns.add(), budget)
    except NoWireForm as obstacle:
        obstacle.path.append(f"[{name!r}]")
        raise
    budget.leave(owner)


def _encode_masked(value: np.ma.MaskedArray[Any, Any], into: pb.Value, budget: Budget) -> None:
    budget.enter(value, 3)
    target = into.masked_array
    _encode_ndarray(value.data, target.data, budget)
    if value.mask is not np.ma.nomask:
        _encode_ndarray(np.asarray(value.mask), target.mask, budget)
    filling = fill_value_of(value)
    if filling is not None:
        _encode_ndarray(filling, target.fill_value, budget)
    target.hard_mask = bool(value.hardmask)
    budget.leave(value)


def _encode_masked_constant(_value: object, into: pb.Value, _budget: Budget) -> None:
    into.masked_array.SetInParent()


def _encode_scalar(value: np.generic, into: pb.Value, budget: Budget) -> None:
    if isinstance(value, np.str_ | np.bytes_):
        budget.check_length(f"a numpy.{type(value).__name__}", len(value), "characters")
    elif isinstance(value, np.void):
        budget.check_bytes(value.dtype.itemsize)
        if value.dtype.names is not None:
            _encode_structured(value, np.asarray(value), into, budget)
            into.structured_array.scalar = True
            return
    encode_scalar(value, into.scalar)


def _encode_graph(value: GraphInstance, into: pb.Value, budget: Budget) -> None:
    budget.enter(value, len(value))
    target = into.graph
    name = ""
    try:
        _encode(value.nodes, target.nodes, budget)
        for name in ("edges", "edge_links"):
            member = getattr(value, name)
            if member is not None:
                _encode(member, getattr(target, name), budget)
    except NoWireForm as obstacle:
        obstacle.path.append(f".{name or 'nodes'}")
        raise
    budget.leave(value)


def _encode_unencodable(value: Unencodable, into: pb.Value, _budget: Budget) -> None:
    into.unencodable.type = printable(value.type)
    into.unencodable.repr = printable(value.repr)


def _encode_other(value: Any, into: pb.Value, budget: Budget) -> None:
    # The type is asked, not the value: what isinstance() looks at may be overridden, and a dead proxy's raises.
    cls = type(value)
    # Whoever has a masked array has loaded numpy.ma. Nobody else need: it takes 5 MiB of each worker.
    ma = sys.modules.get("numpy.ma")
    if ma is not None and cls is ma.MaskedArray:
        _encode_masked(value, into, budget)
    elif ma is not None and value is ma.masked:
        _encode_masked_constant(value, into, budget)
    elif issubclass(cls, np.generic):
        if not issubclass(cls, np.void):
            raise NoWireForm(
                f"a NumPy scalar of type {type_name(value)} has no wire form; use one of NumPy's own types"
            )
        _encode_scalar(value, into, budget)  # a record of an array of them
    elif issubclass(cls, np.ndarray):
        if issubclass(cls, np.ma.MaskedArray):
            raise NoWireForm(f"a {type_name(value)} has no wire form; use numpy.ma.array(value, subok=False)")
        _encode_named(value, Nearest(np.ndarray, np.asarray(value)), into.named, budget)
    else:
        try:
            array = array_of(value)
        except NoArray as error:
            raise NoWireForm(str(error)) from error
        if array is not None:
            _encode_ndarray(array, into, budget)
        else:
            _encode_named(value, nearest(value, budget.items), into.named, budget)


def _encode_named(value: object, found: Nearest, into: pb.Named, budget: Budget) -> None:
    """Write the plain value nearest to one of a class that the other end may not have, beside the class's name."""
    level = object()  # the value itself is entered once it is a container
    budget.enter(level, 1)
    into.type = printable(remote_type(value) or type_name(value))
    into.form = found.form
    into.member = printable(found.member)
    into.fields.extend(found.fields)
    _encode_plain(value, found, into.value, budget)
    budget.leave(level)
    log_as_base(type_name(value), found.base.__name__)


def _encode_plain(value: object, found: Nearest, into: pb.Value, budget: Budget) -> None:
    # A container is told apart by the original: its copy is a new object each time round a cycle.
    base, plain = found.base, found.value
    if base is dict:
        _encode_entries(value, plain, into.dict, budget)
    elif base is list or base is tuple:
        _encode_items(value, plain, into.list if base is list else into.tuple, budget)
    elif base is set or base is frozenset:
        _encode_members(value, plain, into.set if base is set else into.frozen_set, budget)
    elif base is deque:
        _write_deque(value, plain, into.deque, budget)
    else:
        _encode(plain, into, budget)


def _encode_mapping(value: Any, into: pb.Value, budget: Budget) -> None:
    """Write a dict of Python's own that is no plain one; the other end knows these by name."""
    _encode_named(value, Nearest(dict, dict(value)), into.named, budget)


_ENCODERS: dict[type, Callable[[Any, pb.Value, Budget], None]] = {
    type(None): _encode_none,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    bytes: _encode_bytes,
    list: _encode_list,
    tuple: _encode_tuple,
    dict: _encode_dict,
    np.ndarray: _encode_ndarray,
    GraphInstance: _encode_graph,
    Unencodable: _encode_unencodable,
    set: _encode_set,
    frozenset: _encode_frozenset,
    deque: _encode_deque,
    datetime.datetime: times.encode_datetime,
    datetime.date: times.encode_date,
    datetime.time: times.encode_time,
    datetime.timedelta: times.encode_timedelta,
    **standard.ENCODERS,
    **dict.fromkeys((OrderedDict, Counter, MappingProxyType), _encode_mapping),
    **dict.fromkeys(SCALAR_TYPES, _encode_scalar),
}
