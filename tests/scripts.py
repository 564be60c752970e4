"""Scripts that fork, each in a process of its own: this one has gRPC's servers and channels of other tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from waiting import scaled


def run_script(
    code: str, *, timeout: float = 60.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, and leave nothing of it: neither it nor what it has forked, which may hang.

    Args:
        code: Python's.
        timeout: Seconds on a quiet machine.
        environment: Variables beside those of this process.

    Raises:
        subprocess.TimeoutExpired: If it, or one that it has forked, did not end in time; with what they have printed.
    """
    command = [sys.executable, "-W", "ignore", "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, **pipes, text=True, env=variables, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=scaled(timeout))
        finally:
            with contextlib.suppress(ProcessLookupError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
