"""HTTP connections: uvicorn's protocols, with bounds on silence and on unread answers, and with the client's address.

uvicorn gives an application neither the TLS connection, by whose certificate the client is known, nor the address of a
client whose bytes are relayed. Both travel in the state that it copies into each request's scope.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import ssl
import time
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from remote_gym.address import address_of_socket
from remote_gym.logs.foreign import logger_for

HEAD_TIMEOUT = 10.0
"""Seconds that a client has to send the head of a request, from the connection's beginning or its last answer."""

UNREAD_TIMEOUT = 20.0
"""Seconds that a client may leave an answer unread, or its end of the connection open once ours is closed."""

_KEY = "remote_gym"
"""Key of the connection in the state of a scope."""

_numbers = itertools.count(1)
_TOKEN = re.compile(r"(token[=/])[^&/\s\"'?]+")


def _redact(record: logging.LogRecord) -> bool:
    """Take tokens out of what uvicorn logs, which has URLs among it."""
    if isinstance(record.args, tuple):
        record.args = tuple(_TOKEN.sub(r"\1...", each) if isinstance(each, str) else each for each in record.args)
    return True


# Not uvicorn's own, which is for all of a process's servers: it would say of each WebSocket that it is open.
_logger = logger_for(f"{__name__}.uvicorn", logging.WARNING)
_logger.addFilter(_redact)


class Connection:
    """A client's connection, from its first byte to its last.

    Args:
        peer: The client's address, as gRPC writes it; None for that of the socket.

    Attributes:
        peer: The client's address.
        number: Of no other connection of this process.
        began: When, on `time.monotonic`.
        lost: Done once it has ended.
    """

    def __init__(self, peer: str | None = None) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.peer = peer or ""
        self.number = next(_numbers)
        self.began = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._waits_since: float | None = self.began  # for the head of a request
        self._stalled_since: float | None = None

    @property
    def certificates(self) -> list[bytes]:
        """The client's certificate in DER, which TLS has verified; none without."""
        found = self._tls.getpeercert(binary_form=True) if self._tls is not None else None
        return [] if found is None else [found]

    @property
    def tls_version(self) -> str:
        """Such as ``"TLSv1.3"``; empty without TLS."""
        return (self._tls.version() or "") if self._tls is not None else ""

    @property
    def _tls(self) -> ssl.SSLObject | None:
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    def made(self, transport: asyncio.Transport) -> None:
        """It stands."""
        self._transport = transport
        self.peer = self.peer or address_of_socket(transport.get_extra_info("peername"))

    def ended(self) -> None:
        """It is gone."""
        if not self.lost.done():
            self.lost.set_result(None)

    def waits(self, *, for_request: bool) -> None:
        """Note whether it is the client's turn to ask."""
        self._waits_since = time.monotonic() if for_request else None

    def stalls(self, *, is_stalled: bool) -> None:
        """Note whether the client leaves unread what it is sent."""
        self._stalled_since = time.monotonic() if is_stalled else None

    def end_if_silent(self, now: float) -> None:
        """Abort it if the client has let it wait for too long."""
        if self._transport is None:
            return
        if self._transport.is_closing() and self._stalled_since is None:
            self._stalled_since = now
        is_silent = self._waits_since is not None and now - self._waits_since > HEAD_TIMEOUT
        if is_silent or (self._stalled_since is not None and now - self._stalled_since > UNREAD_TIMEOUT):
            self.abort()

    def abort(self) -> None:
        """End it at once, whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()


def connection_of(scope: Mapping[str, Any]) -> Connection:
    """The connection that a request came by.

    Args:
        scope: ASGI's.
    """
    return cast("Connection", scope["state"][_KEY])


def state_of(connection: Connection) -> dict[str, Any]:
    """State of a protocol by which `connection_of` finds the connection."""
    return {_KEY: connection}


class HttpProtocol(H11Protocol):
    """HTTP/1.1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # which would write tokens in URLs
        self.logger = _logger
        self._connection: Connection = self.app_state[_KEY]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102
        self._connection.made(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        super().connection_lost(exc)
        self._connection.ended()

    def handle_events(self) -> None:  # noqa: D102
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._connection.waits(for_request=False)

    def handle_websocket_upgrade(self, event: Any) -> None:  # noqa: D102
        self._connection.waits(for_request=False)
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:  # noqa: D102
        self._connection.waits(for_request=True)
        super().on_response_complete()

    def pause_writing(self) -> None:  # noqa: D102
        self._connection.stalls(is_stalled=True)
        super().pause_writing()

    def resume_writing(self) -> None:  # noqa: D102
        self._connection.stalls(is_stalled=False)
        super().resume_writing()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket, which `HttpProtocol` becomes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _logger

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        super().connection_lost(exc)
        self.app_state[_KEY].ended()

    def pause_writing(self) -> None:  # noqa: D102
        self.app_state[_KEY].stalls(is_stalled=True)
        super().pause_writing()

    def resume_writing(self) -> None:  # noqa: D102
        self.app_state[_KEY].stalls(is_stalled=False)
        super().resume_writing()
