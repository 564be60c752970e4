"""Faults that strike a client's process: killed or stopped, and its session taken over by another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.kinds import Connection, Unexpected
from faults.player import Journal
from faults.serving import PATIENCE, SERVER, Server
from waiting import wait_until

TESTS = Path(__file__).parents[1]
PLAYED = 20
"""Steps before the blow, and after it."""


class Clients:
    """Two client programs, the second of which takes over from the first.

    Args:
        folder: For what they write.
        server: Theirs.
        ledger: Its environments'.
        number: Of the client, for the numbers of its actions.
        seed: Of their payloads.
    """

    def __init__(self, folder: Path, server: Server, ledger: Path, number: int, seed: int) -> None:
        self._server = server
        self._ledger = ledger
        self._number = number
        self._seed = seed
        self._ticket = folder / f"ticket-{number}"
        self._errors = folder / f"client-{number}.err"
        self.journal = Journal(folder / f"client-{number}")
        self.second = Journal(folder / f"client-{number}-second")

    def kill(self, connection: Connection) -> None:
        """The first is killed at whatever it is doing."""
        with self._program(connection, self.journal, "play") as first:
            self._wait(self.journal, first)
            first.kill()
            first.wait(PATIENCE)
        self._take_over(connection, self.journal)

    def stop(self, connection: Connection) -> None:
        """The first stands still, the second takes over, and then the first goes on: it is refused."""
        with self._program(connection, self.journal, "play") as first:
            self._wait(self.journal, first)
            os.kill(first.pid, signal.SIGSTOP)
            shutil.copy(self.journal.path, self.second.path)
            self._take_over(connection, self.second)
            os.kill(first.pid, signal.SIGCONT)
            try:
                status = first.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Unexpected("the client whose session was taken over and closed plays on") from None
            if status != 1:
                raise Unexpected(f"the client whose session was taken over ended with status {status}")

    def set_clock(self, connection: Connection, library: Path) -> None:
        """The clock of a client is set while it plays."""
        clock = self._ticket.with_suffix(".clock")
        clock.write_text("+0\n")
        with self._program(connection, self.journal, "play", faked_clock(library, clock)) as first:
            for offset in ("+21600\n", "-200\n"):
                self._wait(self.journal, first)
                clock.write_text(offset)
            self._wait(self.journal, first)
            first.kill()
            first.wait(PATIENCE)
        self._take_over(connection, self.journal)

    def _wait(self, journal: Journal, program: subprocess.Popen[bytes]) -> None:
        """For some steps more than there are."""
        there = len(journal.records()) + 2 * PLAYED
        wait_until(lambda: len(journal.records()) > there or program.poll() is not None, PATIENCE)
        if program.poll() is not None:
            raise Unexpected(f"the client ended with status {program.poll()}; see {self._errors}")

    def _take_over(self, connection: Connection, journal: Journal) -> None:
        with self._program(connection, journal, str(PLAYED)) as second:
            try:
                status = second.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Unexpected("the client that took over hangs") from None
        if status:
            raise Unexpected(f"the client that took over ended with status {status}; see {self._errors}")

    @contextmanager
    def _program(
        self, connection: Connection, journal: Journal, what: str, environ: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        settings: dict[str, Any] = {
            "journal": str(journal.path),
            "ticket": str(self._ticket),
            "name": self._number,
            # Another's than the first one's, or they would be the same actions.
            "seed": self._seed + (journal is self.second),
            "environment": {
                "url": SERVER,
                "port": self._server.port,
                "remote_args": {"entrypoint_kwargs": {"ledger": str(self._ledger)}},
                "client_credentials_paths": list(map(str, self._server.certificates.of_client)),
                "connection": connection,
                "step_timeout": PATIENCE / 2,
            },
        }
        paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": paths, **(environ or {})}
        command = [sys.executable, "-m", "faults.player", json.dumps(settings), what]
        with self._errors.open("ab") as errors:
            program = subprocess.Popen(command, env=environment, stderr=errors)
        try:
            yield program
        finally:
            program.kill()
            program.wait(PATIENCE)


def faked_clock(library: Path, file: Path) -> dict[str, str]:
    """Environment variables by which a process's wall clock is what the file says."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        # Nobody can set the monotonic one, which is what deadlines are counted on.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
