"""``remote-gym hub`` as a process of its own, which can be signalled, killed, and started again."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from waiting import wait_until


@dataclass
class RunningHub:
    """A hub's process.

    Attributes:
        process: Its standard output is read up to the port.
        port: The TCP port.
        log: File of its log.
    """

    process: subprocess.Popen[str]
    port: int
    log: Path

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until that is in its log so many times."""
        wait_until(lambda: self.log.read_text().count(text) >= count)


@contextlib.contextmanager
def running_hub(
    files: Path, log: Path, *arguments: object, url: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()
) -> Iterator[RunningHub]:
    """Run a hub until the block ends, which kills it.

    Args:
        files: Folder of ``hub.pem``, ``hub-key.pem`` and ``ca.pem``.
        log: Where its log goes.
        *arguments: Further ones of ``remote-gym hub``.
        url: Where it listens.
        port: Likewise.
        prefix: A command that runs it.
    """
    command = [*prefix, sys.executable, "-m", "remote_gym", "hub", "--certs", str(files), "--url", url]
    command += ["--port", str(port), *map(str, arguments)]
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"Listens on: .*:(\d+)\n", line)
            assert found, f"it did not start: {line}{log.read_text()}"
            yield RunningHub(process, int(found[1]), log)
        finally:
            process.kill()
