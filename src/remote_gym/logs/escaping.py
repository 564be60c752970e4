"""Text that others chose, as a log or a terminal may show it."""

from __future__ import annotations

from collections.abc import Callable

LONGEST = 2_000
"""Characters of one value in a line of the log; a peer may send messages of megabytes."""

LONGEST_ESCAPED = 4 * LONGEST + 50
"""Bytes of an escaped line, where a character may take ten. A line of `LONGEST` bytes that workers print is not cut."""

PREFIX = "  | "
"""Begins each line of a record but its first, so that no text can look like a record of its own."""


class _Escapes(dict[int, str]):
    """For `str.translate`, which is quick with the characters that it has met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        shown = character if character.isprintable() or character == "\t" else repr(character)[1:-1]
        if len(self) < 2**12:
            self[code] = shown
        return shown


_ESCAPES = _Escapes()


def printable(text: str) -> str:
    """Escape control characters, newlines among them, which could forge a log's lines or command a terminal."""
    # Quick, since an environment may print megabytes: 16 KiB take 50 µs, and if all of it is binary 2 ms.
    return text if text.isprintable() else text.translate(_ESCAPES)


def shortened(text: str, longest: int = LONGEST) -> str:
    """Cut a text that is longer than that, and say how much is missing."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}... ({len(text) - longest:,} characters more)"


def indented(text: str) -> str:
    """A text of several lines, each printable and after `PREFIX`."""
    return "\n".join(PREFIX + printable(line) for line in text.split("\n"))


class Shown:
    """A value whose `str` and `repr` are printable and of bounded length, made only when they are asked for."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return self._show(str)

    def __repr__(self) -> str:
        return self._show(repr)

    def _show(self, how: Callable[[object], str]) -> str:
        try:
            shown = printable(shortened(how(self._value)))
        except Exception:  # noqa: BLE001  # the value may be an environment's exception, whose own code runs here
            return f"a {type(self._value).__name__} that cannot be shown"
        return shown if len(shown) <= LONGEST_ESCAPED else f"{shown[:LONGEST_ESCAPED]}... (more)"
