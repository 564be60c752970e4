"""Other Pythons, each with a Gym of its time: pyenv's interpreters where they are, with packages in a cache.

What cannot be had is skipped, and says so: no pyenv, no such interpreter, or no package index.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL_TIMEOUT = 600.0


@dataclass(frozen=True)
class Interpreter:
    """A Python of a version, and what is installed in it.

    Attributes:
        python: Its version, up to the minor one.
        library: Name and version of the Gym.
        packages: What pip installs, after tools that are old enough for it.
        alone: What it installs without their dependencies, which an index may not have for this Python.
    """

    python: str
    library: str
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.library}-py{self.python}"


_TOOLS = ("pip<24", "setuptools<60", "wheel<0.38")

OLD = (
    Interpreter("3.6", "gym 0.10", ("numpy<1.20", "six", "scipy<1.6"), ("gym==0.10.11", "pyglet<1.4", "future<1")),
    Interpreter("3.8", "gym 0.21", ("numpy<1.22", "importlib-metadata<5", "gym==0.21.0")),
    Interpreter("3.7", "gym 0.25", ("numpy<1.22", "importlib-metadata<5", "gym==0.25.2")),
    Interpreter("3.8", "gym 0.26", ("numpy<1.24", "importlib-metadata<5", "gym==0.26.2")),
    Interpreter("3.9", "gymnasium 0.26", ("numpy<1.24", "gymnasium==0.26.3")),
)
RENDERING = (
    Interpreter("3.7", "gymnasium 0.28", ("numpy<1.22", "gymnasium==0.28.1", "pygame<2.6")),
    Interpreter("3.8", "gymnasium 0.29", ("numpy<1.25", "gymnasium==0.29.1", "pygame<2.6")),
    Interpreter("3.8", "gym 0.26 that renders", ("numpy<1.24", "importlib-metadata<5", "gym==0.26.2", "pygame<2.6")),
)
"""Pythons that have what CartPole draws with, too."""
SIMULATORS = {
    "retro": Interpreter("3.8", "gym-retro", ("numpy<1.22", "importlib-metadata<5", "gym==0.21.0", "gym-retro==0.8.0")),
    "procgen": Interpreter("3.8", "procgen", ("numpy<1.22", "importlib-metadata<5", "gym==0.21.0", "procgen==0.10.7")),
    "vizdoom": Interpreter("3.9", "vizdoom", ("numpy<2", "gymnasium==0.29.1", "vizdoom<1.4")),
}
"""Real ones that live in a Python of their own, by the names of their modules."""
NEW = tuple(Interpreter(python, "gymnasium", ("numpy", "gymnasium<2")) for python in ("3.13", "3.12", "3.10"))


def python_of(interpreter: Interpreter) -> str:
    """Its executable, with all that it should have; skips the test where that cannot be had."""
    found = _install(interpreter)
    if isinstance(found, Path):
        return str(found)
    pytest.skip(f"{interpreter}: {found}")


@functools.cache
def _install(interpreter: Interpreter) -> Path | str:
    """The executable, or why there is none."""
    base = _pyenvs(interpreter.python)
    if base is None:
        return f"pyenv has no Python {interpreter.python}"
    told = repr((str(base), interpreter)).encode()
    folder = _cache() / f"{interpreter.library.replace(' ', '-')}-{hashlib.sha256(told).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:  # tests of other processes want the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            commands = [[str(base), "-m", "venv", str(folder)]]
            if interpreter not in NEW:
                commands.append([*pip, *_TOOLS])
            commands.append([*pip, *interpreter.packages])
            if interpreter.alone:
                commands.append([*pip, "--no-deps", *interpreter.alone])
            for command in commands:
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
                except subprocess.TimeoutExpired:
                    return f"{command[1:]} took over {INSTALL_TIMEOUT:g} s"
                if done.returncode != 0:
                    return f"{' '.join(command[1:])}: {done.stderr[-500:]}"
            (folder / "complete").touch()
    return python


def _pyenvs(version: str) -> Path | None:
    """The newest of pyenv's interpreters of a minor version."""
    pyenv = shutil.which("pyenv")
    roots = [Path(os.environ["PYENV_ROOT"])] if "PYENV_ROOT" in os.environ else []
    if pyenv is not None:
        told = subprocess.run([pyenv, "root"], capture_output=True, text=True, timeout=60, check=False).stdout.strip()
        roots.append(Path(told))
    roots.append(Path.home() / ".pyenv")
    for root in roots:
        found = sorted(root.glob(f"versions/{version}.*/bin/python"), key=lambda path: len(str(path)))
        if found:
            return found[-1]
    return None


def _cache() -> Path:
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "remote_gym_tests" / "interpreters"
