"""Virtual environments of the peers' own, under build/bench, made by uv."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from install import ROOT, environment_for_uv

FOLDER = ROOT / "build" / "bench"
TIMEOUT = 900.0


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What a virtual environment holds.

    Attributes:
        name: Of its folder.
        requirements: As for ``pip install``.
        shown: Packages whose versions are told beside the results.
    """

    name: str
    requirements: tuple[str, ...]
    shown: tuple[str, ...]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return FOLDER / self.name / "bin" / "python"


def install(wanted: Sequence[Installation]) -> dict[str, str]:
    """Make those that do not exist as they should.

    Returns:
        Why one could not be made, by its name; nothing for the others.
    """
    environment = environment_for_uv()
    reasons = {}
    for installation in wanted:
        if (reason := _install(installation, environment)) is not None:
            reasons[installation.name] = reason
            print(f"  {installation.name} cannot be installed: {reason}", flush=True)
    return reasons


def versions(installation: Installation) -> dict[str, str]:
    """Version of Python, and of the packages worth telling, in their order."""
    code = (
        "import importlib.metadata as m, json, platform, sys; "
        "print(json.dumps({'Python': platform.python_version(), **{n: m.version(n) for n in sys.argv[1:]}}))"
    )
    command = [str(installation.python), "-c", code, *installation.shown]
    found: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return found


def _install(installation: Installation, environment: Mapping[str, str]) -> str | None:
    folder = FOLDER / installation.name
    stamp = folder / "installed.sha256"
    # Our own version is in it, since an editable installation tells the one that was current when it was made.
    own = (ROOT / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(f"{installation} {sys.version} {folder}".encode() + own).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return None
    print(f"  installing {installation.name}: {', '.join(installation.requirements)}", flush=True)
    # Here, since the version matrix, which tests the rest, has no uv.
    from uv import find_uv_bin

    uv = find_uv_bin()
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
    fill = [uv, "pip", "install", "--quiet", "--python", str(installation.python), *installation.requirements]
    for command in (make, fill):
        try:
            subprocess.run(
                command, check=True, cwd=ROOT, env=environment, timeout=TIMEOUT, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return f"not done within {TIMEOUT:.0f} s"
        except subprocess.CalledProcessError as error:
            return " ".join(error.stderr.split())[:300]
    stamp.write_text(wanted, encoding="utf-8")
    return None
