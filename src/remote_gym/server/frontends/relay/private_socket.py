"""Where gRPC's private socket is: in a folder that is this user's alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

PREFIX = "remote_gym-port-"
SOCKET = "grpc"

YOUNG = 60.0
"""Seconds that a folder is left alone in which nobody listens."""

FALLBACK = Path("/tmp")

_LONGEST_PATH = 107
"""Bytes of a Unix socket's path."""


class PrivateSocket:
    """An address for a Unix socket that other users cannot reach.

    Args:
        beside: A folder to try where the system's temporary one cannot be written, or its path is too long; None for
            no other.

    Attributes:
        folder: Where it is; empty where no folder can be written, and other users are not kept out.
        address: As `socket.connect` takes it.
        grpc_address: As gRPC writes it.
    """

    def __init__(self, beside: Path | None = None) -> None:
        places = (None, beside or FALLBACK, FALLBACK)
        self.folder = next(filter(None, map(_make_folder, places)), "")
        if self.folder:
            self.address = f"{self.folder}/{SOCKET}"
            self.grpc_address = f"unix:{self.address}"
        else:
            name = f"{PREFIX}{secrets.token_hex(16)}"
            self.address, self.grpc_address = f"\0{name}", f"unix-abstract:{name}"

    def close(self) -> None:
        """Remove the folder. Once is enough."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _make_folder(where: Path | None) -> str:
    try:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=where)
    except OSError:
        return ""
    if len(os.fsencode(folder)) + 1 + len(SOCKET) > _LONGEST_PATH:
        Path(folder).rmdir()
        return ""
    _sweep(Path(folder).parent)
    return folder


def _sweep(parent: Path) -> None:
    """Remove what is left where a server and its relay were killed at once, as in a container that was ended."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            # Other users may put there what they like: a link to a folder of ours, say, with a socket of theirs in it.
            found = folder.lstat()
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            # A younger one may be a server's that is about to listen.
            if is_ours and time.time() - found.st_mtime > YOUNG and _is_deserted(str(folder / SOCKET)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_deserted(address: str) -> bool:
    """Whether nobody listens at a Unix socket that is there."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.setblocking(False)
        try:
            trial.connect(address)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:  # its queue is full
            return False
    return False
