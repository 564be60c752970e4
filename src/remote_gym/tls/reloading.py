"""Files that may change while a program runs, loaded again when they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger

logger = get_logger(__name__)

T = TypeVar("T")
State = tuple[tuple[int, ...] | None, ...]


class Reloaded(Generic[T]):
    """Value that was last loaded well from some files.

    Several threads may share it.

    Args:
        paths: The files.
        load: Loads them; raises `ConfigError` where they do not fit.
        settle: Seconds for which changed files have to be seen as they are before what they hold counts. For what loads
            though only half of it is written, such as a list; 0 for what then does not. For who looks often: what has
            changed is always seen twice, whatever its time, which may be by another machine's clock.
        before: What the files held lately, where that is known.
    """

    def __init__(
        self, paths: Sequence[Path], load: Callable[[], T], settle: float = 0.0, before: T | None = None
    ) -> None:
        self._paths = tuple(paths)
        self._load = load
        self._settle = settle
        self._loaded: list[T] = [] if before is None else [before]
        self._state: State = ()  # of the files, when that was loaded, or did not load
        self._changed: State = ()  # the newest that was seen since
        self._changed_at = 0.0  # on time.monotonic
        # Held while files are read, so that a change is loaded once, and told once if it does not load.
        self._lock = threading.Lock()

    def get(self) -> T:
        """Content of the files now; or, where that does not load or has not settled, their content before.

        The same object as long as nothing else has been loaded. Files that are replaced one after the other do not fit
        in between: that is logged, and the next call after the last of them loads them.

        Raises:
            ConfigError: If they never loaded.
        """
        with self._lock:
            return self._follow(self._look())

    def _follow(self, state: State) -> T:
        """Load the files again, where they are in another state than before and have settled."""
        if self._loaded and (state == self._state or not self._has_settled(state)):
            return self._loaded[0]
        try:
            # The state is from before that: what changes meanwhile is noticed by the next call.
            loaded = self._load()
        except ConfigError as error:
            if not self._loaded:
                raise
            logger.error("a changed file does not load, so what was loaded before stays in use: %s", error)
        else:
            if self._settle and self._loaded and self._look() != state:  # it may have been read while it was written
                return self._loaded[0]
            if self._loaded and loaded is not self._loaded[0]:
                logger.info("loaded anew: %s", ", ".join(map(str, self._paths)))
            self._loaded = [loaded]
        self._state = state
        return self._loaded[0]

    def _has_settled(self, state: State) -> bool:
        if not self._settle:
            return True
        if state != self._changed:
            self._changed, self._changed_at = state, time.monotonic()
        return time.monotonic() - self._changed_at >= self._settle

    def _look(self) -> State:
        return tuple(_state_of(path) for path in self._paths)


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Numbers that change with a file, be it written to, replaced, or a link that leads elsewhere; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
