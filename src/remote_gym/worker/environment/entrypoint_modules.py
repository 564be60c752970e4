"""Entrypoint files as modules: under which names they are imported, and what they can import.

Threads of one process share its modules. The import system itself loads an entrypoint file, once: a second
thread waits until the first has finished, and never sees half of it; a failed import is tried again. A file that
changes later is read again by new processes only, since a reload would tear the classes of running environments
from their name. For the same reason, give environments whose helper modules share names a process each.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import multiprocessing  # noqa: F401 - makes `_MAIN` an alias when it loads, which must come first
import os
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_MAIN = "__mp_main__"
"""The name that `multiprocessing` gives a script's module in the processes that it spawns."""


def search(root: Path, file: Path | None) -> None:
    """Let modules be imported that are below a root, or beside an entrypoint.

    The root and its ``src`` folder come first. The entrypoint's own folder comes last, so that no file there hides an
    installed module from others.

    Args:
        root: Resolved.
        file: The entrypoint, resolved; None for none.
    """
    with _FINDER.lock:
        for folder in (root, root / "src"):
            if folder.is_dir() and str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
        if file is not None:
            for folder in (_packages(root, file)[0], file.parent):
                if str(folder) not in sys.path:
                    sys.path.append(str(folder))
    importlib.invalidate_caches()


def load(root: Path, file: Path, *, own_process: bool) -> ModuleType:
    """Import an entrypoint file, after `search`; the same module for the same file.

    Its name is the one that an ``import`` would find it by, its packages included, so that relative imports work and
    whatever unpickles its classes, such as a process that it spawns, finds it as well. Where that name is another
    module's, or is none, as ``env.v2`` is not, `multiprocessing` takes the file of a worker for its main script.

    Args:
        root: Resolved.
        file: Resolved.
        own_process: Whether the process is this entrypoint's alone.

    Raises:
        BaseException: Whatever the file raises.
    """
    return _FINDER.load(root, file, own_process=own_process)


class _EntrypointFinder(MetaPathFinder):
    """Lets the import system find entrypoint files by name, and so lend its locks and its clean-up to them.

    A file keeps the name that it was given first.
    """

    def __init__(self) -> None:
        # Held while names are chosen and sys.path changes, never while code of an entrypoint runs.
        self.lock = threading.Lock()
        self._files: dict[str, Path] = {}
        self._names: dict[Path, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        return importlib.util.spec_from_file_location(fullname, file) if file else None

    def load(self, root: Path, file: Path, *, own_process: bool) -> ModuleType:
        with self.lock:
            if self not in sys.meta_path:
                sys.meta_path.insert(0, self)
            if file not in self._names:
                name = self._choose(root, file, own_process=own_process)
                self._names[file], self._files[name] = name, file
        return importlib.import_module(self._names[file])

    def _choose(self, root: Path, file: Path, *, own_process: bool) -> str:
        folder, packages = _packages(root, file)
        if packages and _is_free(packages[0], folder / packages[0] / "__init__.py"):
            if file.name == "__init__.py":
                return ".".join(packages)
            return ".".join([*packages, file.stem if "." not in file.stem else _safe_name(file)])
        if "." not in file.stem and _is_free(file.stem, file):
            return file.stem
        if not own_process or _MAIN in self._files:
            return _safe_name(file)
        # As in a script that Python was started with: what it spawns runs the file again, under the same name. Which
        # is, once `multiprocessing` is loaded, an alias of the worker's own main module, that nobody needs.
        sys.modules["__main__"].__file__ = str(file)
        sys.modules.pop(_MAIN, None)
        return _MAIN


_FINDER = _EntrypointFinder()


def _packages(root: Path, file: Path) -> tuple[Path, list[str]]:
    """The packages that a file is in, outermost first, and the folder that they are in; none goes beyond the root."""
    folder, names = file.parent, list[str]()
    while folder != root and "." not in folder.name and (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, names


def _is_free(name: str, file: Path) -> bool:
    """Whether importing a module that is in no package finds `file` or nothing at all."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return True
        origin = spec.origin
    return origin is not None and Path(origin).resolve() == file


def _safe_name(file: Path) -> str:
    stem = "".join(character if character.isalnum() else "_" for character in file.stem)
    return f"remote_gym_entrypoint_{stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
