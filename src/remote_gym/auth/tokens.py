"""Bearer tokens, by which clients can be known instead of by certificates, and the file that holds their digests.

A file has a line for each token, ``NAME = "sha256:..."``; empty lines, and those that begin with ``#``, do not count.
A name may stand on several lines, so that a new token can be handed out before the old one is deleted.

Digests are plain SHA-256: slow and salted ones protect passwords, which can be guessed, and a token of 256 random bits
cannot.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from remote_gym.errors import ConfigError
from remote_gym.tls import Reloaded

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,100}")
_LINE = re.compile(rf'({_NAME.pattern})\s*=\s*"sha256:([0-9a-f]{{64}})"')

SETTLE = 1.0
"""Seconds after which a token counts no more that was taken out of the file, which may just be being written again."""

Entry = tuple[str, bytes]


class Tokens:
    """Names, and the digests of their tokens.

    Args:
        entries: The name and digest of each token.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.names = frozenset(name for name, _ in entries)

    def name_of(self, token: str) -> str | None:
        """Name that a token belongs to; None if to none. Takes as long for one as for another."""
        digest = _digest(token)
        found = None
        for name, expected in self.entries:
            if hmac.compare_digest(digest, expected):
                found = name
        return found

    def digests_of(self, name: str) -> list[bytes]:
        """Digests of the tokens of that name."""
        return [digest for other, digest in self.entries if other == name]


class TokenFile:
    """The tokens of a file that may change, as somebody sees it who looks at it now and then.

    A file that is half written lacks some, and has none too many, as no half of a line is one. So those that are new
    count at once, and those that are gone no more after `SETTLE`, each by its own time: the file may go on changing.
    Several threads may share it.

    Args:
        path: The file.
        before: For a reader that looks rarely, what was known of it lately. What is gone counts no more as soon as the
            file's own time is further back than `SETTLE`, and not before: between two looks, each amid a change, the
            file may have been whole for hours. (Who looks often ends what a file that never rests allows no more.)
    """

    def __init__(self, path: Path, before: Tokens | None = None) -> None:
        self._path = path
        self._looks_rarely = before is not None
        self._file = Reloaded([path], functools.partial(read_tokens, path), before=before)
        self._newest = before or Tokens([])
        self._gone: dict[Entry, float] = {}  # since when, on time.monotonic, for `SETTLE`
        self._lock = threading.Lock()

    def get(self) -> Tokens:
        """Tokens that count now.

        Raises:
            ConfigError: As `read_tokens`, if the file never was one.
        """
        with self._lock:
            newest, now = self._file.get(), time.monotonic()
            if newest is not self._newest:
                known, there = {**dict.fromkeys(self._newest.entries, now), **self._gone}, set(newest.entries)
                self._gone = {entry: since for entry, since in known.items() if entry not in there}
                self._newest = newest
            if self._gone and self._looks_rarely:
                self._gone = {} if self._is_old() else self._gone
            elif self._gone:
                self._gone = {entry: since for entry, since in self._gone.items() if now - since < SETTLE}
            return Tokens([*newest.entries, *self._gone]) if self._gone else newest

    def _is_old(self) -> bool:
        try:
            # Or of a clock that goes ahead of ours, by which nothing would ever be old.
            return abs(time.time() - self._path.stat().st_mtime) >= SETTLE
        except OSError:
            return False


def read_tokens(path: Path) -> Tokens:
    """Read a file of digests.

    Raises:
        ConfigError: If it cannot be read, or naming the line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}, given as the token file, cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}, given as the token file, is no text in UTF-8: {error}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            # Without the line itself: somebody may have put the token there.
            raise ConfigError(f"{path}, line {number}: use NAME = \"sha256:...\", as 'remote-gym token' writes it")
        entries.append((match[1], bytes.fromhex(match[2])))
    return Tokens(entries)


def add_token(path: Path, name: str) -> str:
    """Make a token, and add its digest to a file, which is made, readable by its owner only, if there is none.

    Returns:
        The token, which is kept nowhere.

    Raises:
        ConfigError: If the name or the file cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the token's name is {name!r}; use up to 100 letters, digits and any of _ . @ -")
    if path.exists():
        read_tokens(path)  # says so, if it is another file
    token = secrets.token_urlsafe(32)
    line = f'{name} = "sha256:{_digest(token).hex()}"\n'
    try:
        # Appended in one piece, so that a server that reads it meanwhile finds no half of it.
        with open(path, "a+b", buffering=0, opener=functools.partial(os.open, mode=0o600)) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
    except OSError as error:
        raise ConfigError(f"{path}, given as the token file, cannot be written: {error.strerror}") from error
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
