"""Files that are sent to a guest beside its entrypoint: found and read here, within bounds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from remote_gym.errors import ConfigError

MOST_FILES = 5_000
"""Files that are sent, at most."""
MOST_BYTES = 64 * 2**20
"""Bytes in all of them, at most: a simulator's own code and small assets. What is larger is mounted, or put there."""

_CACHES = frozenset({"__pycache__", "node_modules"})
"""Folders that are left out, as everything is whose name begins with a dot."""


@dataclass(frozen=True)
class Included:
    """A file that is sent.

    Attributes:
        path: Where it goes to, from the guest's folder on.
        content: What is in it.
        executable: Whether it can be run.
    """

    path: str
    content: bytes
    executable: bool


class Inclusion:
    """The files below some folders, each with its place in the guest: the one that it has below the root.

    What is outside the root goes to the top, under its own name.

    Args:
        root: The entrypoint's root; resolved.
        names: Files and folders, from the root on, or absolute.
        anywhere: Whether they may be outside the root, as those may that the server itself names.

    Raises:
        ConfigError: If one does not exist, leads out by a link, or there are too many, or too large ones.
    """

    def __init__(self, root: Path, names: Sequence[str], *, anywhere: bool) -> None:
        self._root = root
        self._files: dict[str, Path] = {}
        self._size = 0
        for name in names:
            path = Path(os.path.normpath(root / name))
            if not anywhere and not path.resolve().is_relative_to(root):
                raise ConfigError(f"include {name!r} is outside the root {str(root)!r}; use one below it")
            if path.is_dir():
                self._add_folder(path)
            elif path.exists():
                self._add(path, self._place(path))
            else:
                raise ConfigError(f"include {name!r} does not exist in {str(root)!r}; name a file or a folder")
        if len(self._files) > MOST_FILES or self._size > MOST_BYTES:
            raise ConfigError(
                f"include holds {len(self._files):,} files of {self._size:,} bytes, and at most {MOST_FILES:,} files "
                f"of {MOST_BYTES:,} bytes are sent; name less, or put them there and use there=True"
            )

    def add_entrypoint(self, file: Path) -> str:
        """Let the entrypoint be among the files, and return its place."""
        for place, path in self._files.items():
            if path.resolve() == file:
                return place
        place = self._place(file)
        self._add(file, place)
        return place

    def read(self) -> Iterator[Included]:
        """All of the files.

        Raises:
            ConfigError: If one cannot be read, or they have grown over the bounds.
        """
        left = MOST_BYTES
        for place, path in self._files.items():
            try:
                with path.open("rb") as file:
                    content = file.read(left + 1)
                    executable = bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)
            except OSError as error:
                raise ConfigError(f"{path}, which is included, cannot be read: {error.strerror}") from error
            left -= len(content)
            if left < 0:
                raise ConfigError(f"the included files have grown over {MOST_BYTES:,} bytes while they were read")
            yield Included(place, content, executable)

    def _place(self, path: Path) -> str:
        return str(PurePosixPath(path.relative_to(self._root) if path.is_relative_to(self._root) else path.name))

    def _add_folder(self, folder: Path) -> None:
        top = PurePosixPath(self._place(folder))
        within = folder.resolve()
        for parent, folders, files in os.walk(folder, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not _is_left_out(name))
            for name in folders:
                if (Path(parent) / name).is_symlink():
                    raise ConfigError(
                        f"{Path(parent) / name}, which is included, is a link to a folder; name that, too"
                    )
            for name in sorted(files):
                path = Path(parent) / name
                if not _is_left_out(name):
                    if not path.resolve().is_relative_to(within):
                        raise ConfigError(f"{path}, which is included, is a link out of {folder}; put the file there")
                    self._add(path, str(top / PurePosixPath(path.relative_to(folder))))
            if len(self._files) > 20 * MOST_FILES:  # as of a folder that nobody meant
                return

    def _add(self, path: Path, place: str) -> None:
        try:
            found = path.stat()
        except OSError as error:
            raise ConfigError(f"{path}, which is included, cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}, which is included, is neither a file nor a folder")
        other = self._files.get(place)
        if other is not None and other.resolve() != path.resolve():
            raise ConfigError(f"include has both {other} and {path}, which would be {place!r}; rename one")
        if other is None:
            self._size += found.st_size
        self._files[place] = path


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in _CACHES


def _refuse(error: OSError) -> None:
    raise ConfigError(f"{error.filename}, which is included, cannot be read: {error.strerror}") from error
