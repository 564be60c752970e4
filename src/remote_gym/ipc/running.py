"""Servers of this user that run on this machine: each leaves a record, a private file, for as long as it runs.

Records lie in a folder of this user's alone: below ``XDG_RUNTIME_DIR``, or `remote_gym.user_folder`. A record is named
by its server's process, as no other process is; those of processes that are gone, and of before this machine's last
start, are removed by each that looks. Those of another PID namespace, as a container's that shares the folder, are left
alone and not listed: nobody here can see whether their processes are there, or stop them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote_gym.ipc.owner import Owner, find_owner, this_process
from remote_gym.logs import get_logger
from remote_gym.user_folder import fault_of, user_folder

logger = get_logger(__name__)

_SUFFIX = ".json"
_LARGEST = 64 * 2**10
"""Bytes of a record that are read."""


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server, as its record has it.

    Attributes:
        owner: Its process.
        command: How it was started: ``"serve"`` or ``"launch"``.
        address: Where it listens, ``host:port`` or ``unix:path``.
        environments: Names, ids or files of what it serves.
        log: The file that it logs to; None where it logs to no file.
        since: When it began to listen, in seconds of Unix time.
    """

    owner: Owner
    command: str
    address: str
    environments: tuple[str, ...]
    log: str | None
    since: float


@contextlib.contextmanager
def recorded(command: str, address: str, environments: Sequence[str]) -> Iterator[None]:
    """Keep a record of this process's server until the block ends; none where no such folder can be had.

    Args:
        command: As `RunningServer` has it, like the rest.
        address: Likewise.
        environments: Likewise.
    """
    server = RunningServer(
        owner=this_process(),
        command=command,
        address=address,
        environments=tuple(environments),
        log=_log_of_this_process(),
        since=time.time(),
    )
    record = _write(server) if server.owner.start else None  # nobody could know the process again
    try:
        yield
    finally:
        if record is not None:
            _remove(record)


def running_servers() -> list[RunningServer]:
    """Servers that run, the oldest first. Records of others that are gone are removed."""
    found = []
    for folder in _places():
        if fault_of(folder) != "":
            continue
        for file in folder.glob(f"*{_SUFFIX}"):
            server = _read(file)
            if server is not None:
                found.append(server)
    return sorted(found, key=lambda server: server.since)


def unbelieved_folders() -> list[str]:
    """Why folders of records that are there are neither written to nor read, each with its path."""
    return [f"{folder} {fault}" for folder in _places() if (fault := fault_of(folder))]


def _places() -> list[Path]:
    """Folders of records, the first that can be had before the others."""
    if not hasattr(os, "getuid"):
        return []
    places = [user_folder()]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute():
        places.insert(0, Path(runtime) / "remote_gym")
    return places


def _write(server: RunningServer) -> Path | None:
    running_servers()  # which removes what is left of others
    content = json.dumps({**asdict(server), "owner": None})
    for folder in _places():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if fault_of(folder) != "":
                continue
            record = folder / f"{server.owner}{_SUFFIX}"
            # Whole or not at all: others look at any time.
            draft = folder / f"{secrets.token_hex(8)}.draft"
            try:
                draft.write_text(content)
                draft.replace(record)
            finally:
                draft.unlink(missing_ok=True)
            return record
    for fault in unbelieved_folders():
        logger.warning("'remote-gym servers' will not list this server, as no record can be kept: %s", fault)
    return None


def _remove(record: Path) -> None:
    with contextlib.suppress(OSError):
        record.unlink()


def _read(file: Path) -> RunningServer | None:
    """A record; None if it is none, another namespace's, or its process is gone, and then it is removed."""
    owner, own = find_owner(file.name), this_process()
    if owner is None or str(owner) + _SUFFIX != file.name or not own.start:
        return None
    try:
        if owner.boot == own.boot and owner.namespace != own.namespace:
            return None
        # The folder is this machine's own, so that another boot's is one of before.
        if owner.boot != own.boot or owner.is_dead():
            _remove(file)
            return None
        with file.open("rb") as opened:
            content: dict[str, Any] = json.loads(opened.read(_LARGEST))
        return RunningServer(
            owner=owner,
            command=str(content["command"]),
            address=str(content["address"]),
            environments=tuple(map(str, content["environments"])),
            log=None if content["log"] is None else str(content["log"]),
            since=float(content["since"]),
        )
    except (OSError, ValueError, TypeError, KeyError):  # another release's, or it has just been removed
        return None


def _log_of_this_process() -> str | None:
    """The file that standard error is, where it is one."""
    try:
        if not stat.S_ISREG(os.fstat(2).st_mode):
            return None
        name = os.readlink("/proc/self/fd/2")  # noqa: PTH115 - not what lies there now, but what was opened
        return name if Path(name).stat().st_ino == os.fstat(2).st_ino else None
    except OSError:
        return None
