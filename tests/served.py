"""``remote-gym serve`` as a process of its own, which can be signalled, killed, and started again."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """A server's process.

    Attributes:
        process: Its standard output is read up to the ports.
        port: 0 for a Unix socket.
        grpc_port: Of gRPC alone; 0 without one.
    """

    process: subprocess.Popen[str]
    port: int
    grpc_port: int


@contextlib.contextmanager
def served(
    *arguments: object, cwd: Path | None = None, prefix: Sequence[str] = (), log: Path | None = None
) -> Iterator[Served]:
    """Serve until the block ends, which kills what is left.

    Args:
        *arguments: Of ``remote-gym serve``; without ``--check`` nothing is created until a client asks.
        cwd: Working directory.
        prefix: A command that runs the server.
        log: Where the server's log goes.
    """
    command = [*prefix, sys.executable, "-m", "remote_gym", "serve", "--no-check", *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        errors = subprocess.DEVNULL if log is None else stack.enter_context(log.open("w"))
        process = stack.enter_context(
            subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=errors, text=True)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        printed = ""
        while "RemoteEnvironment(" not in printed:
            line = process.stdout.readline()
            assert line, f"it did not start: {printed}"
            printed += line
        yield Served(process, _port("Listens on: .*:", printed), _port("gRPC alone: port ", printed))


def _port(before: str, printed: str) -> int:
    found = re.search(rf"^{before}(\d+)$", printed, re.MULTILINE)
    return int(found[1]) if found else 0
