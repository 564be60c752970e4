"""Other systems' own clients, each in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waiting import scaled

HERE = Path(__file__).parent
Peer = Callable[..., Any]


@pytest.fixture(scope="session")
def peer() -> Callable[[str, tuple[str, ...], str], Peer]:
    """Installs what a script needs, and gives what runs the script and returns what it prints."""
    pytest.importorskip("uv", reason="only the development set-up can install them")
    from installations import Installation, install

    def installed(name: str, requirements: tuple[str, ...], script: str) -> Peer:
        installation = Installation(name=name, requirements=requirements, shown=())
        if reasons := install([installation]):
            pytest.skip(f"{name} cannot be installed: {reasons}")

        def run(*arguments: Any) -> Any:
            command = [str(installation.python), str(HERE / script), json.dumps(arguments)]
            # Where their clients look for a proxy, which is none of this machine's.
            environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=scaled(120.0), env=environment, cwd=HERE
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout.splitlines()[-1])

        return run

    return installed


@pytest.fixture(scope="session")
def started() -> Callable[[str, tuple[str, ...], str], Peer]:
    """Installs what a script needs, and gives what starts it for a block, which gets the line that it prints first."""
    pytest.importorskip("uv", reason="only the development set-up can install them")
    from installations import Installation, install

    def installed(name: str, requirements: tuple[str, ...], script: str) -> Peer:
        installation = Installation(name=name, requirements=requirements, shown=())
        if reasons := install([installation]):
            pytest.skip(f"{name} cannot be installed: {reasons}")

        @contextlib.contextmanager
        def run(*arguments: str) -> Iterator[str]:
            command = [str(installation.python), str(HERE / script), *arguments]
            environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE) as process:
                try:
                    assert process.stdout is not None
                    line = process.stdout.readline().strip()  # the process ends, and so does this, if it cannot start
                    assert line, "it did not start"
                    yield line
                finally:
                    process.kill()

        return run

    return installed
