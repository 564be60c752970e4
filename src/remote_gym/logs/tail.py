"""Last lines of a file of a log."""

from __future__ import annotations

import os
from pathlib import Path

from remote_gym.logs.escaping import printable

_LONGEST = 256 * 2**10
"""Bytes from the file's end that are looked at."""


def last_lines(file: Path, lines: int) -> str:
    """The last lines of a file, without control characters; empty where there is none."""
    try:
        with file.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _LONGEST))
            text = log.read(_LONGEST).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(map(printable, text.splitlines()[-lines:])) if lines > 0 else ""
