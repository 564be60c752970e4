"""Dates and times of Python's `datetime` to messages and back."""

from __future__ import annotations

import datetime
import functools
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.budget import Budget, NoWireForm
from remote_gym.wire.values.unencodable import type_name

T = TypeVar("T")

_MICROSECOND = datetime.timedelta(microseconds=1)
_NAME_LENGTH = 100  # characters of a zone's name or key
_KEY = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")


def encode_date(value: datetime.date, into: pb.Value, _budget: Budget) -> None:
    """Write a date."""
    _write_date(value, into.date)


def encode_time(value: datetime.time, into: pb.Value, _budget: Budget) -> None:
    """Write a time of day.

    Raises:
        NoWireForm: As `encode_datetime`.
    """
    _write_time(value, into.time)


def encode_datetime(value: datetime.datetime, into: pb.Value, _budget: Budget) -> None:
    """Write a date and time.

    Raises:
        NoWireForm: If its zone raises where it is asked for its offset, or has a giant name.
    """
    _write_date(value, into.datetime.date)
    _write_time(value, into.datetime.time)


def encode_timedelta(value: datetime.timedelta, into: pb.Value, _budget: Budget) -> None:
    """Write a span of time."""
    into.timedelta.days = value.days
    into.timedelta.seconds = value.seconds
    into.timedelta.microseconds = value.microseconds
    into.timedelta.SetInParent()


def _write_date(value: datetime.date, into: pb.Date) -> None:
    into.year, into.month, into.day = value.year, value.month, value.day


def _write_time(value: datetime.time | datetime.datetime, into: pb.Time) -> None:
    into.hour, into.minute, into.second, into.microsecond = value.hour, value.minute, value.second, value.microsecond
    into.fold = bool(value.fold)
    into.SetInParent()
    if value.tzinfo is not None:
        _write_zone(value, value.tzinfo, into.zone)


def _write_zone(value: datetime.time | datetime.datetime, zone: datetime.tzinfo, into: pb.Zone) -> None:
    into.SetInParent()
    try:
        offset, name = value.utcoffset(), value.tzname()
    except Exception as error:  # a zone may be anybody's
        raise NoWireForm(f"a {type_name(zone)} that raises {type(error).__name__} as a time's zone") from error
    if offset is not None:
        into.offset = offset // _MICROSECOND
    key = zone.key if type(zone) is zoneinfo.ZoneInfo else None
    if key is None and offset is None:
        raise NoWireForm(f"a time of day in the zone {type_name(zone)}, which has no offset of its own")
    if key is not None:
        into.key = _short(key)
    elif name is not None and offset is not None and name != datetime.timezone(offset).tzname(None):
        into.name = _short(name)


def _short(text: str) -> str:
    if len(text) > _NAME_LENGTH or not text.isprintable():
        raise NoWireForm(f"a time zone's name of {len(text)} characters; at most {_NAME_LENGTH} printable ones travel")
    return text


def decode_date(message: pb.Value) -> datetime.date:
    """Read a date.

    Raises:
        EncodingError: If there is no such day.
    """
    return _checked(lambda: datetime.date(*_day(message.date)))


def decode_time(message: pb.Value) -> datetime.time:
    """Read a time of day.

    Raises:
        EncodingError: If a day has none such, or its zone is none.
    """
    source = message.time
    return _checked(lambda: datetime.time(*_clock(source), tzinfo=_read_zone(source, None), fold=int(source.fold)))


def decode_datetime(message: pb.Value) -> datetime.datetime:
    """Read a date and time.

    Raises:
        EncodingError: If there is none such, or its zone is none.
    """
    source = message.datetime.time

    def build() -> datetime.datetime:
        naive: Any = (*_day(message.datetime.date), *_clock(source))
        found = datetime.datetime(*naive, fold=int(source.fold))
        return found.replace(tzinfo=_read_zone(source, found))

    return _checked(build)


def decode_timedelta(message: pb.Value) -> datetime.timedelta:
    """Read a span of time.

    Raises:
        EncodingError: If it is longer than any, or not in its usual form.
    """
    source = message.timedelta
    if source.seconds >= 86_400 or source.microseconds >= 1_000_000:
        raise EncodingError(f"a timedelta has {source.seconds} seconds and {source.microseconds} microseconds")
    return _checked(lambda: datetime.timedelta(source.days, source.seconds, source.microseconds))


def _day(message: pb.Date) -> tuple[int, int, int]:
    return message.year, message.month, message.day


def _clock(message: pb.Time) -> tuple[int, int, int, int]:
    return message.hour, message.minute, message.second, message.microsecond


def _read_zone(source: pb.Time, naive: datetime.datetime | None) -> datetime.tzinfo | None:
    if not source.HasField("zone"):
        return None
    zone = source.zone
    if len(zone.name) > _NAME_LENGTH or len(zone.key) > _NAME_LENGTH:
        raise EncodingError(f"a time zone's name or key has more than {_NAME_LENGTH} characters")
    offset = datetime.timedelta(microseconds=zone.offset) if zone.HasField("offset") else None
    found = _zone_of(zone.key) if zone.key else None
    if found is not None and (naive.replace(tzinfo=found).utcoffset() if naive else None) == offset:
        return found
    if offset is None:
        raise EncodingError(f"a time is in the zone {zone.key!r}, which is unknown here, and has no offset")
    # Also where this machine's rules for the zone are others than the sender's: the moment has to be the same.
    name = zone.name or zone.key
    return datetime.timezone(offset, name) if name else datetime.timezone(offset)


@functools.lru_cache(maxsize=64)
def _zone_of(key: str) -> datetime.tzinfo | None:
    """The zone of the system's database, if that has it.

    `zoneinfo` would go on to import the package ``tzdata`` for it, and nothing is imported on a peer's word.
    """
    if not _KEY.fullmatch(key) or not any((Path(folder) / key).is_file() for folder in zoneinfo.TZPATH):
        return None
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # another file that lies there
        return None


def _checked(build: Callable[[], T]) -> T:
    try:
        return build()
    except (ValueError, OverflowError) as error:
        raise EncodingError(f"a date or time is none: {error}") from error
