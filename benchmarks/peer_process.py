"""A peer's process, seen from the runner: started with its cases, and read line by line."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

SCRIPTS = Path(__file__).with_name("peers")


def start(
    python: Path, script: str, job: Mapping[str, Any], log: IO[str], *, paced: bool = False
) -> subprocess.Popen[bytes]:
    """Start a peer.

    Args:
        python: Of the installation where it runs.
        script: Without its suffix.
        job: As `peers.peer` has it.
        log: Where its errors go.
        paced: Whether it waits for a line before each case.
    """
    # Each finds the packages of its own installation, and no others.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.Popen(
        [str(python), str(SCRIPTS / f"{script}.py"), "run", json.dumps({**job, "paced": paced})],
        stdin=subprocess.PIPE if paced else None,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def next_figures(process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any] | None:
    """The next line of figures, whatever else is printed; None if there will be no more.

    Raises:
        TimeoutError: If it does not come in time.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + timeout
    line = b""
    while True:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        # One byte at a time, since what is read ahead would hide from select. The lines are few and short.
        byte = os.read(descriptor, 1)
        if not byte:
            return None
        if byte != b"\n":
            line += byte
            continue
        if line.startswith(b'{"name"'):
            figures: dict[str, Any] = json.loads(line)
            return figures
        line = b""


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for a peer to end, then end it and all that it started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
