"""What TLS clients say first."""

from __future__ import annotations

import contextlib
import ssl


def client_hello(*protocols: str, name: str | None = "localhost") -> bytes:
    """The ClientHello of this Python's TLS, in its record, which offers these application protocols; or none.

    Args:
        *protocols: The application protocols.
        name: The server's; None for none.
    """
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    message = hello[5:]
    parts = [message[begin : begin + size] for begin in range(0, len(message), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in parts)
