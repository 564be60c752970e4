"""Reads what a TLS client says first, as far as it tells whom the client wants.

Pure: no input or output. It looks at each byte once, in however many parts they come, by loops that are made for the
worst of 16 KiB.
"""

from __future__ import annotations

TLS_HANDSHAKE = 0x16
"""First byte of a connection whose client speaks TLS."""

MOST_BYTES = 2**14
"""Bytes of a ClientHello at most. One takes 2 KiB with post-quantum key shares, and comes in several packets then."""

_TLS_MAJOR = 3
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN = b"\x00\x00", b"\x00\x10"
_HOST_NAME = 0
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4


class MalformedHelloError(Exception):
    """The bytes cannot become a ClientHello."""


class ClientHello:
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
            MalformedHelloError: If it cannot become one.
        """
        data, at, left, message = self._data, self._looked_at, self._left, self.message
        size = len(data)
        whole = _size_of(message)
        while True:
            if not left:
                # Its minor version is 1 in most first records, and 3 in others.
                if (at < size and data[at] != TLS_HANDSHAKE) or (at + 1 < size and data[at + 1] != _TLS_MAJOR):
                    raise MalformedHelloError
                if at + _RECORD_HEADER > size:
                    break
                left = data[at + 3] << 8 | data[at + 4]
                at += _RECORD_HEADER
                if not left:
                    raise MalformedHelloError
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

    def protocols(self) -> set[bytes]:
        """The application protocols that it offers (RFC 7301). Raises as `look`."""
        found: set[bytes] = set()
        if (content := self._extension(_ALPN)) is not None:
            at, end = _list(self.message, *content)
            while at < end:
                begin, at = _inner_vector(self.message, at, 1, end)
                found.add(bytes(self.message[begin:at]))
        return found

    def server_name(self) -> str:
        """The server that it names, in lower case (RFC 6066, 3); empty where it names none. Raises as `look`."""
        if (content := self._extension(_SERVER_NAME)) is not None:
            at, end = _list(self.message, *content)
            while at < end:
                kind = self.message[at]
                begin, at = _inner_vector(self.message, at + 1, 2, end)
                if kind == _HOST_NAME:
                    return bytes(self.message[begin:at]).decode("latin-1").lower()
        return ""

    def _extension(self, wanted: bytes) -> tuple[int, int] | None:
        """Where the content of the first extension of a kind begins and ends (RFC 8446, 4.1.2); None without one."""
        hello = self.message
        at = _MESSAGE_HEADER + 34  # a version and 32 random bytes
        _, at = _vector(hello, at, 1)  # a session's id
        _, at = _vector(hello, at, 2)  # cipher suites
        _, at = _vector(hello, at, 1)  # compression methods
        if at == len(hello):
            return None
        at, end = _vector(hello, at, 2)
        while at < end:
            kind = hello[at : at + 2]
            begin, at = _vector(hello, at + 2, 2)
            if at > end:
                raise MalformedHelloError
            if kind == wanted:
                return begin, at
        return None


def _size_of(message: bytearray) -> int | None:
    """Bytes of a ClientHello, with its header; None if it takes more of it to know."""
    if message and message[0] != _CLIENT_HELLO:
        raise MalformedHelloError
    if len(message) < _MESSAGE_HEADER:
        return None
    size = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
    if size > MOST_BYTES:
        raise MalformedHelloError
    return size


def _list(hello: bytearray, at: int, end: int) -> tuple[int, int]:
    """Where the entries of a list begin and end that fills an extension's content."""
    return _inner_vector(hello, at, 2, end)


def _inner_vector(hello: bytearray, at: int, size: int, end: int) -> tuple[int, int]:
    begin, after = _vector(hello, at, size)
    if after > end:
        raise MalformedHelloError
    return begin, after


def _vector(data: bytearray, at: int, size: int) -> tuple[int, int]:
    """Where a vector's content begins and ends whose length takes `size` bytes."""
    begin = at + size
    end = begin + int.from_bytes(data[at:begin], "big")
    if end > len(data) or begin > len(data):
        raise MalformedHelloError
    return begin, end
