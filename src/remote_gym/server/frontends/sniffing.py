"""Recognises a connection by the first bytes that its client sends.

Pure: no input or output. A direct connection begins with our preamble, gRPC with TLS that offers HTTP/2 alone or with
HTTP/2's preface in plaintext, HTTP/1 with the name of a method or with TLS that offers ``http/1.1`` or nothing.
"""

from __future__ import annotations

import enum
import re

from remote_gym.transport.client_hello import MOST_BYTES, TLS_HANDSHAKE, ClientHello, MalformedHelloError
from remote_gym.transport.preamble import MAGIC, Preamble, read_preamble, wanted_bytes

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HTTP1 = re.compile(rb"[A-Z]{1,16}\Z|[A-Z]{1,16} ")  # a method, or what may become one


class Kind(enum.Enum):
    """Kind of a connection."""

    DIRECT = enum.auto()
    GRPC = enum.auto()
    HTTP = enum.auto()
    """HTTP/1 in plaintext."""
    HTTPS = enum.auto()
    """TLS whose client does not insist on HTTP/2."""
    OTHER = enum.auto()
    """Nothing that is served here."""


class Sniffer:
    """Looks at what a client sends first, until it is known what its connection is.

    It looks at each byte once, in however many parts they come. Else a stranger could have the server's event loop
    read the same bytes anew for each one that it adds.

    Attributes:
        data: All that the client has sent.
        kind: What the connection is; None if it takes more bytes to know.
        preamble: A direct connection's.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.kind: Kind | None = None
        self.preamble: Preamble | None = None
        self._hello = ClientHello(self.data)

    @property
    def readable(self) -> int:
        """How many more bytes may be read: none that a direct connection's worker has to read by itself."""
        limit = wanted_bytes(self.data) if self.data[:1] in (b"", MAGIC[:1]) else MOST_BYTES
        return max(0, limit - len(self.data))

    def feed(self, part: bytes) -> Kind | None:
        """Add what the client has sent since.

        Returns:
            What the connection is; None if it takes more bytes to know.
        """
        self.data += part
        if self.kind is None and self.data:
            self.kind = self._sniff()
            if self.kind is None and len(self.data) >= MOST_BYTES:
                self.kind = Kind.OTHER
        return self.kind

    def _sniff(self) -> Kind | None:
        data = self.data
        if data[0] == TLS_HANDSHAKE:
            return self._sniff_tls()
        head = bytes(data[: len(HTTP2_PREFACE)])  # the longest of what the others begin with
        if head[: len(MAGIC)] == MAGIC[: len(head)]:
            return self._sniff_preamble()
        if head == HTTP2_PREFACE[: len(head)]:
            return Kind.GRPC if len(head) == len(HTTP2_PREFACE) else None
        if found := _HTTP1.match(head):
            return Kind.HTTP if found[0].endswith(b" ") else None
        return Kind.OTHER

    def _sniff_preamble(self) -> Kind | None:
        try:
            self.preamble = read_preamble(bytes(self.data))
        except ValueError:
            return Kind.OTHER
        return None if self.preamble is None else Kind.DIRECT

    def _sniff_tls(self) -> Kind | None:
        try:
            if not self._hello.look():
                return None
            protocols = self._hello.protocols()
        except MalformedHelloError:
            return Kind.OTHER
        # Whoever offers both, as browsers and curl do, wants a page. GRPC's clients offer h2, and nothing of HTTP/1.
        return Kind.GRPC if b"h2" in protocols and b"http/1.1" not in protocols else Kind.HTTPS


def sniff(data: bytes) -> Kind | None:
    """Decide what a connection is whose client has sent `data`; None if it takes more bytes to know."""
    return Sniffer().feed(data)
