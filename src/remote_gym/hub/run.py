"""A hub, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable

from remote_gym.address import grpc_address
from remote_gym.auth.expiry import OwnCertificates
from remote_gym.config import HubOptions, TlsFiles
from remote_gym.hub.listener import HubListener
from remote_gym.logs import flush, get_logger
from remote_gym.protocol.hub import APPLICATION_PROTOCOL
from remote_gym.tls import Reloaded, file_paths
from remote_gym.tls.hub import check_hub_files, hub_context

logger = get_logger(__name__)

INTERVAL = 1.0
"""Seconds between two looks whether repeated lines of the log are to be summed up, or a certificate nears its end."""


class Hub:
    """Between servers that dial out to it and their clients. Runs on an event loop.

    Args:
        url: Host name or address to listen on.
        port: TCP port; 0 for a free one.
        files: A certificate that names the hub, of a client's usage, its key, and the authority of its servers.
        options: The hub's.

    Attributes:
        address: Address for servers and clients.

    Raises:
        ConfigError: If the files cannot be used, or the port is taken.
    """

    def __init__(self, url: str, port: int, files: TlsFiles, options: HubOptions) -> None:
        check_hub_files(files)
        context = Reloaded(file_paths(files), functools.partial(hub_context, files, APPLICATION_PROTOCOL))
        context.get()
        raise_file_limit()
        self._listener = HubListener(url, port, options, context.get)
        self.address = grpc_address(url, self._listener.port)
        self._certificates = OwnCertificates(files, whose="hub")
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let servers and clients in."""
        self._listener.accept()
        self._looking = asyncio.get_running_loop().create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """End all connections, once what is on its way has been sent."""
        if self._looking is not None:
            self._looking.cancel()
        await self._listener.stop()
        flush(everything=True)

    async def _look_again_and_again(self) -> None:
        while True:
            self._certificates.look()
            flush()
            await asyncio.sleep(INTERVAL)


def run(url: str, port: int, files: TlsFiles, options: HubOptions, on_start: Callable[[Hub], None]) -> None:
    """Run a hub until Ctrl-C or SIGTERM.

    Args:
        url: Host name or address to listen on.
        port: TCP port; 0 for a free one.
        files: As a `Hub` has them.
        options: The hub's.
        on_start: Called once it listens.

    Raises:
        ConfigError: As `Hub` does.
    """
    asyncio.run(_run(url, port, files, options, on_start))


async def _run(url: str, port: int, files: TlsFiles, options: HubOptions, on_start: Callable[[Hub], None]) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    hub = Hub(url, port, files, options)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    hub.start()
    try:
        on_start(hub)
        await asked.wait()
    finally:
        await hub.stop()


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it: each connection that is carried takes two."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # as macOS does for "any number"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
