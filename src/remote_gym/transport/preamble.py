"""The beginning of a direct connection, before its TLS: for which session it comes, and through a hub, to which server.

Pure: no input or output. The first version is the magic bytes, a zero, a one, and the 16 bytes of a routing id. The
second, ``magic 0 2``, has after that a byte that says how long the server's name is, and the name.
"""

from __future__ import annotations

from typing import NamedTuple

from remote_gym.config import is_server_name
from remote_gym.transport.direct_socket import PREAMBLE, ROUTING_ID_BYTES

NAMED_PREAMBLE = PREAMBLE[:-1] + b"\x02"
"""Beginning of the version that holds a server's name."""

MAGIC = PREAMBLE[:-1]
"""Beginning of all versions."""

_BARE_BYTES = len(PREAMBLE) + ROUTING_ID_BYTES


class Preamble(NamedTuple):
    """Content of a preamble.

    Attributes:
        routing_id: By which the server finds the session.
        server_name: By which a hub finds the server; empty in the first version.
    """

    routing_id: bytes
    server_name: str


def write_preamble(routing_id: bytes, server_name: str = "") -> bytes:
    """Encode one, in the second version only where there is a name, since servers of older releases know the first."""
    if not server_name:
        return PREAMBLE + routing_id
    name = server_name.encode("ascii")
    return NAMED_PREAMBLE + routing_id + bytes((len(name),)) + name


def wanted_bytes(data: bytes | bytearray) -> int:
    """How many bytes the preamble has that begins so, or, while that is not known, surely has."""
    if len(data) < len(PREAMBLE) or data[: len(PREAMBLE)] != NAMED_PREAMBLE:
        return _BARE_BYTES
    return _BARE_BYTES + 1 + (data[_BARE_BYTES] if len(data) > _BARE_BYTES else 0)


def read_preamble(data: bytes) -> Preamble | None:
    """Decode one; None if it takes more bytes. What follows it is not looked at.

    Raises:
        ValueError: If it cannot become one.
    """
    begin = data[: len(PREAMBLE)]
    if begin not in (PREAMBLE, NAMED_PREAMBLE):
        if PREAMBLE.startswith(begin) or NAMED_PREAMBLE.startswith(begin):
            return None
        raise ValueError("it is of another version, or none")
    end = wanted_bytes(data)
    if len(data) < end:
        return None
    routing_id = data[len(PREAMBLE) : _BARE_BYTES]
    if begin == PREAMBLE:
        return Preamble(routing_id, "")
    name = data[_BARE_BYTES + 1 : end].decode("latin-1")
    if not is_server_name(name):
        raise ValueError("it names no server")
    return Preamble(routing_id, name)
