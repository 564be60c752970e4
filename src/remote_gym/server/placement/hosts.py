"""Connections to hosts by OpenSSH's client, one for each host, which a server's sessions share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from remote_gym.errors import ConfigError
from remote_gym.ipc.counters import anonymous_file
from remote_gym.ipc.owner import find_owner, this_process
from remote_gym.ipc.variables import for_other_pythons
from remote_gym.logs import get_logger
from remote_gym.logs.escaping import printable
from remote_gym.server.placement.commands import master_command
from remote_gym.transport.ssh import CONNECT_TIMEOUT
from remote_gym.transport.waiting import within

logger = get_logger(__name__)

READY_TIMEOUT = CONNECT_TIMEOUT + 20.0
"""Seconds until a host has to answer: it may take its time over a key, and its shell to start."""
MOST_BEFORE = 64 * 2**10
"""Bytes that a shell may print before it does what it is asked."""
KEPT_BYTES = 4096
"""Bytes of ssh's own words that an error repeats."""
END_TIMEOUT = 2.0
"""Seconds that a connection has to end by itself, once nothing is asked of it any more."""

_PREFIX = "remote_gym-"
_LONGEST_PATH = 107 - len("/12345678") - 17
"""Characters of a folder in which ssh can bind a control socket: it appends 17 of its own while it does."""


@dataclass(eq=False)
class _Connection:
    process: asyncio.subprocess.Process
    control: str
    errors: int  # descriptor of a file of what ssh has said

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def said(self) -> str:
        size = os.fstat(self.errors).st_size
        text = os.pread(self.errors, KEPT_BYTES, max(0, size - KEPT_BYTES)).decode("utf-8", "replace")
        return "\n".join(map(printable, text.splitlines()))


@dataclass
class Hosts:
    """Keeps the connections. Each belongs to the server, not to the session that came first, and ends with it.

    A server that is killed ends them, too: what they run there reads until its input ends. Runs on one event loop.
    """

    _folder: Path | None = None
    _connections: dict[str, _Connection] = field(default_factory=dict)
    _making: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def connect(self, host: str) -> str:
        """Be connected to a host.

        Returns:
            The path of the socket by which others use that connection.

        Raises:
            ConfigError: If it cannot be had, with ssh's own last lines.
        """
        async with self._making.setdefault(host, asyncio.Lock()):
            found = self._connections.get(host)
            if found is not None and not found.is_alive:
                logger.warning("the SSH connection to %s has ended; making another", host, details=found.said())
                await self._end(self._connections.pop(host))
                found = None
            if found is None:
                found = self._connections[host] = await self._make(host)
            return found.control

    def control(self, host: str) -> str | None:
        """The path of the socket of a connection that is there; None without."""
        found = self._connections.get(host)
        return found.control if found is not None and found.is_alive else None

    async def close(self) -> None:
        """End all connections."""
        connections, self._connections = list(self._connections.values()), {}
        await asyncio.gather(*map(self._end, connections))
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _make(self, host: str) -> _Connection:
        self._folder = self._folder or _private_folder()
        marker = secrets.token_hex(16)
        # A name of its own each: one that has ended may have left its socket, or be about to remove it.
        control = str(self._folder / secrets.token_hex(4))
        errors = anonymous_file()
        try:
            process = await asyncio.create_subprocess_exec(
                *master_command(host, control, marker),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=for_other_pythons(),
                start_new_session=True,  # Ctrl-C at a terminal is for the server, whose sessions end in order
            )
        except OSError as error:
            os.close(errors)
            raise ConfigError(f"cannot connect to {host!r}: ssh does not start: {error.strerror}") from error
        connection = _Connection(process, control, errors)
        try:
            await within(READY_TIMEOUT, _find(process, marker.encode()))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            said = connection.said()
            await self._end(connection)
            if not isinstance(error, (asyncio.TimeoutError, EOFError)):
                raise
            why = f"it took over {READY_TIMEOUT:g} s" if isinstance(error, asyncio.TimeoutError) else "it ended"
            raise ConfigError(
                f"cannot connect to {host!r} by ssh, which has to work without questions "
                f"(try: ssh -o BatchMode=yes {host} true): {said or why}"
            ) from error
        return connection

    async def _end(self, connection: _Connection) -> None:
        process = connection.process
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_TIMEOUT)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        os.close(connection.errors)


async def _find(process: asyncio.subprocess.Process, marker: bytes) -> None:
    """Read until a marker comes.

    Raises:
        EOFError: If it does not.
    """
    assert process.stdout is not None
    found = b""
    while marker not in found:
        data = await process.stdout.read(4096)
        if not data or len(found) > MOST_BEFORE:
            raise EOFError
        found += data


def _private_folder() -> Path:
    """A folder for sockets that no other user can reach; those of servers that are gone are removed."""
    base = Path(tempfile.gettempdir())
    name = f"{_PREFIX}{this_process()}-"
    if len(str(base / name)) + 8 > _LONGEST_PATH:
        base = Path("/tmp")
    for other in base.glob(f"{_PREFIX}*"):
        owner = find_owner(other.name)
        if owner is not None and owner.is_dead() and not other.is_symlink():
            shutil.rmtree(other, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=name, dir=base))
