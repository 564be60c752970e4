"""How many values an encoded message holds, counted before protobuf makes objects of them.

Two bytes of a message can be a value of a list, for which protobuf takes fifty. So a large message is walked first, as
its descriptor says, and only its frame is looked at: a field of bytes costs the same whatever it holds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.wire.varint import VarintError, read_varint

VALUE = 4
"""Cost of a value: four units make one of `Limits.items`. So does any other message of a repeated field."""
TEXT = 1
"""Cost of a text or a bytes of a repeated field, such as a name in a dict."""
PACKED = 4
"""Bytes of packed numbers that cost one unit: protobuf makes eight of each."""

COUNTED = frozenset({"remote_gym.v1.Value", "remote_gym.v1.Space"})
"""Messages that hold their like, and so are counted wherever they are."""

DEPTH = 100
"""Levels of messages, as protobuf itself has it."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SCALARS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT,
    FieldDescriptor.CPPTYPE_BOOL,
    FieldDescriptor.CPPTYPE_ENUM,
}


@dataclass
class _Shape:
    """Structure of a kind of message, as a walk needs it.

    Attributes:
        costs: By the numbers of fields: the units that each occurrence costs, or minus the bytes that cost one.
        kinds: By the numbers of fields: the shape of the messages that they hold.
        free: How many messages, of those that cost nothing, one of this kind can hold at once. More of them come of
            fields that are there twice, or of a oneof that changes its mind; each leaves an object behind, and counts.
    """

    costs: dict[int, int]
    kinds: dict[int, _Shape]
    free: int


def check_items(
    message_class: type[Message], data: bytes | memoryview, limits: Limits, fields: int | None = None
) -> None:
    """Refuse a message that holds too many values, before it is parsed.

    Whether it can be parsed is not found out here.

    Args:
        message_class: What it is to be.
        data: The encoded message.
        limits: Bounds on its values.
        fields: How many fields it may have, those that hold no value among them, which cost the walk as much; None for
            any number.

    Raises:
        EncodingError: If there are more than `Limits.items`, or `fields`.
    """
    try:
        _walk(_shape_of(message_class.DESCRIPTOR), data, limits.items, len(data) if fields is None else fields)
    except (VarintError, IndexError) as error:
        raise EncodingError(f"{len(data)} bytes are no {message_class.__name__} message: they end early") from error


def _walk(shape: _Shape, data: bytes | memoryview, items: int, fields: int) -> None:
    fields_left = fields
    left, costs, kinds, free = VALUE * items, shape.costs, shape.kinds, shape.free
    position, end = 0, len(data)
    outer: list[tuple[dict[int, int], dict[int, _Shape], int, int]] = []
    while True:
        if position >= end:
            if position > end:
                raise EncodingError(f"a message of {len(data)} bytes is damaged: a field ends after what holds it")
            if not outer:
                return
            costs, kinds, free, end = outer.pop()
            continue
        fields_left -= 1
        if fields_left < 0:
            raise EncodingError(f"a message has more than {fields:,} fields")
        # One byte is what most varints are, and a call costs more than all the rest.
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = read_varint(data, position - 1)
        wire_type = tag & 7
        if wire_type == _LENGTH:
            size = data[position]
            position += 1
            if size >= 0x80:
                size, position = read_varint(data, position - 1)
            number = tag >> 3
            cost = costs.get(number)
            if cost is None:
                position += size
                continue
            if cost > 0:
                left -= cost
            elif cost < 0:
                left -= size // -cost
            elif free:
                free -= 1
            else:
                left -= VALUE
            if left < 0:
                raise EncodingError(f"a message holds more than {items} values (Limits.items)")
            inner = kinds.get(number)
            if inner is None:
                position += size
                continue
            if position + size > end:
                raise EncodingError(f"a message of {len(data)} bytes is damaged: a field ends after what holds it")
            if len(outer) == DEPTH:
                raise EncodingError(f"a message is nested deeper than {DEPTH} levels")
            outer.append((costs, kinds, free, end))
            costs, kinds, free, end = inner.costs, inner.kinds, inner.free, position + size
        elif wire_type == _VARINT:
            while data[position] >= 0x80:
                position += 1
            position += 1
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:
            raise EncodingError(f"a message of {len(data)} bytes is damaged: there is no wire type {wire_type}")


@functools.cache
def _shape_of(descriptor: Any) -> _Shape:  # one of protobuf's, whose stubs know several kinds
    return _make_shape(descriptor, {})


def _make_shape(descriptor: Any, made: dict[str, _Shape]) -> _Shape:
    if descriptor.full_name in made:
        return made[descriptor.full_name]
    shape = made[descriptor.full_name] = _Shape({}, {}, 0)
    choices = set()
    for field in descriptor.fields:
        repeated = _is_repeated(field)
        if field.message_type is not None:
            counted = repeated or field.message_type.full_name in COUNTED
            shape.costs[field.number] = VALUE if counted else 0
            shape.kinds[field.number] = _make_shape(field.message_type, made)
            if not counted:
                choices.add(field.number if field.containing_oneof is None else field.containing_oneof.name)
        elif repeated:
            shape.costs[field.number] = -PACKED if field.cpp_type in _SCALARS else TEXT
    shape.free = len(choices)
    return shape


def _is_repeated(field: Any) -> bool:
    # `label` is deprecated from protobuf 6.32 on, and warns; before 6.30 there is nothing else.
    found = getattr(field, "is_repeated", None)
    return bool(found if found is not None else field.label == FieldDescriptor.LABEL_REPEATED)
