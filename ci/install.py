"""Make .venv: the locked development set-up, every file checked against its hash, and this project, editable.

Takes no time when nothing has changed since. Uses uv where it works, for its speed, and pip where it does not.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements-dev.lock"
STAMP = VENV / "installed.sha256"
# uv reads none of pip's configuration; these are the settings without which it cannot reach the registry.
UV_NAMES = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}


def fingerprint() -> str:
    """Changes whenever .venv has to be made or filled again: another Python, place, lock or pyproject.toml."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {sys.platform} {VENV}".encode())
    for path in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def uv_requirement(lock: str) -> str:
    """The entry of uv itself in a lock file, hashes included."""
    entry = re.search(r"^uv==(?:.*\\\n)*.*", lock, re.MULTILINE)
    if entry is None:
        raise SystemExit(f"error: {LOCK.name} holds no uv; run the task 'update'")
    return entry[0] + "\n"


def uv_environment(pip_settings: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv that makes it ask the registry which ``pip config list`` names."""
    result = dict(environment)
    for line in pip_settings.splitlines():
        name, _, value = line.partition("=")
        variable = UV_NAMES.get(name.rpartition(".")[2])
        if variable is not None and variable not in environment:
            result[variable] = str(ast.literal_eval(value))
    return result


def environment_for_uv() -> dict[str, str]:
    """Our own environment, completed by `uv_environment` from this machine's configuration of pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    settings = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    return uv_environment(settings, os.environ)


def _is_usable() -> bool:
    """Whether .venv works and is of the Python that runs this."""
    code = "import sys, pip; print(sys.version_info[:2])"
    try:
        found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60)
        # Scripts in a moved environment point to where it was, so the place is checked as well.
        activate = (VENV / "bin" / "activate").read_text(encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.stdout.strip() == str(sys.version_info[:2]) and str(VENV) in activate


def _create() -> None:
    if Path(sys.prefix).resolve() == VENV:
        raise SystemExit(f"error: {VENV} has to be made again; run this with a Python outside of it")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode:
        raise SystemExit(
            f"error: {sys.executable} cannot make virtual environments; install its 'venv' module "
            "(on Debian and Ubuntu: apt install python3-venv)"
        )


def _pip(*arguments: str | Path) -> bool:
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments]
    return subprocess.run(command).returncode == 0


def _install_with_uv() -> bool:
    requirement = VENV / "uv.txt"
    requirement.write_text(uv_requirement(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
    if not _pip("--require-hashes", "--requirement", requirement):
        return False
    command: list[str | Path] = [VENV / "bin" / "uv", "pip", "sync", "--quiet", "--python", PYTHON]
    command += ["--require-hashes", LOCK]
    return subprocess.run(command, env=environment_for_uv()).returncode == 0


def main() -> None:
    """Bring .venv up to date."""
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted and _is_usable():
        return
    print(f"installing what {LOCK.name} names into {VENV.name}", flush=True)
    if not _is_usable():
        _create()
    STAMP.unlink(missing_ok=True)
    if not _install_with_uv():
        print("uv did not manage; trying pip, which takes longer", flush=True)
        if not _pip("--require-hashes", "--requirement", LOCK):
            raise SystemExit(f"error: could not install {LOCK.name}; pip says above why")
    if not _pip("--no-deps", "--no-build-isolation", "--editable", ROOT):
        raise SystemExit("error: could not install this project; pip says above why")
    STAMP.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
