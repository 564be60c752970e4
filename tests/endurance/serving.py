"""A server of tiny environments in a process of its own, and what it and its workers take of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processes import PROC, descendants
from remote_gym.certs import create_all

HERE = Path(__file__).parent
MIB = 2**20

_SERVE = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))  # as of a login shell
from remote_gym import create_remote_environment_server
credentials, options = json.loads(sys.argv[1])
options["check"] = False
server = create_remote_environment_server({"entrypoint": "tiny.py"}, "localhost", 0, credentials, **options)
print(server.port, flush=True)
sys.stdin.read()
server.stop().wait(120)
"""


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        port: Its port on localhost.
        pid: Of the server itself.
        credentials: What clients connect with.
    """

    port: int
    pid: int
    credentials: tuple[Path, Path, Path]

    def workers(self) -> set[int]:
        """Processes of its workers: what the forkserver, its only child, has started."""
        forkserver = children(self.pid)
        return descendants(self.pid) - forkserver


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Served]:
    """Serve with mutual TLS until the block ends.

    Args:
        **options: Of `ServerOptions`.
    """
    with tempfile.TemporaryDirectory(prefix="remote_gym-") as folder:
        files = create_all(Path(folder), ["localhost"])
        ca = files.ca.certificate
        credentials = [str(files.server.certificate), str(files.server.private_key), str(ca)]
        command = [sys.executable, "-c", _SERVE, json.dumps([credentials, options])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # from another folder
        process = subprocess.Popen(
            command, cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield Served(port, process.pid, (ca, files.client.certificate, files.client.private_key))
        finally:
            process.stdin.close()
            try:
                process.wait(150)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def children(pid: int) -> set[int]:
    """Processes that this one itself has started."""
    return {int(child) for child in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()} | {
        int(child) for task in (PROC / str(pid) / "task").iterdir() for child in _read(task / "children").split()
    }


def memory(pid: int) -> int:
    """Bytes: its own pages, and its share of those that it has in common with others."""
    return _told(pid, "Pss:")


def private(pid: int) -> int:
    """Bytes of its own pages alone, which do not change when another process ends that shared some."""
    return _told(pid, "Private_Clean:", "Private_Dirty:")


def _told(pid: int, *names: str) -> int:
    lines = (line.split() for line in _read(PROC / str(pid) / "smaps_rollup").splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0] in names)


def descriptors(pid: int) -> int:
    """How many it has open."""
    return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())


def threads(pid: int) -> int:
    """How many it has, gRPC's own included."""
    return sum(1 for _ in (PROC / str(pid) / "task").iterdir())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return ""


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """By least squares: how much y grows with each x."""
    if len(xs) < 2 or max(xs) == min(xs):
        return 0.0
    return float(np.polyfit(np.asarray(xs, float), np.asarray(ys, float), 1)[0])


def percentiles(seconds: Sequence[float]) -> str:
    """The median and the 99th percentile of latencies, in words."""
    if not len(seconds):
        return "none"
    p50, p99 = np.percentile(seconds, (50, 99))
    return f"p50 {1e3 * p50:.2f} ms, p99 {1e3 * p99:.2f} ms"


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Look every 50 ms; whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
