"""The process of `remote_gym.launch` for an image that runs a whole server: it keeps the container.

As `remote_gym.server.launched` it is given a private folder and a descriptor for its answer, and ends when its standard
input does, and the container with it. It ends with the container, too, and with its status.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_gym.certs import create_all
from remote_gym.errors import ConfigError
from remote_gym.ipc.owner import this_process
from remote_gym.ipc.running import recorded
from remote_gym.ipc.variables import for_other_pythons
from remote_gym.launched.answer import answer, refusal, take_order
from remote_gym.launched.order import LOG
from remote_gym.server.launched import LOG_INTERVAL, shorten
from remote_gym.server.placement import containers
from remote_gym.server.placement.commands import remove_command
from remote_gym.server.placement.place import Place, read_place
from remote_gym.server.placement.programs import run
from remote_gym.server.placement.resources import Resources, read_resources
from remote_gym.server.placement.serving import (
    HOST_NETWORK,
    LOOPBACK,
    STOP_TIMEOUT,
    port_command,
    read_port,
    serve_command,
    stop_command,
)

PORT_TIMEOUT = 10.0
"""Seconds in which an engine says where a port is."""
PORT_INTERVAL = 0.2
"""Seconds between two questions for it: an image may have to be pulled first."""


def main() -> None:
    """Run the container until it ends, or standard input does."""
    folder, answers = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(answers, False)
    order = take_order(folder)
    try:
        keeper = _Keeper(folder, order)
    except ConfigError as error:
        answer(answers, refusal(error))
        sys.exit(1)
    sys.exit(asyncio.run(keeper.keep(answers)))


class _Keeper:
    """One container, of one launch.

    Args:
        folder: A private one, with the log. Certificates are made there.
        order: ``arguments``, which are some of `RemoteArgs`, and ``serves``, the port.

    Raises:
        ConfigError: If it cannot work.
    """

    def __init__(self, folder: Path, order: Mapping[str, Any]) -> None:
        self._folder = folder
        self._port: int = order["serves"]
        self._place: Place = read_place(order["arguments"], field="image", where="launch")
        self._resources: Resources = read_resources(order["arguments"], field="image", where="launch", is_here=True)
        if self._place.engine == "apptainer":
            raise ConfigError(
                "is 'apptainer', which publishes no port; use 'docker' or 'podman', or leave serves out",
                field="engine",
                where="engine",
            )
        if shutil.which(self._place.engine) is None:
            raise ConfigError(
                f"needs {self._place.engine!r}, which is no program in PATH; install it, or name another engine",
                field="engine",
                where="engine",
            )
        self._has_to_end = asyncio.Event()
        self._is_alone = False  # once the program is gone
        self._is_published = False  # once it may have environments to close
        self._name = f"remote_gym-serves-{secrets.token_hex(8)}"
        self._certs = _make_certificates(folder)

    async def keep(self, answers: int) -> int:
        """Run it, say where it is once it is published, and leave nothing.

        Returns:
            Its exit status; 0 where it was ended here.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(0, self._read_input)
        loop.add_signal_handler(signal.SIGTERM, self._has_to_end.set)  # of ``remote-gym servers stop``
        shortening = asyncio.create_task(self._keep_the_log_short())
        try:
            await containers.remove_abandoned(self._place, None)
            command = serve_command(
                self._place,
                name=self._name,
                owner=str(this_process()),
                port=self._port,
                certs=self._certs,
                resources=self._resources,
            )
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                env={**for_other_pythons(), **self._resources.variables},
                start_new_session=True,
            )
            try:
                return await self._follow(process, answers)
            finally:  # whatever has struck: else the container would be left to the next launch
                await self._end(process)
        finally:
            shortening.cancel()
            if self._is_alone:  # else the program may yet look at the log, and removes it
                shutil.rmtree(self._folder, ignore_errors=True)

    async def _follow(self, process: asyncio.subprocess.Process, answers: int) -> int:
        """Say where the container is once it is published, and wait until it ends or has to.

        Args:
            process: The engine's client that runs it.
            answers: As for `keep`.

        Returns:
            As `keep`.
        """
        ended, asked = asyncio.create_task(process.wait()), asyncio.create_task(self._has_to_end.wait())
        published = asyncio.create_task(self._published())
        try:
            await asyncio.wait({ended, asked, published}, return_when=asyncio.FIRST_COMPLETED)
            if published.done() and not ended.done():
                port = published.result()
                self._is_published = True
                with recorded("launch", f"{LOOPBACK}:{port}", [str(self._place.image)]):
                    answer(answers, {"url": LOOPBACK, "port": port, "certs": str(self._folder / "client")})
                    await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else 0
        finally:
            for task in (published, asked, ended):
                task.cancel()

    def _read_input(self) -> None:
        if not os.read(0, 1024):  # its end, which is the program's
            asyncio.get_running_loop().remove_reader(0)
            self._is_alone = True
            self._has_to_end.set()

    async def _keep_the_log_short(self) -> None:
        while True:
            shorten(self._folder / LOG)
            await asyncio.sleep(LOG_INTERVAL)

    async def _published(self) -> int:
        """The port of this machine, once there is one. This has no end of its own: the program has a deadline."""
        while self._place.network != HOST_NETWORK:
            found = await run(port_command(self._place, self._name, self._port), PORT_TIMEOUT)
            if found.status == 0 and (port := read_port(found.output)) is not None:
                return port
            await asyncio.sleep(PORT_INTERVAL)
        return self._port

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None and self._is_published:
            await run(stop_command(self._place, self._name), STOP_TIMEOUT + containers.REMOVE_TIMEOUT)
        # The engine's client first: what has not begun yet, as while an image is pulled, does not then.
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await containers.remove(remove_command(self._place, [self._name]), is_settled=True)


def _make_certificates(folder: Path) -> Path:
    """Make an authority for this launch alone, whose key nobody keeps.

    Returns:
        The server's folder; the client's is ``client``, beside it.
    """
    made = folder / "made"
    create_all(made, ["localhost", LOOPBACK])
    for role in ("server", "client"):
        (folder / role).mkdir()
        shutil.copy(made / "ca.pem", folder / role)
        for file in (f"{role}.pem", f"{role}-key.pem"):
            (made / file).rename(folder / role / file)
    shutil.rmtree(made)
    # Others cannot enter the folder that this one is in, and in a container its user may be any.
    certs = folder / "server"
    certs.chmod(0o755)
    for path in certs.iterdir():
        path.chmod(0o644)
    return certs
