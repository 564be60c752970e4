"""Values to messages.

Encoding fills a message in place, since to build one apart would copy each level of it once more. One pure
function per type does it, found by the value's exact type: this runs for every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.arrays import (
    SCALAR_TYPES,
    array_obstacle,
    encode_array,
    encode_scalar,
)
from remote_gym.wire.unencodable import (
    Unencodable,
    describe,
    log_as_base,
    log_unencodable,
    printable,
    short_repr,
    type_name,
)

_ONLY_STR = {str}


def encode_value(value: object, into: pb.Value, *, strict: bool, limits: Limits, path: str = "value") -> None:
    """Write a value into an empty message.

    Instances of subclasses of int, float, str, bytes, list, tuple and dict are written as those.

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
        _encode(value, into, _Encoding(strict, limits))
    except _NoWireForm as obstacle:
        raise EncodingError(f"{path}{''.join(reversed(obstacle.path))}: {obstacle.reason}") from None


class _NoWireForm(Exception):
    """Why the value at `path`, innermost part first, has no wire form."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class _Encoding:
    """What one call of `encode_value` has come across so far."""

    __slots__ = ("entered", "items", "limits", "strict")

    def __init__(self, strict: bool, limits: Limits) -> None:
        self.strict = strict
        self.limits = limits
        self.items = limits.items - 1
        self.entered: set[int] = set()

    def enter(self, container: object, size: int) -> None:
        if id(container) in self.entered:
            raise _NoWireForm(f"this {type_name(container)} contains itself")
        if len(self.entered) >= self.limits.depth:
            raise _NoWireForm(f"nested deeper than {self.limits.depth} levels (Limits.depth)")
        if size > self.items:
            raise _NoWireForm(f"more than {self.limits.items} values in one message (Limits.items)")
        self.items -= size
        self.entered.add(id(container))

    def leave(self, container: object) -> None:
        self.entered.remove(id(container))


def _encode(value: object, into: pb.Value, state: _Encoding) -> None:
    try:
        _ENCODERS.get(type(value), _encode_other)(value, into, state)
    except _NoWireForm as obstacle:
        if state.strict:
            raise
        _encode_unencodable(describe(value), into, state)
        log_unencodable(type_name(value), obstacle.reason)


def _encode_none(_value: None, into: pb.Value, _state: _Encoding) -> None:
    into.none.SetInParent()


def _encode_bool(value: bool, into: pb.Value, _state: _Encoding) -> None:
    into.boolean = value


def _encode_int(value: int, into: pb.Value, state: _Encoding) -> None:
    if -(2**63) <= value < 2**63:
        into.integer = value
        return
    size = value.bit_length() // 8 + 1  # one bit more, for the sign
    _check_length("an int", size, "bytes", state)
    into.big_integer = value.to_bytes(size, "little", signed=True)


def _encode_float(value: float, into: pb.Value, _state: _Encoding) -> None:
    into.number = value


def _encode_str(value: str, into: pb.Value, state: _Encoding) -> None:
    _check_length("a str", len(value), "characters", state)
    try:
        into.text = value
    except UnicodeEncodeError:
        into.surrogate_text = value.encode("utf-8", "surrogatepass")


def _encode_bytes(value: bytes, into: pb.Value, state: _Encoding) -> None:
    if len(value) > state.limits.array_bytes:
        raise _NoWireForm(f"{len(value)} bytes are over the limit of {state.limits.array_bytes} (Limits.array_bytes)")
    into.binary = value


def _encode_list(value: list[Any], into: pb.Value, state: _Encoding) -> None:
    _encode_items(value, value, into.list, state)


def _encode_tuple(value: tuple[Any, ...], into: pb.Value, state: _Encoding) -> None:
    _encode_items(value, value, into.tuple, state)


def _encode_items(owner: object, items: Sequence[Any], into: pb.List | pb.ObjectArray, state: _Encoding) -> None:
    state.enter(owner, len(items))
    into.SetInParent()
    add = into.items.add
    index = 0
    try:
        for index, item in enumerate(items):  # noqa: B007 - told to the error below
            _encode(item, add(), state)
    except _NoWireForm as obstacle:
        obstacle.path.append(f"[{index}]")
        raise
    state.leave(owner)


def _encode_dict(value: dict[Any, Any], into: pb.Value, state: _Encoding) -> None:
    _encode_entries(value, value, into.dict, state)


def _encode_entries(owner: object, entries: dict[Any, Any], into: pb.Dict, state: _Encoding) -> None:
    state.enter(owner, len(entries))
    into.SetInParent()
    _encode_keys(entries, into, state)
    add = into.values.add
    key = None
    try:
        for key, item in entries.items():  # noqa: B007 - told to the error below
            _encode(item, add(), state)
    except _NoWireForm as obstacle:
        obstacle.path.append(f"[{short_repr(key)}]")
        raise
    state.leave(owner)


def _encode_keys(keys: Iterable[Any], into: pb.Dict, state: _Encoding) -> None:
    if set(map(type, keys)) == _ONLY_STR and max(map(len, keys)) <= state.limits.text_length:
        try:
            into.names.extend(keys)
            return
        except UnicodeEncodeError:
            del into.names[:]
    seen: set[bytes] = set()
    for key in keys:
        target = into.keys.add()
        try:
            _encode(key, target, state)
        except _NoWireForm as obstacle:
            obstacle.reason = f"the key {short_repr(key)} cannot travel: {obstacle.reason}"
            obstacle.path.clear()
            raise
        if target.WhichOneof("kind") == "unencodable":
            # Two keys may look alike once they are shortened; as equal keys they would not be a dict.
            while (form := target.SerializeToString()) in seen:
                target.unencodable.repr += "'"
            seen.add(form)


def _encode_ndarray(value: NDArray[Any], into: pb.Value, state: _Encoding) -> None:
    obstacle = array_obstacle(value, state.limits)
    if obstacle is not None:
        raise _NoWireForm(obstacle)
    if value.dtype.kind != "O":
        encode_array(value, into.array)
        return
    target = into.object_array
    _encode_items(value, value.ravel().tolist(), target, state)
    target.shape.extend(value.shape)


def _encode_scalar(value: np.generic, into: pb.Value, state: _Encoding) -> None:
    if isinstance(value, np.str_ | np.bytes_):
        _check_length(f"a numpy.{type(value).__name__}", len(value), "characters", state)
    encode_scalar(value, into.scalar)


def _encode_graph(value: GraphInstance, into: pb.Value, state: _Encoding) -> None:
    state.enter(value, len(value))
    target = into.graph
    name = ""
    try:
        _encode(value.nodes, target.nodes, state)
        for name in ("edges", "edge_links"):
            member = getattr(value, name)
            if member is not None:
                _encode(member, getattr(target, name), state)
    except _NoWireForm as obstacle:
        obstacle.path.append(f".{name or 'nodes'}")
        raise
    state.leave(value)


def _encode_unencodable(value: Unencodable, into: pb.Value, _state: _Encoding) -> None:
    into.unencodable.type = printable(value.type)
    into.unencodable.repr = printable(value.repr)


# How an instance of a subclass becomes one of the base, whatever the subclass overrides: str() of an enum member
# that is a str, for one, is not its value.
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__index__,
    float: float.__float__,
    str: str.__str__,
    bytes: bytes,
    list: list,
    tuple: tuple,
    dict: lambda value: dict(value.items()),
}


def _encode_other(value: object, into: pb.Value, state: _Encoding) -> None:
    # The type is asked, not the value: what isinstance() looks at may be overridden, and a dead proxy's raises.
    cls = type(value)
    if issubclass(cls, np.ndarray):
        raise _NoWireForm("a subclass of numpy.ndarray has no wire form; use numpy.asarray")
    base = next((base for base in _BASES if issubclass(cls, base)), None)
    if base is None or issubclass(cls, np.generic):
        raise _NoWireForm(f"a value of type {type_name(value)} has no wire form")
    try:
        plain = _BASES[base](value)
    except Exception as error:  # a stranger's __iter__ may raise anything
        raise _NoWireForm(f"a {type_name(value)} that raises {type(error).__name__} when it is read") from error
    # A container is told apart by the original: its copy is a new object each time round a cycle.
    if base is dict:
        _encode_entries(value, plain, into.dict, state)
    elif base is list or base is tuple:
        _encode_items(value, plain, into.list if base is list else into.tuple, state)
    else:
        _ENCODERS[base](plain, into, state)
    log_as_base(type_name(value), base.__name__)


def _check_length(what: str, length: int, unit: str, state: _Encoding) -> None:
    limit = state.limits.text_length
    if length > limit:
        raise _NoWireForm(f"{what} of {length} {unit} is over the limit of {limit} (Limits.text_length)")


_ENCODERS: dict[type, Callable[[Any, pb.Value, _Encoding], None]] = {
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
    **dict.fromkeys(SCALAR_TYPES, _encode_scalar),
}
