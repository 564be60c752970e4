"""Description of an environment's connection, for people and logs to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from remote_gym.address import grpc_address
from remote_gym.client.session import ClientSession


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """Where a remote environment is, as of now. It holds no secret.

    Attributes:
        server: The server's address, such as ``"gpu-server:56789"``.
        environment: What was asked for there: a name, an entrypoint or an id; where nothing was, the id that the server
            tells; None where it has none.
        session: Names the session in logs and errors; None while none is open.
        identity: Whom the server takes this client for, such as ``"DNS:alice"``; empty without an identity.
        connected_over: ``"direct"``, to the environment's worker itself, or ``"grpc"``; None while nothing connects
            them, as before the first request, or after a break.
    """

    server: str
    environment: str | None
    session: str | None
    identity: str = ""
    connected_over: Literal["direct", "grpc"] | None = None

    @classmethod
    def of(
        cls, session: ClientSession | None, place: tuple[str, int], remote_args: Mapping[str, Any]
    ) -> ConnectionInfo:
        """Look at a session.

        Args:
            session: The one that is open; None for none.
            place: Where to say that the server is if there is none.
            remote_args: `RemoteArgs` of the client.
        """
        kwargs = remote_args.get("entrypoint_kwargs") or {}
        asked = remote_args.get("environment") or remote_args.get("entrypoint") or kwargs.get("id")
        environment = None if asked is None else str(asked)
        if session is None:
            return cls(server=grpc_address(*place), environment=environment, session=None)
        return cls(
            server=grpc_address(*session.place),
            environment=environment or session.description.spec.id or None,
            session=None if session.lost else session.id,
            identity=session.identity,
            connected_over=session.connected_over,
        )

    def __str__(self) -> str:
        """Say it in one line, such as ``CartPole-v1 at localhost:56789, session 3f2a, direct``."""
        session = f"session {self.session}" if self.session else "no session"
        over = f", {self.connected_over}" if self.connected_over else ""
        return f"{self.environment or 'environment'} at {self.server}, {session}{over}"
