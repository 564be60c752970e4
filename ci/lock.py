"""Write requirements-dev.lock: exact versions, with hashes, of the group "dev" and every extra, for Python 3.10 and up.

Arguments go on to ``uv pip compile``: ``--upgrade`` takes the newest versions, ``--upgrade-package NAME`` one of them.
"""

from __future__ import annotations

import subprocess
import sys

from install import LOCK, ROOT, VENV, environment_for_uv

COMPILE = (
    "pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.10 --generate-hashes "
    # The lock is for everyone: no trace of the registry that this machine happens to use.
    "--no-emit-index-url --no-emit-find-links --quiet"
)


def main(arguments: list[str]) -> int:
    """Lock; returns the exit status of uv."""
    remember = ["--custom-compile-command", "python3 ci/task.py update"]
    command = [str(VENV / "bin" / "uv"), *COMPILE.split(), *remember, "--output-file", LOCK.name, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment_for_uv()).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
