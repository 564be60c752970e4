"""Names the client whose bytes a relayed connection carries: gRPC is told by the name of the relay's end.

That end is bound to an abstract name, which gRPC returns as its peer's (Linux only). Names are drawn, so that no other
user of the machine can take the next one before, and stand for what is noted here, so that nobody can make one up.
"""

from __future__ import annotations

import secrets
import urllib.parse
from typing import Any, NamedTuple

from remote_gym.address import UNKNOWN_PEER

_SCHEME = "unix-abstract:"


class Peer(NamedTuple):
    """The client at the far end of a gRPC connection.

    Attributes:
        address: As gRPC writes it, such as ``ipv4:10.0.0.1:4321``.
        number: Of the relayed connection; None where gRPC has accepted the client itself.
    """

    address: str
    number: int | None


_peers: dict[str, Peer] = {}
"""By the names of the relay's ends, of all servers of this process."""


def note_peer(peer: Peer) -> str:
    """Name the relay's end of a client's connection.

    Returns:
        An abstract socket's name, without its leading zero byte.
    """
    name = f"remote_gym/{secrets.token_hex(16)}"
    _peers[name] = peer
    return name


def forget_peer(name: str) -> None:
    """Have a name stand for nobody any more."""
    _peers.pop(name, None)


def peer_of(context: Any) -> Peer:
    """The client that makes a call.

    Args:
        context: A `grpc.aio.ServicerContext`.
    """
    peer = str(context.peer())
    if peer.startswith(_SCHEME):
        # Another name is one that another user of the machine has chosen, where gRPC's socket is within reach.
        return _peers.get(peer.removeprefix(_SCHEME), Peer(UNKNOWN_PEER, None))
    return Peer(urllib.parse.unquote(peer), None)  # gRPC quotes the brackets of an IPv6 address
