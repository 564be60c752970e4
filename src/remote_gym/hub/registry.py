"""Which servers are registered at a hub, by their names, and what each may have.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from remote_gym.config import HubOptions
from remote_gym.hub.rate import Rate


class Link(Protocol):
    """A hub's connection to one server."""


L = TypeVar("L", bound=Link)


class RefusedError(Exception):
    """A server is not registered, or a client not let through to it.

    Attributes:
        hopeless: Whether to try again cannot help before something is changed at either end.
    """

    def __init__(self, why: str, *, hopeless: bool = False) -> None:
        super().__init__(why)
        self.hopeless = hopeless


@dataclass(eq=False)
class Registered(Generic[L]):
    """A server that is registered.

    Attributes:
        names: By which clients reach it.
        fingerprint: Digest of the certificate that it has shown.
        link: The connection that it has registered by.
        rate: Of all of its connections together.
        count: Connections of clients that it has, those included that wait for it to dial back.
        by_host: The same, for each address that they come from.
    """

    names: tuple[str, ...]
    fingerprint: bytes
    link: L
    rate: Rate
    count: int = 0
    by_host: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(self.names)


class Registry(Generic[L]):
    """All of them.

    Args:
        options: The hub's.
        clock: Monotonic seconds.
    """

    def __init__(self, options: HubOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._by_name: dict[str, Registered[L]] = {}
        self._servers: dict[Registered[L], None] = {}

    def __len__(self) -> int:
        return len(self._servers)

    def __iter__(self) -> Iterator[Registered[L]]:
        return iter(tuple(self._servers))

    def find(self, name: str) -> Registered[L] | None:
        """The server of a name; None if there is none."""
        return self._by_name.get(name)

    def holders(self, names: Sequence[str]) -> list[Registered[L]]:
        """Servers that have one of these names."""
        return list(dict.fromkeys(found for name in names if (found := self._by_name.get(name)) is not None))

    def add(self, names: Sequence[str], fingerprint: bytes, link: L) -> Registered[L]:
        """Register a server.

        Raises:
            RefusedError: If it has no name, another server has one of them, or there are too many.
        """
        if not names:
            raise RefusedError(
                "its certificate has no name for it to be reached by: give it one other than localhost, such as by "
                "'remote-gym certs server CSR --host sim-home'",
                hopeless=True,
            )
        for other in self.holders(names):
            taken = next(name for name in names if name in other.names)
            kind = "it is" if other.fingerprint == fingerprint else "another server, with another certificate, is"
            raise RefusedError(f"{kind} registered as {taken!r} already")
        if len(self._servers) >= self._options.max_servers:
            raise RefusedError(f"{len(self._servers)} servers are registered, as many as HubOptions.max_servers allows")
        server = Registered(tuple(names), fingerprint, link, Rate(self._options.max_rate, self._clock))
        self._servers[server] = None
        self._by_name.update(dict.fromkeys(names, server))
        return server

    def remove(self, server: Registered[L]) -> bool:
        """Register it no more; whether it was. The clients that it has stay."""
        if server not in self._servers:
            return False
        del self._servers[server]
        for name in server.names:
            del self._by_name[name]
        return True

    def enter(self, server: Registered[L], host: str) -> None:
        """Count one more client.

        Args:
            server: Whose.
            host: The client's address, without its port.

        Raises:
            RefusedError: If there are too many, in all or from that address.
        """
        most = self._options.max_connections
        if server.count >= most:
            raise RefusedError(f"{server} has {server.count} connections, as many as HubOptions.max_connections allows")
        if server.by_host[host] >= most // 2:
            raise RefusedError(f"{server} has {server.by_host[host]} connections from there, half of all that it may")
        server.count += 1
        server.by_host[host] += 1

    def leave(self, server: Registered[L], host: str) -> None:
        """Count a client no more."""
        server.count -= 1
        server.by_host[host] -= 1
        if not server.by_host[host]:
            del server.by_host[host]
