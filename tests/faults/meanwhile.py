"""Doing something in another thread while a client waits, without losing what goes wrong there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def meanwhile(do: Callable[[], object], after: float = 0.0) -> Iterator[None]:
    """Do something so many seconds after the block has begun, and end when both have ended.

    Raises:
        Exception: What `do` raised, whatever the block made of it: it is the likelier cause of both.
    """
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    timer = threading.Timer(after, attempt)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        if errors:
            raise errors[0]
