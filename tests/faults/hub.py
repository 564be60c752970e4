"""A hub in a process of its own, on a port that it keeps when it is started again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from faults.serving import HUB, PATIENCE, Certificates, hold_ports
from hubs import RunningHub, running_hub


class Hub:
    """``remote-gym hub``, started and ended again and again.

    It holds its port from now on until `let_go`, when it does not run, too.

    Args:
        folder: For its log.
        certificates: Its own, and its servers'.
    """

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self._certificates = certificates
        self._log = folder / "hub.log"
        self._held = hold_ports(HUB, 1)
        [self.port] = (sock.getsockname()[1] for sock in self._held)
        self._entered = contextlib.ExitStack()
        self._running: RunningHub

    @property
    def address(self) -> str:
        """Address for servers."""
        return f"{HUB}:{self.port}"

    def start(self) -> None:
        """Start it, and return when it listens."""
        running = running_hub(self._certificates.folder, self._log, url=HUB, port=self.port)
        self._running = self._entered.enter_context(running)

    def signal(self, number: signal.Signals) -> None:
        self._running.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self._entered.close()

    def stop(self) -> None:
        """End it as an operator would, and see that it does."""
        self._running.process.terminate()
        status = self._running.process.wait(PATIENCE)
        assert status == 0, f"the hub ended with status {status}"

    def let_go(self) -> None:
        """Kill it if it runs, and let others have its port. Call it last."""
        self.kill()
        for sock in self._held:
            sock.close()


@contextlib.contextmanager
def hub_at(folder: Path, certificates: Certificates) -> Iterator[Hub]:
    """Run a hub until the block ends, which stops it."""
    hub = Hub(folder, certificates)
    try:
        hub.start()
        yield hub
        hub.stop()
    finally:
        hub.let_go()
