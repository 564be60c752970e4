"""Recognises who comes to a hub, and to which server, by the first bytes that are sent.

Pure: no input or output.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from remote_gym.config import is_server_name
from remote_gym.protocol.hub import DIAL_BACK, ID_BYTES, REGISTER
from remote_gym.transport.client_hello import MOST_BYTES, TLS_HANDSHAKE, ClientHello, MalformedHelloError
from remote_gym.transport.preamble import MAGIC as PREAMBLE_MAGIC
from remote_gym.transport.preamble import read_preamble, wanted_bytes


class ConnectionKind(enum.Enum):
    """Kind of a connection to a hub, by who has made it."""

    REGISTERING = enum.auto()
    """A server that dials out to the hub."""
    DIALLING_BACK = enum.auto()
    """A server, for one of its clients."""
    CLIENT = enum.auto()
    """A client of a server's, by TLS or directly."""
    NO_SERVER = enum.auto()
    """A client that names no server, or none that is registered."""
    UNKNOWN = enum.auto()
    """Anybody else."""


class Recognised(NamedTuple):
    """Result of a look at the first bytes.

    Attributes:
        kind: Who has made the connection.
        name: Of a client: the server's. Not yet known to be one.
        id: Of a server that dials back: that of its `DialBack`.
        why: Of those who are not let in: what they have done.
    """

    kind: ConnectionKind
    name: str = ""
    id: bytes = b""
    why: str = ""


_OTHER = Recognised(ConnectionKind.UNKNOWN, why="its first bytes are neither a client's nor a server's")
_NO_NAME = Recognised(
    ConnectionKind.NO_SERVER, why="it does not name a server; its client has to say which one by server_name="
)


class FirstBytes:
    """Looks at what is sent first, until it is known who sends it.

    No byte is read that is not the hub's to read: a registration's TLS begins behind its first bytes, and what follows
    a preamble is carried as any other byte.

    Attributes:
        data: All that was sent, which a client's server is to get.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self._hello = ClientHello(self.data)

    @property
    def readable(self) -> int:
        """How many more bytes may be read."""
        return max(0, self._wanted() - len(self.data))

    def _wanted(self) -> int:
        data = self.data
        if data.startswith(DIAL_BACK):
            return len(DIAL_BACK) + ID_BYTES
        if data.startswith(PREAMBLE_MAGIC):
            return wanted_bytes(data)
        if data[:1] in (b"", PREAMBLE_MAGIC[:1]):
            return len(PREAMBLE_MAGIC) if len(data) < len(PREAMBLE_MAGIC) else len(REGISTER)
        return MOST_BYTES

    def feed(self, part: bytes) -> Recognised | None:
        """Add what was sent since.

        Returns:
            Who it is; None if it takes more bytes to know.
        """
        self.data += part
        if not self.data:
            return None
        found = self._look()
        return _OTHER if found is None and len(self.data) >= MOST_BYTES else found

    def _look(self) -> Recognised | None:
        data = bytes(self.data[: len(DIAL_BACK) + ID_BYTES])
        if data[0] == TLS_HANDSHAKE:
            return self._look_at_hello()
        if data[: len(PREAMBLE_MAGIC)] == PREAMBLE_MAGIC[: len(data)] and len(data) > _SHARED:
            return self._look_at_preamble()
        if data.startswith(REGISTER):
            return Recognised(ConnectionKind.REGISTERING)
        if data.startswith(DIAL_BACK):
            whole = len(DIAL_BACK) + ID_BYTES
            return Recognised(ConnectionKind.DIALLING_BACK, id=data[len(DIAL_BACK) :]) if len(data) == whole else None
        return None if REGISTER.startswith(data) or DIAL_BACK.startswith(data) else _OTHER

    def _look_at_hello(self) -> Recognised | None:
        try:
            if not self._hello.look():
                return None
            name = self._hello.server_name()
        except MalformedHelloError:
            return _OTHER
        return Recognised(ConnectionKind.CLIENT, name) if is_server_name(name) else _NO_NAME

    def _look_at_preamble(self) -> Recognised | None:
        try:
            preamble = read_preamble(bytes(self.data))
        except ValueError:
            return _OTHER
        if preamble is None:
            return None
        if not preamble.server_name:
            return _NO_NAME
        return Recognised(ConnectionKind.CLIENT, preamble.server_name)


_SHARED = next(at for at in range(len(REGISTER)) if PREAMBLE_MAGIC[: at + 1] != REGISTER[: at + 1])
"""How many bytes a preamble and what a server sends have in common at their beginning."""


def recognise(data: bytes) -> Recognised | None:
    """Decide who has sent `data`; None if it takes more bytes to know."""
    return FirstBytes().feed(data)
