"""Where guests live that are not on the server's own machine: behind OpenSSH, and in containers."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from engine import engine
from processes import descendants
from sshd import HOST, sshd


@dataclass(frozen=True)
class Host:
    """One that runs.

    Attributes:
        programs: Folder of what the server starts guests by, for its ``PATH``.
        processes: Those that its guests have.
    """

    programs: Path
    processes: Callable[[], set[int]]

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables of a server that uses it."""
        return {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def _behind_ssh(folder: Path) -> Iterator[Host]:
    with sshd(folder) as server:
        yield Host(server.folder, lambda: descendants(server.process.pid))


@contextlib.contextmanager
def _in_containers(folder: Path) -> Iterator[Host]:
    with engine(folder) as daemon:

        def processes() -> set[int]:
            with daemon.lock:
                first = [container.process for container in daemon.started]
            alive = {process.pid for process in first if process.poll() is None}
            return alive.union(*map(descendants, alive))

        yield Host(daemon.folder, processes)


_PYTHON = ("--python", shlex.quote(sys.executable))
HOSTS: dict[str, tuple[Callable[[Path], AbstractContextManager[Host]], tuple[str, ...]]] = {
    "ssh": (_behind_ssh, (*_PYTHON, "--ssh", HOST)),
    "containers": (_in_containers, (*_PYTHON, "--image", "sim:3")),
}
"""What runs them, which skips where the machine lacks it, and the server's flags, by the places of servers."""
