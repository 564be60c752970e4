"""Which of a session's users makes a call, and when: what has been overtaken since must change nothing any more."""

from __future__ import annotations

import itertools
import re
import secrets
from dataclasses import dataclass

_WRITTEN = re.compile(r"([0-9a-zA-Z-]{1,64})\.([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True)
class Attempt:
    """One call of one user.

    Attributes:
        user: Chosen by it, at random, and kept as long as it has the session. No secret.
        number: Grows with each of its calls.
    """

    user: str
    number: int

    @staticmethod
    def parse(text: str) -> Attempt | None:
        """Read what was written; None for anything else, as of a client that tells nothing."""
        found = _WRITTEN.fullmatch(text)
        return None if found is None else Attempt(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{self.user}.{self.number}"


class Attempts:
    """Attempts of one user, one after another; any thread may ask for the next."""

    def __init__(self) -> None:
        self._user = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def next(self) -> Attempt:
        """A new one, newer than all before."""
        return Attempt(self._user, next(self._numbers))
