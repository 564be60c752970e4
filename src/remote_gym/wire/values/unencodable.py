"""Stand-in for a value that has no wire form."""

from __future__ import annotations

import functools
import itertools
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass

from remote_gym.logs import get_logger

_logger = get_logger(__name__)

REPR_LENGTH = 200
"""Characters that remain of a value's ``repr``."""


@dataclass(frozen=True)
class Unencodable:
    """Arrives in the place of a value that has no wire form.

    Attributes:
        type: Qualified name of the value's class, such as ``"pathlib.PosixPath"``.
        repr: Its ``repr``, shortened to about 200 characters.
    """

    type: str
    repr: str


def printable(text: str) -> str:
    """The text with each lone surrogate, which no message can hold, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def type_name(value: object) -> str:
    """Module and qualified name of a value's class, such as ``"builtins.set"``."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


class _ShortRepr(reprlib.Repr):
    """Looks only as deep into a value as it will show of it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = REPR_LENGTH


def short_repr(value: object) -> str:
    """A value's ``repr``, shortened, or a placeholder where it raises."""
    try:
        text = _ShortRepr().repr(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's __repr__ may raise anything
        text = f"<{type(error).__name__} in repr>"
    if len(text) > REPR_LENGTH:
        text = f"{text[: REPR_LENGTH - 3]}..."
    return printable(text)


def describe(value: object) -> Unencodable:
    """Sum a value up by its type and its ``repr``."""
    return Unencodable(printable(type_name(value)), short_repr(value))


def log_unencodable(name: str, reason: str) -> None:
    """Say, once per type, that a value of it does not arrive."""
    if next(_occurrences(name)) == 0:
        _logger.warning("A value of type %s arrives as Unencodable: %s. Further ones are not logged.", name, reason)


def log_as_base(name: str, base: str) -> None:
    """Say, once per type, that its values arrive as a base class's."""
    if next(_occurrences(name)) == 0:
        _logger.info("A value of type %s arrives as %s. Further ones are not logged.", name, base)


# Bounded, so that classes made at run time cannot fill the memory; a type pushed out is logged again.
@functools.lru_cache(maxsize=1024)
def _occurrences(_name: str) -> Iterator[int]:
    return itertools.count()
