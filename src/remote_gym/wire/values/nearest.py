"""The nearest plain value to an instance of a class that the other end does not have."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.budget import NoWireForm
from remote_gym.wire.values.named import Marked, Member, Record
from remote_gym.wire.values.unencodable import type_name


class Nearest(NamedTuple):
    """Part of an instance that travels, beside its class's name."""

    base: type
    """The exact type of `value`; of a path, the nearest that is one of Python's own."""
    value: Any
    form: pb.Named.Form = pb.Named.SUBCLASS
    fields: tuple[str, ...] = ()
    member: str = ""


# How an instance of a subclass becomes one of the base, whatever the subclass overrides: str() of an enum member
# that is a str, for one, is not its value. A datetime is a date, too, so it comes first.
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__index__,
    float: float.__float__,
    str: str.__str__,
    bytes: bytes,
    list: list,
    tuple: tuple,
    dict: lambda value: dict(value.items()),
    set: set,
    frozenset: frozenset,
    deque: lambda value: deque(value, value.maxlen),
    complex: lambda value: complex(value.real, value.imag),
    bytearray: bytearray,
    datetime: lambda value: datetime(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    ),
    date: lambda value: date(value.year, value.month, value.day),
    time: lambda value: time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold),
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
    Decimal: Decimal,
    Fraction: lambda value: Fraction(value.numerator, value.denominator),
    PurePath: lambda value: _path_type(value)(str(value)),
}

BASES = frozenset({*_BASES, np.ndarray, PosixPath, WindowsPath, PurePosixPath, PureWindowsPath})
"""Types of which a class that the other end lacks may be a subclass."""


def nearest(value: object, most: int) -> Nearest:
    """The plain value nearest to an instance of any class but those that have a wire form themselves.

    Args:
        value: The instance.
        most: Items that a collection of a stranger's class may have.

    Raises:
        NoWireForm: If there is none, or the instance raises when it is read.
    """
    # The type is asked, not the value: what isinstance() looks at may be overridden, and a dead proxy's raises.
    cls = type(value)
    try:
        found = _of_subclass(cls, value) or _of_fields(cls, value) or _of_collection(cls, value, most)
    except NoWireForm:
        raise
    except Exception as error:  # a stranger's __iter__ may raise anything
        raise NoWireForm(f"a {type_name(value)} that raises {type(error).__name__} when it is read") from error
    if found is None:
        raise NoWireForm(f"a value of type {type_name(value)} has no wire form")
    return found


def _of_subclass(cls: type, value: Any) -> Nearest | None:
    base = next((base for base in _BASES if issubclass(cls, base)), None)
    if base is None:
        return None
    plain = _BASES[base](value)
    if base is PurePath:
        base = type(plain)
    if base is tuple and (fields := _field_names(value, plain)) is not None:
        return Nearest(base, plain, pb.Named.NAMED_TUPLE, fields)
    if issubclass(cls, Marked):
        return Nearest(base, plain, member=value.__dict__.get("name", ""))
    return Nearest(base, plain, member=_member_name(value) if issubclass(cls, Enum) else "")


def _field_names(value: Any, items: tuple[Any, ...]) -> tuple[str, ...] | None:
    names = getattr(value, "_fields", None)
    is_named = type(names) is tuple and len(names) == len(items) and are_field_names(names)
    return names if is_named else None


def are_field_names(names: Sequence[Any]) -> bool:
    """Whether a named tuple can have such fields."""
    are_names = all(type(name) is str and name.isidentifier() and not name.startswith("_") for name in names)
    return are_names and len(set(names)) == len(names)


def _of_fields(cls: type, value: Any) -> Nearest | None:
    if cls is Record:
        return Nearest(dict, dict(vars(value)), pb.Named.RECORD)
    if cls is Member:
        return Nearest(object, value.value, pb.Named.MEMBER, member=value.name)
    if issubclass(cls, Enum):
        return Nearest(object, value._value_, pb.Named.MEMBER, member=_member_name(value))
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
        return Nearest(dict, fields, pb.Named.RECORD)
    if issubclass(cls, SimpleNamespace):
        return Nearest(dict, dict(vars(value)), pb.Named.RECORD)
    return None


def _member_name(value: Any) -> str:
    name = value._name_
    return name if type(name) is str else ""


def _of_collection(cls: type, value: Any, most: int) -> Nearest | None:
    base = next((base for kind, base in _COLLECTIONS.items() if issubclass(cls, kind)), None)
    if base is None:
        return None
    if len(value) > most:  # before it is read: one of a stranger's may well be computed, and endless
        raise NoWireForm(f"more than {most} values in one message (Limits.items)")
    plain = {key: value[key] for key in value} if base is dict else base(value)
    return Nearest(base, plain)


_COLLECTIONS: dict[type, type] = {Mapping: dict, Set: set, Sequence: list}


def _path_type(value: PurePath) -> type[PurePath]:
    if isinstance(value, Path):
        return type(Path())
    return PureWindowsPath if isinstance(value, PureWindowsPath) else PurePosixPath
