"""Whose bytes a relayed connection carries, told to gRPC by the name of the relay's end.

That end is bound to an abstract name that holds the connection's number and the client's address, and gRPC returns that
name as its peer's (Linux only). Only the relay can reach gRPC's private socket, so names are not forged.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import Any, NamedTuple

_PREFIX = "remote_gym/"
_SCHEME = "unix-abstract:"


class Peer(NamedTuple):
    """The client at the far end of a gRPC connection.

    Attributes:
        address: As gRPC writes it, such as ``ipv4:10.0.0.1:4321``.
        number: Of the relayed connection; None where gRPC has accepted the client itself.
    """

    address: str
    number: int | None


def relay_name(relay: str, number: int, address: str) -> str:
    """Abstract socket name of the relay's end of a connection, without its leading zero byte.

    Args:
        relay: What no other relay of the machine is called: the names are all processes', and each counts from one.
        number: The connection's.
        address: The client's.
    """
    return f"{_PREFIX}{relay}/{number}/{address}"


def peer_of(context: Any) -> Peer:
    """The client that makes a call.

    Args:
        context: A `grpc.aio.ServicerContext`.
    """
    peer = urllib.parse.unquote(str(context.peer()))  # gRPC quotes the brackets of an IPv6 address
    if not peer.startswith(_SCHEME):
        return Peer(peer, None)
    name = peer.removeprefix(_SCHEME)
    _, number, address = [*name.removeprefix(_PREFIX).split("/", 2), "", ""][:3]
    if not name.startswith(_PREFIX) or not number.isdecimal():
        return Peer(peer, None)
    return Peer(address, int(number))


def address_of_socket(address: Any) -> str:
    """What `socket.accept` returns as an address, as gRPC writes it."""
    if not isinstance(address, tuple):
        return "unix:"
    host, port = str(address[0]), address[1]
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    # A client by IPv4 of a server that listens on "::" is the same client as on any other address.
    mapped = ipaddress.IPv6Address(host).ipv4_mapped
    return f"ipv6:[{host}]:{port}" if mapped is None else f"ipv4:{mapped}:{port}"


def host_in(address: str) -> str:
    """An address without its port, by which one client's connections count together."""
    return address.rpartition(":")[0] if address.startswith(("ipv4:", "ipv6:")) else address
