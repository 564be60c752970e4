"""Recognises a connection by the first bytes that its client sends.

Pure: no input or output. A direct connection begins with our preamble, gRPC with TLS that offers HTTP/2 alone or with
HTTP/2's preface in plaintext, HTTP/1 with the name of a method or with TLS that offers ``http/1.1`` or nothing.
"""

from __future__ import annotations

import enum
import re

from remote_gym.transport.direct_socket import PREAMBLE, ROUTING_ID_BYTES

PREAMBLE_BYTES = len(PREAMBLE) + ROUTING_ID_BYTES

MOST_BYTES = 2**14
"""Bytes that are read until it is known what a connection is. A ClientHello takes 2 KiB with post-quantum key shares,
and comes in several packets then."""

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HTTP1 = re.compile(rb"[A-Z]{1,16}\Z|[A-Z]{1,16} ")  # a method, or what may become one
_TLS_HANDSHAKE, _TLS_MAJOR = 0x16, 3
_CLIENT_HELLO = 1
_ALPN = b"\x00\x10"
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4


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


class _MalformedError(Exception):
    pass


class Sniffer:
    """Looks at what a client sends first, until it is known what its connection is.

    It looks at each byte once, in however many parts they come, by loops that are made for the worst of 16 KiB. Else
    a stranger could have the server's event loop read the same bytes anew for each one that it adds.

    Attributes:
        data: All that the client has sent.
        kind: What the connection is; None if it takes more bytes to know.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.kind: Kind | None = None
        self._hello = _Hello(self.data)

    @property
    def readable(self) -> int:
        """How many more bytes may be read: none that a direct connection's worker has to read by itself."""
        limit = PREAMBLE_BYTES if self.data[:1] in (b"", PREAMBLE[:1]) else MOST_BYTES
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
        if data[0] == _TLS_HANDSHAKE:
            return self._sniff_tls()
        head = bytes(data[: len(HTTP2_PREFACE)])  # the longest of what the others begin with
        if head.startswith(PREAMBLE[: len(head)]):
            return Kind.DIRECT if len(data) >= PREAMBLE_BYTES else None
        if head == HTTP2_PREFACE[: len(head)]:
            return Kind.GRPC if len(head) == len(HTTP2_PREFACE) else None
        if found := _HTTP1.match(head):
            return Kind.HTTP if found[0].endswith(b" ") else None
        return Kind.OTHER

    def _sniff_tls(self) -> Kind | None:
        try:
            if not self._hello.look():
                return None
            protocols = _protocols(self._hello.message)
        except _MalformedError:
            return Kind.OTHER
        # Whoever offers both, as browsers and curl do, wants a page. GRPC's clients offer h2, and nothing of HTTP/1.
        return Kind.GRPC if b"h2" in protocols and b"http/1.1" not in protocols else Kind.HTTPS


def sniff(data: bytes) -> Kind | None:
    """Decide what a connection is whose client has sent `data`; None if it takes more bytes to know."""
    return Sniffer().feed(data)


class _Hello:
    """Takes a ClientHello out of its records, of which it may span several (RFC 8446, 5.1).

    Args:
        data: What the client has sent, to which others append.

    Attributes:
        message: The message, as far as it has come, with its header.
    """

    def __init__(self, data: bytearray) -> None:
        self._data = data
        self._looked_at = 0
        self._left = 0  # bytes of the record at hand that are to come
        self.message = bytearray()

    def look(self) -> bool:
        """Look at what has come since.

        Returns:
            Whether the message is whole.

        Raises:
            _MalformedError: If it cannot become one.
        """
        data, at, left, message = self._data, self._looked_at, self._left, self.message
        size = len(data)
        whole = _size_of(message)
        while True:
            if not left:
                # Its minor version is 1 in most first records, and 3 in others.
                if (at < size and data[at] != _TLS_HANDSHAKE) or (at + 1 < size and data[at + 1] != _TLS_MAJOR):
                    raise _MalformedError
                if at + _RECORD_HEADER > size:
                    break
                left = data[at + 3] << 8 | data[at + 4]
                at += _RECORD_HEADER
                if not left:
                    raise _MalformedError
            if at == size:
                break
            content = data[at : at + left]
            message += content
            at += len(content)
            left -= len(content)
            if whole is None:
                whole = _size_of(message)
            if whole is not None and len(message) >= whole:
                del message[whole:]
                return True
        self._looked_at, self._left = at, left
        return False


def _size_of(message: bytearray) -> int | None:
    """Bytes of a ClientHello, with its header; None if it takes more of it to know."""
    if message and message[0] != _CLIENT_HELLO:
        raise _MalformedError
    if len(message) < _MESSAGE_HEADER:
        return None
    size = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
    if size > MOST_BYTES:
        raise _MalformedError
    return size


def _protocols(hello: bytearray) -> set[bytes]:
    """The application protocols that a ClientHello offers (RFC 8446, 4.1.2, and RFC 7301)."""
    at = _MESSAGE_HEADER + 34  # a version and 32 random bytes
    _, at = _vector(hello, at, 1)  # a session's id
    _, at = _vector(hello, at, 2)  # cipher suites
    _, at = _vector(hello, at, 1)  # compression methods
    if at == len(hello):
        return set()
    at, end = _vector(hello, at, 2)
    while at < end:
        kind = hello[at : at + 2]
        begin, at = _vector(hello, at + 2, 2)
        if at > end:
            raise _MalformedError
        if kind == _ALPN:
            return _names(hello, begin, at)
    return set()


def _names(hello: bytearray, at: int, end: int) -> set[bytes]:
    at, names_end = _vector(hello, at, 2)
    if names_end > end:
        raise _MalformedError
    found = set()
    while at < names_end:
        begin, at = at + 1, at + 1 + hello[at]
        if at > names_end:
            raise _MalformedError
        found.add(bytes(hello[begin:at]))
    return found


def _vector(data: bytearray, at: int, size: int) -> tuple[int, int]:
    """Where a vector's content begins and ends whose length takes `size` bytes."""
    begin = at + size
    end = begin + int.from_bytes(data[at:begin], "big")
    if end > len(data) or begin > len(data):
        raise _MalformedError
    return begin, end
