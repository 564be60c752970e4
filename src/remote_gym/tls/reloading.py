"""Files that may change while a program runs, loaded again when they do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from remote_gym.errors import ConfigError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Reloaded(Generic[T]):
    """What was last loaded well from some files.

    Several threads may share it.

    Args:
        paths: The files.
        load: Loads them; raises `ConfigError` where they do not fit.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._paths = tuple(paths)
        self._load = load
        self._state: tuple[object, ...] | None = None
        self._loaded: list[T] = []
        # Held while files are read, so that a change is loaded once, and told once if it does not load.
        self._lock = threading.Lock()

    def get(self) -> T:
        """What the files hold now; or, where that does not load, what they held before.

        The same object as long as nothing else has been loaded. Files that are replaced one after the other do not fit
        in between: that is logged, and the next call after the last of them loads them.

        Raises:
            ConfigError: If they never loaded.
        """
        with self._lock:
            # Before it is loaded: what changes meanwhile is noticed by the next call.
            state = tuple(_state_of(path) for path in self._paths)
            if self._loaded and state == self._state:
                return self._loaded[0]
            try:
                self._loaded[:] = [self._load()]
            except ConfigError as error:
                if not self._loaded:
                    raise
                logger.error("a changed file does not load, so what was loaded before stays in use: %s", error)
            else:
                if self._state is not None:
                    logger.info("loaded anew: %s", ", ".join(map(str, self._paths)))
            self._state = state
            return self._loaded[0]


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What changes with a file, be it written to, replaced, or a link that leads elsewhere now; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
