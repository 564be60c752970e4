"""Servers that tests share, since the first worker of each takes most of a second of processor time to start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from remote_gym.testing import LoopbackServer, loopback_server
from waiting import becomes_true


class SharedServers:
    """Servers by their arguments, each lent to one test after another.

    A test finds no session in the server that it is lent. A server in which a test leaves one, or which it stops, is
    not lent again.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[LoopbackServer, contextlib.ExitStack]] = {}

    @contextlib.contextmanager
    def lend(self, default_args: Any, **options: Any) -> Iterator[LoopbackServer]:
        """A server as from `loopback_server`, whose clients are closed when the block ends."""
        key = repr((default_args, sorted(options.items())))
        if key not in self._running:
            stack = contextlib.ExitStack()
            self._running[key] = (stack.enter_context(loopback_server(default_args, **options)), stack)
        shared, stack = self._running[key]
        lent = LoopbackServer(shared.server, shared.client_credentials_paths)
        try:
            yield lent
        finally:
            try:
                for client in lent._clients:
                    client.close()
            finally:
                if not becomes_true(lambda: is_as_new(lent), 1.0):
                    del self._running[key]
                    stack.close()

    def close(self) -> None:
        """Stop them all."""
        with contextlib.ExitStack() as all_of_them:
            for _, stack in self._running.values():
                all_of_them.push(stack)
            self._running.clear()


def is_as_new(lent: LoopbackServer) -> bool:
    """Whether nothing is open, opens or closes, and others may open."""
    load = lent.server._service.load()
    return not (load.open or load.waiting or load.draining)
