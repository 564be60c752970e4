"""OpenSSH's server on loopback, with keys made for a test; skips loudly where it cannot be had."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from waiting import wait_until

HOST = "box"
"""The server's name in the configuration of `Sshd.folder`'s ``ssh``."""


@dataclass
class Sshd:
    """A server.

    Attributes:
        process: Its main process, which forks one for each connection.
        folder: Holds a program ``ssh``, which is OpenSSH's with a configuration of its own.
        configuration: That.
        log: What it has logged.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    configuration: Path
    log: Path


@contextlib.contextmanager
def sshd(folder: Path, **settings_of_test: object) -> Iterator[Sshd]:
    """Run a server until the block ends.

    Args:
        folder: For its files.
        **settings_of_test: Lines of its configuration.
    """
    program = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    client = shutil.which("ssh")
    if program is None or client is None:
        pytest.skip("needs OpenSSH's client and server: apt-get install openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it gives up its privileges
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    public = (folder / "host.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "authorized_keys").write_bytes((folder / "user.pub").read_bytes())
    settings = {
        "ListenAddress": "127.0.0.1",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "PrintMotd": "no",
        **settings_of_test,
    }
    configuration = folder / "ssh_config"
    configuration.write_text(
        f"Host {HOST}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
        # What users have, and what may not come in the way.
        f"  ControlMaster auto\n  ControlPath {folder}/%C\n  ControlPersist 60\n"
    )
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {client} -F {configuration} "$@"\n')
    wrapper.chmod(0o755)
    log = folder / "sshd.log"
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", os.devnull, "-p", str(port), "-h", str(folder / "host"), *options],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:
        wait_until(lambda: b"listening" in log.read_bytes() or process.poll() is not None)
        if process.poll() is not None:
            pytest.skip(f"sshd does not run here: {log.read_text()}")
        yield Sshd(process, folder / "bin", configuration, log)
    finally:
        process.kill()
        process.wait(30)


def spoil(host: Sshd, fault: str) -> None:
    """Have OpenSSH's client not get in any more.

    Args:
        host: A server, whose files are changed.
        fault: ``"key"``, ``"unknown host"``, ``"changed host"`` or ``"no server"``.
    """
    folder = host.configuration.parent
    known_hosts = folder / "known_hosts"
    if fault == "key":
        (folder / "authorized_keys").write_text("")
    elif fault == "unknown host":
        known_hosts.write_text("")
    elif fault == "changed host":
        known = known_hosts.read_text().split(" ")[0]
        other = (folder / "user.pub").read_text().split(" ")[1]
        known_hosts.write_text(f"{known} ssh-ed25519 {other}\n")
    elif fault == "no server":
        host.configuration.write_text(re.sub(r"Port \d+", "Port 1", host.configuration.read_text()))
    else:
        raise ValueError(fault)
