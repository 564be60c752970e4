"""The seam for how a worker starts: what is known of it before goes in, and the server's end of it comes out."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from remote_gym.server.launch.handle import WorkerHandle


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """Which worker to start.

    Attributes:
        session: The id of the session that it is for.
        interpreter: Python executable that it runs under; None for the server's own.
        variables: Environment variables of the process that it is, beside the server's.
    """

    session: str
    interpreter: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


class Launcher(Protocol):
    """Starts workers, and ends with all that it started."""

    async def launch(self, spec: LaunchSpec) -> WorkerHandle:
        """Start one.

        Raises:
            ConfigError: If what the spec asks for cannot be had here.
            ServerFull: If the system gives no more descriptors or processes.
        """

    async def stop(self) -> None:
        """End the workers that are left, and what starts them. Nothing is launched afterwards."""


def socket_pairs(stack: contextlib.ExitStack) -> tuple[list[socket.socket], list[socket.socket]]:
    """The server's ends of a worker's two sockets, and the worker's."""
    pairs = []
    for _ in range(2):
        pair = socket.socketpair()
        for end in pair:
            stack.enter_context(end)
        pairs.append(pair)
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
