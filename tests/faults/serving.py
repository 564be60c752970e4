"""A server in a process of its own, on ports that it keeps when it is started again; and its certificates."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from faults.doors import Authorizer
from leftovers import USER_FOLDER
from processes import PROC, descendants, is_alive
from remote_gym.certs import create_all
from remote_gym.certs.cfssl import BUILT_IN_PROFILES, CertificateRequest
from remote_gym.certs.create import CLIENT_IDENTITY, load_authority
from remote_gym.certs.hosts import parse_hosts
from remote_gym.certs.signing import certificate_pem, generate_key, key_pem, sign_certificate
from remote_gym.cli.wording import LISTENS_ON
from waiting import wait_until

if TYPE_CHECKING:
    from faults.hub import Hub

ENTRYPOINT = Path(__file__).with_name("ledger_environment.py")
SERVER, HUB = "127.0.0.2", "127.0.0.3"
SERVER_NAME = "sim-home"
"""Name of all servers, by which a hub leads to its one."""
CLIENTS = [f"127.0.1.{number}" for number in range(1, 129)]
"""Addresses that proxies listen on."""
OUTSIDE_EPHEMERAL = (10_000, 32_000)
"""Port numbers that Linux does not choose by itself."""
PATIENCE = 60.0
"""Seconds for what takes one on an idle machine."""
LEASE = 45.0
"""Seconds: longer than a client may take to notice that its connection is half open, and to connect anew."""

_ROTATION = threading.Lock()


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority, for a server at every address used here and for its clients."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Certificates:
        create_all(folder, [SERVER, SERVER_NAME, *CLIENTS], hub_hosts=[HUB])
        return cls(folder)

    def copy(self, folder: Path) -> Certificates:
        """Others' own files of the same authority, who find them whole whenever they start."""
        shutil.copytree(self.folder, folder)
        return Certificates(folder)

    @property
    def of_client(self) -> tuple[Path, Path, Path]:
        return self.folder / "ca.pem", self.folder / "client.pem", self.folder / "client-key.pem"

    def rotate(self, role: str) -> None:
        """Replace certificate and key of ``"server"`` or ``"client"``, one file after the other as people do."""
        authority = load_authority(self.folder / "ca.pem", self.folder / "ca-key.pem")
        request = CertificateRequest(common_name=f"rotated {role}")
        key = generate_key(request.key)
        names = parse_hosts([SERVER, SERVER_NAME, *CLIENTS] if role == "server" else [CLIENT_IDENTITY])
        now = datetime.now(timezone.utc).replace(microsecond=0)
        certificate = sign_certificate(request, names, key.public_key(), authority, BUILT_IN_PROFILES[role], now)
        with _ROTATION:  # lanes may rotate at once
            for name, content in ((f"{role}-key.pem", key_pem(key)), (f"{role}.pem", certificate_pem(certificate))):
                new = self.folder / f"{name}.new"
                new.touch(0o600)
                new.write_bytes(content)
                new.replace(self.folder / name)


def hold_ports(host: str, count: int, candidates: Iterator[int] | None = None) -> list[socket.socket]:
    """Ports that nobody is given but a server that is told them, whether it runs or not, for as long as these are open.

    Linux lets one socket listen where others are bound that do not, if all of them have SO_REUSEADDR, as those of
    servers do. It is set after these are bound: without it they get no port that somebody listens on or holds.

    Args:
        host: Whose ports.
        count: How many.
        candidates: Numbers to try; at random unless given.
    """
    held: list[socket.socket] = []
    for port in candidates or iter(lambda: random.SystemRandom().randrange(*OUTSIDE_EPHEMERAL), None):
        sock = socket.socket()
        try:
            sock.bind((host, port))
        except OSError:
            sock.close()
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.append(sock)
        if len(held) == count:
            break
    return held


class NotStarted(Exception):
    """A server did not come to listen."""


