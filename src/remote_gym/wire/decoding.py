"""Messages to values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import GraphInstance
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.arrays import checked_shape, decode_array, decode_scalar
from remote_gym.wire.unencodable import Unencodable

_COLLIDING_KEYS = 1000


def decode_value(message: pb.Value, limits: Limits) -> Any:
    """Read a value. Arrays in it are writable and own their memory.

    Raises:
        EncodingError: If the message is none that `encode_value` could have written, or exceeds the limits.
    """
    return _decode(message, _Decoding(limits))


class _Decoding:
    """What one call of `decode_value` may still read."""

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
        raise EncodingError("a value is of no kind that this version knows")
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
    try:
        hashes = Counter(map(hash, keys))
    except TypeError as error:
        raise EncodingError(f"a dict has a key that cannot be one: {error}") from error
    # Numbers can be chosen so that their hashes are equal, which would take quadratic time.
    if len(keys) > _COLLIDING_KEYS and max(hashes.values()) > _COLLIDING_KEYS:
        raise EncodingError(f"a dict has more than {_COLLIDING_KEYS} keys of the same hash")
    found = dict(zip(keys, values, strict=True))
    if len(found) != len(keys):
        raise EncodingError("a dict has a key twice")
    return found


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


def _check_received(what: str, length: int, state: _Decoding) -> None:
    limit = state.limits.text_length
    if length > limit:
        raise EncodingError(f"{what} of length {length} is over the limit of {limit} (Limits.text_length)")


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
}
