"""Messages to values."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import standard, times
from remote_gym.wire.values.arrays import checked_shape, decode_array, decode_scalar
from remote_gym.wire.values.named import Member, Record, mark_tuple, marked
from remote_gym.wire.values.nearest import BASES, are_field_names
from remote_gym.wire.values.structured import build_masked, build_structured
from remote_gym.wire.values.unencodable import Unencodable

_COLLIDING_KEYS = 1000


def decode_value(message: pb.Value, limits: Limits) -> Any:
    """Read a value. Arrays in it are writable and own their memory.

    Raises:
        EncodingError: If the message is none that `encode_value` could have written, or exceeds the limits.
    """
    return _decode(message, _Decoding(limits))


class _Decoding:
    """Budget that one call of `decode_value` may still read."""

    __slots__ = ("depth", "items", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.items = limits.items - 1
        self.depth = 0

    def enter(self, size: int) -> None:
        self.depth += 1
        if self.depth > self.limits.depth:
            raise EncodingError(f"a value is nested deeper than {self.limits.depth} levels (Limits.depth)")
        self.items -= size
        if self.items < 0:
            raise EncodingError(f"a message holds more than {self.limits.items} values (Limits.items)")


def _decode(message: pb.Value, state: _Decoding) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise EncodingError("a value is of no kind that this release knows; have the same one at both ends")
    return _DECODERS[kind](message, state)


def _decode_big_integer(message: pb.Value, state: _Decoding) -> int:
    _check_received("an int", len(message.big_integer), state)
    return int.from_bytes(message.big_integer, "little", signed=True)


def _decode_text(message: pb.Value, state: _Decoding) -> str:
    text = message.text
    _check_received("a str", len(text), state)
    return text


def _decode_surrogate_text(message: pb.Value, state: _Decoding) -> str:
    try:
        text = message.surrogate_text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise EncodingError(f"a surrogate_text is no UTF-8: {error.reason} at byte {error.start}") from error
    _check_received("a str", len(text), state)
    return text


def _decode_items(items: Sequence[pb.Value], state: _Decoding) -> list[Any]:
    state.enter(len(items))
    values = [_decode(item, state) for item in items]
    state.depth -= 1
    return values


def _decode_list(message: pb.Value, state: _Decoding) -> list[Any]:
    return _decode_items(message.list.items, state)


def _decode_tuple(message: pb.Value, state: _Decoding) -> tuple[Any, ...]:
    return tuple(_decode_items(message.tuple.items, state))


def _decode_dict(message: pb.Value, state: _Decoding) -> dict[Any, Any]:
    source = message.dict
    names, keys, values = source.names, source.keys, source.values
    if len(names) + len(keys) != len(values) or (names and keys):
        raise EncodingError(
            f"a dict has {len(names)} names, {len(keys)} keys and {len(values)} values; "
            "it has to have as many values as names, or as keys"
        )
    state.enter(len(values))
    found = [_decode(value, state) for value in values]
    if names:
        _check_received("a str", max(map(len, names)), state)
        entries = dict(zip(names, found, strict=True))
        if len(entries) != len(names):
            raise EncodingError("a dict has a name twice")
    else:
        entries = dict_of([_decode(key, state) for key in keys], found)
    state.depth -= 1
    return entries


def dict_of(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """A dict of as many keys as values.

    Raises:
        EncodingError: If a key cannot be one or is there twice, or too many keys have the same hash.
    """
    found = dict(zip(_distinct(keys, "a dict has a key"), values, strict=True))
    if len(found) != len(keys):
        raise EncodingError("a dict has a key twice")
    return found


def are_distinct(messages: Iterable[pb.Value], limits: Limits) -> bool:
    """Whether values, once they are read, can be keys of one dict.

    Raises:
        EncodingError: If one cannot be read.
    """
    try:
        values = [decode_value(message, limits) for message in messages]
        return len(set(_distinct(values, "a set has an item"))) == len(values)
    except EncodingError:
        return False


def _distinct(keys: list[Any], what: str) -> list[Any]:
    """The keys, none of which lacks a hash, and not too many of which share one."""
    try:
        hashes = Counter(map(hash, keys))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise EncodingError(f"{what} that cannot be one: {error}") from error
    # Numbers can be chosen so that their hashes are equal, which would take quadratic time.
    if len(keys) > _COLLIDING_KEYS and max(hashes.values()) > _COLLIDING_KEYS:
        raise EncodingError(f"{what} of the same hash as more than {_COLLIDING_KEYS} others")
    return keys


def _decode_members(items: Sequence[pb.Value], state: _Decoding) -> set[Any]:
    members = _distinct(_decode_items(items, state), "a set has an item")
    found = set(members)
    if len(found) != len(members):
        raise EncodingError("a set has an item twice")
    return found


def _decode_deque(message: pb.Value, state: _Decoding) -> deque[Any]:
    source = message.deque
    length = source.max_length if source.HasField("max_length") else None
    if length is not None and not len(source.items) <= length < 2**63:
        raise EncodingError(f"a deque has {len(source.items)} items and a max_length of {length}")
    return deque(_decode_items(source.items, state), length)


def _decode_object_array(message: pb.Value, state: _Decoding) -> NDArray[Any]:
    source = message.object_array
    pointer_size = np.dtype(object).itemsize
    shape = checked_shape(source.shape, pointer_size, state.limits)
    items = _decode_items(source.items, state)
    array = np.empty(shape, object)
    if array.size != len(items):
        raise EncodingError(f"{len(items)} items do not make an array of shape {shape}")
    flat = array.reshape(-1)
    for index, item in enumerate(items):  # one by one: NumPy would look into lists and arrays among them
        flat[index] = item
    return array


def _decode_graph(message: pb.Value, state: _Decoding) -> GraphInstance:
    source = message.graph
    state.enter(3)
    graph = GraphInstance(
        nodes=_decode(source.nodes, state),
        edges=_decode(source.edges, state) if source.HasField("edges") else None,
        edge_links=_decode(source.edge_links, state) if source.HasField("edge_links") else None,
    )
    state.depth -= 1
    return graph


def _decode_structured(message: pb.Value, state: _Decoding) -> Any:
    source = message.structured_array
    columns = _decode_items(source.columns, state)
    return build_structured(source, columns, state.limits)


def _decode_masked(message: pb.Value, state: _Decoding) -> Any:
    source = message.masked_array
    if not source.HasField("data"):
        return np.ma.masked
    state.enter(3)
    data, mask, fill_value = (
        _decode(getattr(source, name), state) if source.HasField(name) else None
        for name in ("data", "mask", "fill_value")
    )
    state.depth -= 1
    return build_masked(data, mask, fill_value, source.hard_mask)


# Dicts of Python's own, known by their names: nothing but these is made for a name.
_MAPPINGS: dict[str, Callable[[dict[Any, Any]], Any]] = {
    f"{cls.__module__}.{cls.__qualname__}": cls for cls in (OrderedDict, Counter, MappingProxyType)
}


def _decode_named(message: pb.Value, state: _Decoding) -> Any:
    source = message.named
    _check_received("a class's name", max(len(source.type), len(source.member)), state)
    state.enter(1)
    value = _decode(source.value, state)
    state.depth -= 1
    build = _NAMED.get(source.form)
    if build is None:
        raise EncodingError(f"an instance of {source.type!r:.100} is of form {source.form}, which is unknown here")
    return build(source, value, state)


def _build_subclass(source: pb.Named, value: Any, _state: _Decoding) -> Any:
    base = type(value)
    if base is dict and source.type in _MAPPINGS:
        return _MAPPINGS[source.type](value)
    if base not in BASES:
        raise EncodingError(f"an instance of {source.type!r:.100} arrives as a {base.__name__}, which has no subclass")
    attributes = {"name": source.member, "value": value} if source.member else {}
    return marked(base, value, source.type, attributes)


def _build_tuple(source: pb.Named, value: Any, state: _Decoding) -> Any:
    fields = list(source.fields)
    if type(value) is not tuple or len(value) != len(fields) or not are_field_names(fields):
        raise EncodingError(f"a named tuple {source.type!r:.100} has no names for its items, or such as it cannot have")
    _check_received("a field's name", max(map(len, fields), default=0), state)
    return mark_tuple(value, source.type, fields)


def _build_record(source: pb.Named, value: Any, _state: _Decoding) -> Record:
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise EncodingError(f"a record {source.type!r:.100} has no dict of its fields")
    return Record(source.type, value)


_NAMED: dict[int, Callable[[pb.Named, Any, _Decoding], Any]] = {
    pb.Named.SUBCLASS: _build_subclass,
    pb.Named.NAMED_TUPLE: _build_tuple,
    pb.Named.RECORD: _build_record,
    pb.Named.MEMBER: lambda source, value, _state: Member(source.type, source.member, value),
}


def _check_received(what: str, length: int, state: _Decoding) -> None:
    limit = state.limits.text_length
    if length > limit:
        raise EncodingError(f"{what} of length {length} is over the limit of {limit} (Limits.text_length)")


def _simple(decode: Callable[[pb.Value, Limits], Any]) -> Callable[[pb.Value, _Decoding], Any]:
    return lambda message, state: decode(message, state.limits)


_DECODERS: dict[str, Callable[[pb.Value, _Decoding], Any]] = {
    "none": lambda _message, _state: None,
    "boolean": lambda message, _state: message.boolean,
    "integer": lambda message, _state: message.integer,
    "big_integer": _decode_big_integer,
    "number": lambda message, _state: message.number,
    "text": _decode_text,
    "surrogate_text": _decode_surrogate_text,
    "binary": lambda message, _state: message.binary,
    "list": _decode_list,
    "tuple": _decode_tuple,
    "dict": _decode_dict,
    "array": lambda message, state: decode_array(message.array, state.limits),
    "scalar": lambda message, state: decode_scalar(message.scalar, state.limits),
    "object_array": _decode_object_array,
    "graph": _decode_graph,
    "unencodable": lambda message, _state: Unencodable(message.unencodable.type, message.unencodable.repr),
    "set": lambda message, state: _decode_members(message.set.items, state),
    "frozen_set": lambda message, state: frozenset(_decode_members(message.frozen_set.items, state)),
    "deque": _decode_deque,
    "date": lambda message, _state: times.decode_date(message),
    "time": lambda message, _state: times.decode_time(message),
    "datetime": lambda message, _state: times.decode_datetime(message),
    "timedelta": lambda message, _state: times.decode_timedelta(message),
    "structured_array": _decode_structured,
    "masked_array": _decode_masked,
    "named": _decode_named,
    **{kind: _simple(decode) for kind, decode in standard.DECODERS.items()},
}
