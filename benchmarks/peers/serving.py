"""A peer's own server, and the proxy between the two: processes that end with the block that starts them."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from case import Case, NotHere

HOST = "127.0.0.1"
PROXY_HOST = "127.0.0.2"
"""Where the proxy listens, under the server's own port numbers: so whatever ports a server tells lead through it."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0


class Servers:
    """Servers of this peer, each in a process of its own and kept for the next case that asks for the same."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._told: dict[str, dict[str, Any]] = {}

    def start(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run this peer's ``serve`` with that job, unless it runs already; gives what it told."""
        key = json.dumps(job)
        if key not in self._told:
            _, self._told[key] = self._stack.enter_context(_child([sys.argv[0], "serve", key]))
        return self._told[key]

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class Way:
    """The way to a server.

    Attributes:
        host: To connect to.
        pids: The proxy's process, if there is one.
    """

    def __init__(self, host: str, process: subprocess.Popen[str] | None) -> None:
        self.host = host
        self.pids = set() if process is None else {process.pid}
        self._process = process

    def counted(self) -> tuple[int, int]:
        """Bytes that have passed, to the server and from it; none are counted where there is no proxy."""
        if self._process is None:
            return 0, 0
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        up, down = _line(self._process)["bytes"]
        return up, down


@contextlib.contextmanager
def way_to(case: Case, *ports: int) -> Iterator[Way]:
    """The host on which the server's ports are reached: itself, or a proxy that delays."""
    if case.rtt_ms is None:
        yield Way(HOST, None)
        return
    if not sys.platform.startswith("linux"):
        raise NotHere(f"this system has no {PROXY_HOST} without being told")
    script = Path(__file__).with_name("delay.py")
    job = {"listen": PROXY_HOST, "to": HOST, "ports": ports, "seconds": case.rtt_ms / 2000}
    with _child([str(script), json.dumps(job)]) as (process, _):
        yield Way(PROXY_HOST, process)


@contextlib.contextmanager
def _child(arguments: list[str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        yield process, _line(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    # Other packages print as well; a line of ours is a JSON object.
    while select.select([process.stdout], [], [], START_TIMEOUT)[0]:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{process.args!r} ended with {process.wait()}")
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return told
    raise RuntimeError(f"{process.args!r} said nothing within {START_TIMEOUT:.0f} s")
