"""Stand-in for an instance of a class that only the other end has: its value, and the class's name.

Nothing is imported on a peer's word, so the class itself is not there. An instance of a subclass of int arrives as an
int, a named tuple as a tuple with its names, and so on: each of a class below that also keeps the name.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np

_TYPE = "_remote_type"  # no field of a named tuple begins so, nor does an attribute of an enumeration's member


def remote_type(value: object) -> str | None:
    """The qualified name of the class that a received value has at the other end, such as ``"traffic.Phase"``.

    None where the value arrived as what it is: then ``type(value)`` says all.
    """
    if isinstance(value, Record | Member):
        return _type_of(value)
    name = getattr(value, "__dict__", {}).get(_TYPE) if isinstance(value, Marked) else None
    return name if isinstance(name, str) else None


class Record:
    """A received instance of a dataclass or of a `types.SimpleNamespace`: ``vars(record)`` are its fields.

    It cannot be changed. Two are equal if their class's name and their fields are.
    """

    __slots__ = ("__dict__", "__type")

    def __init__(self, type_name: str, fields: dict[str, Any]) -> None:
        object.__setattr__(self, "_Record__type", type_name)
        self.__dict__.update(fields)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{name!r} cannot be set: this is what arrived of a {_type_of(self)}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: this is what arrived of a {_type_of(self)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and _type_of(self) == _type_of(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((_type_of(self), tuple(vars(self).items())))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"<{_type_of(self)} ({fields})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (_type_of(self), dict(vars(self)))


class Member:
    """A received member of an enumeration: ``name`` and ``value`` are as they are there.

    Two are equal if they are the same member of a class of the same name.
    """

    __slots__ = ("__type", "name", "value")

    name: str
    value: Any

    def __init__(self, type_name: str, name: str, value: Any) -> None:
        object.__setattr__(self, "_Member__type", type_name)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{name!r} cannot be set: this is what arrived of a {_type_of(self)}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Member) or (_type_of(self), self.name) != (_type_of(other), other.name):
            return False
        # Flags that are combined have no name before Python 3.11.
        return bool(self.name) or bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((_type_of(self), self.name))

    def __repr__(self) -> str:
        return f"<{_type_of(self)}.{self.name}: {self.value!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Member, (_type_of(self), self.name, self.value)


def _type_of(value: Record | Member) -> str:
    name = getattr(value, f"_{type(value).__name__}__type")
    assert isinstance(name, str)
    return name


class Marked:
    """Base of the classes of what `marked` returns."""

    _base: type

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        base = type(self)._base
        plain = self.view(np.ndarray) if isinstance(self, np.ndarray) else _build(base, self)
        return _restore, (base, plain, dict(self.__dict__))


def marked(base: type, value: Any, type_name: str, attributes: dict[str, Any]) -> Any:
    """The value as an instance of a subclass of its own, which keeps a name and further attributes.

    Args:
        base: The plain type of which the value is. One of `BASES`.
        value: An instance of it.
        type_name: The name that `remote_type` returns.
        attributes: Others, such as a named tuple's fields. Their names do not begin with an underscore.
    """
    return _restore(base, value, {_TYPE: type_name, **attributes})


def mark_tuple(value: tuple[Any, ...], type_name: str, fields: Sequence[str]) -> Any:
    """A tuple whose items can be read by names, as a named tuple's; ``_fields`` and ``_asdict()`` are there, too."""
    attributes = {**dict(zip(fields, value, strict=True)), "_fields": tuple(fields)}
    return marked(tuple, value, type_name, attributes)


def _restore(base: type, value: Any, attributes: dict[str, Any]) -> Any:
    cls = _class_of(base)
    found = value.view(cls) if base is np.ndarray else _build(cls, value, base)
    found.__dict__.update(attributes)
    return found


@functools.cache
def _class_of(base: type) -> type:
    """A class for each of `BASES`, never for a name that a peer sends."""
    content: dict[str, Any] = {"_base": base, "__module__": __name__}
    if base is tuple:
        content["_asdict"] = _asdict
    if base is np.ndarray:
        content["__array_finalize__"] = _finalize
    return type(f"Named{base.__name__.capitalize()}", (Marked, base), content)


def _finalize(self: Any, other: Any) -> None:
    """Name an array that was made of this one, a slice or a copy, as it is named at the other end, too."""
    if isinstance(other, Marked):
        self.__dict__.update(other.__dict__)


def _asdict(self: Any) -> dict[str, Any]:
    return dict(zip(self._fields, self, strict=True))


def _build(cls: Any, value: Any, base: type | None = None) -> Any:
    build = _BUILDERS.get(base or cls)
    return cls(value) if build is None else build(cls, value)


_BUILDERS: dict[type, Callable[[Any, Any], Any]] = {
    deque: lambda cls, value: cls(value, value.maxlen),
    # Not by `combine`, which drops the fold where the class is a subclass.
    datetime: lambda cls, value: cls(*value.timetuple()[:6], value.microsecond, tzinfo=value.tzinfo, fold=value.fold),
    date: lambda cls, value: cls.fromordinal(value.toordinal()),
    time: lambda cls, value: cls(
        value.hour, value.minute, value.second, value.microsecond, tzinfo=value.tzinfo, fold=value.fold
    ),
    timedelta: lambda cls, value: cls(value.days, value.seconds, value.microseconds),
}