class Server:
    """``remote-gym serve`` of the ledger environment, started and ended in every way.

    It holds its ports from now on until `let_go`, those too that it does not listen on yet, or any more.

    Args:
        folder: For its log and temporary files.
        certificates: Its own, and its clients'.
        environ: Further environment variables.
        log: Where its log goes; None for a file in the folder.
        clock: File that sets its clock, by libfaketime; None for the real time.
        doors: Whom it lets in; None for all who have a certificate.
        flags: Further ones of ``remote-gym serve``.
        guests: Processes of its environments that live elsewhere; None if they do not.
        hub: The one that it is reached through; None if it is not.
    """

    def __init__(
        self,
        folder: Path,
        certificates: Certificates,
        environ: dict[str, str] | None = None,
        log: Path | None = None,
        clock: Path | None = None,
        doors: Authorizer | None = None,
        flags: tuple[str, ...] = (),
        guests: Callable[[], set[int]] | None = None,
        hub: Hub | None = None,
    ) -> None:
        self.clock = clock
        self.guests = guests
        self.hub = hub
        self._doors = doors
        self._flags = flags + (() if doors is None else doors.flags) + (() if hub is None else ("--hub", hub.address))
        self.certificates = certificates
        self._held = hold_ports(SERVER, 1)
        [self.port] = (sock.getsockname()[1] for sock in self._held)
        self.temporary = folder / "server-tmp"
        self.temporary.mkdir(parents=True)
        self.stderr = log or folder / "server.log"
        self.stdout = folder / "server.out"
        self._environ = {**os.environ, "TMPDIR": str(self.temporary), **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def doors(self) -> Authorizer:
        """Those of a server that has some."""
        assert self._doors is not None
        return self._doors

    @property
    def reached_at(self) -> tuple[str, int]:
        """Where clients connect to."""
        return (SERVER, self.port) if self.hub is None else (HUB, self.hub.port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it listens."""
        command = [
            *(
                sys.executable,
                "-m",
                "remote_gym",
                "serve",
                "--no-check",
                "--entrypoint",
                ENTRYPOINT.name,
                "--url",
                SERVER,
            ),
            *("--port", self.port, "--lease", LEASE, "--close-timeout", 2),
            *("--certificate", self.certificates.folder / "server.pem"),
            *("--key", self.certificates.folder / "server-key.pem", "--ca", self.certificates.folder / "ca.pem"),
            *self._flags,
        ]
        with self.stdout.open("wb") as stdout, self.stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                list(map(str, command)), cwd=ENTRYPOINT.parent, env=self._environ, stdout=stdout, stderr=stderr
            )
        wait_until(lambda: self.says(LISTENS_ON) or self._process.poll() is not None, PATIENCE)
        if (status := self._process.poll()) is not None:
            last = self.stderr.read_text().splitlines()[-3:] if self.stderr.is_file() else []
            raise NotStarted(f"the server ended with status {status}; see {self.stderr}, which ends: {last}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def says(self, text: str) -> bool:
        """Whether it has printed that."""
        return text in self.stdout.read_text()

    def kill(self) -> None:
        """End it at once; its workers have to end by themselves."""
        if self._process is None or self._process.poll() is not None:
            return
        left = descendants(self.pid)
        self._process.kill()
        self._process.wait(PATIENCE)
        wait_until(lambda: not any(map(is_alive, left)), PATIENCE)

    def stop(self) -> list[str]:
        """End it as an operator would.

        Returns:
            What is left of it, a sentence each.
        """
        if self._process is None or self._process.poll() is not None:
            return []
        left = descendants(self.pid)
        self._process.terminate()
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return ["the server did not stop"]
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not any(map(is_alive, left)), 10.0)
        leaks = [f"process {pid} outlived the server" for pid in left if is_alive(pid)]
        leaks += [f"{path} was left behind" for path in self.temporary.rglob("*") if path.name != USER_FOLDER]
        return leaks + ([f"the server ended with status {status}"] if status else [])

    def let_go(self) -> None:
        """Let others have its ports. Call it last."""
        for sock in self._held:
            sock.close()

    def workers(self) -> set[int]:
        """Processes that are neither the server nor its forkserver."""
        return {pid for child in descendants(self.pid) for pid in descendants(child)}

    def descriptor_count(self) -> int:
        return len(list((PROC / str(self.pid) / "fd").iterdir()))

    def thread_count(self) -> int:
        return len(list((PROC / str(self.pid) / "task").iterdir()))
