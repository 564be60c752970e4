"""How a server of OpenEnv is reached: its address, by HTTP for what it describes, by WebSocket for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

from remote_gym.client.connect.opening import token_to_show
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import (
    ConfigError,
    ConnectError,
    ConnectReason,
    DeadlineExceeded,
    DenialReason,
    EncodingError,
    NotPermitted,
    TransportError,
)
from remote_gym.peers.background import Background
from remote_gym.peers.conversation import Conversation, Message
from remote_gym.peers.elements import shown
from remote_gym.tls import client_context
from remote_gym.transport.direct_socket import set_options
from remote_gym.transport.waiting import within

SCHEMA_BYTES = 16 * 2**20
"""Bytes of a ``/schema``."""

_SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}


@dataclass(frozen=True)
class Place:
    """Where a server is.

    Attributes:
        host: Name or address.
        port: Its port.
        path: Before ``/ws`` and ``/schema``; empty, or with a slash at its beginning.
        is_secure: Whether it speaks TLS.
    """

    host: str
    port: int
    path: str
    is_secure: bool

    @property
    def authority(self) -> str:
        """Host and port, as URLs have them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """Name for errors."""
        return f"{'https' if self.is_secure else 'http'}://{self.authority}{self.path}"


def place_of(url: str) -> Place:
    """Read the address of a server, as OpenEnv's own clients take it.

    Raises:
        ConfigError: If it is none, or holds what does not belong there.
    """
    form = "use the server's base URL, such as 'http://localhost:8000'"
    try:
        parts = urlsplit(url)
        port = parts.port
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"is {url!r:.200}: {error}; {form}", field="url", where="url") from None
    if not isinstance(url, str) or parts.scheme not in _SCHEMES or not parts.hostname:
        raise ConfigError(f"is {url!r:.200}; {form}", field="url", where="url")
    if parts.username is not None or parts.query or parts.fragment:
        # Not shown: it may be a secret.
        raise ConfigError(f"holds more than a place; {form}, and token= or headers=", field="url", where="url")
    is_secure = _SCHEMES[parts.scheme]
    path = parts.path.rstrip("/").removesuffix("/ws")
    return Place(parts.hostname, port or (443 if is_secure else 80), path, is_secure)


class Link:
    """Connections to one server.

    Args:
        place: Where it is.
        tls: PEM files; None for the system's authorities, where the place says that it speaks TLS.
        headers: Of each request.
        options: The client's.

    Raises:
        ConfigError: If the files cannot be used, or there would have to be some.
    """

    def __init__(self, place: Place, tls: TlsFiles | None, headers: Mapping[str, str], options: ClientOptions) -> None:
        if tls is not None and not place.is_secure:
            raise ConfigError(f"is given, and {place.name} speaks none; use https://", field="tls", where="tls")
        files = (tls or TlsFiles()) if place.is_secure else None
        token = token_to_show(place.host, files, options)
        self.name = place.name
        self._place = place
        self._options = options
        self._context = None if files is None else client_context(files)
        self._headers = _checked(headers)
        if token and not any(name.lower() == "authorization" for name in self._headers):
            self._headers["Authorization"] = f"Bearer {token}"

    def schemas(self) -> Any:
        """Ask for what the server's ``/schema`` holds.

        Raises:
            ConnectError: If the server cannot be reached, or has none.
            EncodingError: If it is no JSON, or too large.
            TransportError: If it does not answer.
        """
        timeout = self._options.open_timeout  # a server of ours creates an environment first
        sock = self._reach()
        with contextlib.closing(http.client.HTTPConnection(self._place.authority)) as connection:
            connection.sock = sock
            with self._telling_why("/schema"), _cutting(connection, timeout):
                if self._context is not None:
                    name = self._options.server_name or self._place.host
                    connection.sock = secured = self._context.wrap_socket(
                        sock, server_hostname=name, do_handshake_on_connect=False
                    )
                    secured.do_handshake()
                connection.request("GET", f"{self._place.path}/schema", headers=self._headers)
                response = connection.getresponse()
                body = response.read(SCHEMA_BYTES + 1)
        self._check_status(response.status, "/schema")
        if len(body) > SCHEMA_BYTES:
            raise EncodingError(f"{self.name}/schema has over {SCHEMA_BYTES:,} bytes")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise EncodingError(f"{self.name}/schema is no JSON: {shown(error)}") from None

    def converse(self, background: Background) -> Conversation:
        """A new WebSocket. Raises as `schemas` does, and `ServerFull` where there is no room."""
        sock = self._reach()
        try:
            with self._telling_why("/ws"):
                return background.run(self._converse(sock))
        except BaseException:
            sock.close()
            raise

    async def _converse(self, sock: socket.socket) -> Conversation:
        more: dict[str, Any] = {}
        if self._context is not None:
            more = {"ssl": self._context, "server_hostname": self._options.server_name or self._place.host}
        connecting = connect(
            f"{'wss' if self._place.is_secure else 'ws'}://{self._place.authority}{self._place.path}/ws",
            sock=sock,  # with which no proxy is used, and no redirection followed
            additional_headers=self._headers,
            compression=None,  # an answer of a few bytes could else fill the memory
            open_timeout=None,
            # Ours would cut a server whose environment keeps its event loop busy; TCP notices those that are gone.
            ping_interval=None,
            close_timeout=self._options.close_timeout,
            max_size=self._options.message_limits.message_bytes,
            **more,
        )
        timeout = self._options.connect_timeout
        try:
            connection = await within(timeout, _awaited(connecting))
        except asyncio.TimeoutError:
            text = f"{self.name}/ws: what listens there does not answer within {timeout:g} s"
            raise ConnectError(text, reason=ConnectReason.UNANSWERED) from None
        return Conversation(connection, self.name)

    def _reach(self) -> socket.socket:
        try:
            sock = socket.create_connection((self._place.host, self._place.port), self._options.connect_timeout)
        except TimeoutError as error:
            text = f"{self.name} cannot be reached within {self._options.connect_timeout:g} s"
            raise ConnectError(text, reason=ConnectReason.UNREACHABLE) from error
        except OSError as error:
            text = f"{self.name} cannot be reached: {error.strerror or error}"
            raise ConnectError(text, reason=ConnectReason.UNREACHABLE) from error
        set_options(sock)
        return sock

    @contextlib.contextmanager
    def _telling_why(self, path: str) -> Iterator[None]:
        """Errors of others' packages as ours."""
        try:
            yield
        except TransportError:
            raise
        except InvalidStatus as error:
            self._check_status(error.response.status_code, path)
            raise
        except ssl.SSLError as error:
            text = f"{self.name}: TLS failed: {shown(error.reason or error)}; check the certificates of both ends"
            raise ConnectError(text, reason=ConnectReason.TLS) from error
        except (InvalidHandshake, InvalidMessage, http.client.HTTPException, EOFError, ValueError) as error:
            text = f"{self.name}{path}: what listens there is no OpenEnv server: {shown(error)}"
            raise ConnectError(text, reason=ConnectReason.NO_SERVER) from error
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise DeadlineExceeded(f"{self.name}{path} did not answer in time") from error
        except OSError as error:
            text = f"{self.name}{path}: {error.strerror or shown(error)}"
            raise ConnectError(text, reason=ConnectReason.UNANSWERED) from error

    def _check_status(self, status: int, path: str) -> None:
        if status == 200:
            return
        found = f"{self.name}{path} answers with the status {status}"
        if status in (401, 403):
            reason = DenialReason.IDENTITY if status == 401 else DenialReason.UNKNOWN
            raise NotPermitted(f"{found}; use token= or headers= that it knows", reason=reason)
        raise ConnectError(f"{found}; use the base URL of an OpenEnv server", reason=ConnectReason.NO_SERVER)


async def ask(conversation: Conversation, message: Message, timeout: float) -> Message:
    """Ask, and cut the connection where no answer comes in time: it could be taken for a later question's."""
    try:
        return await conversation.ask(message, timeout)
    except BaseException:
        await conversation.cut()
        raise


async def _awaited(connecting: Any) -> Any:
    return await connecting


@contextlib.contextmanager
def _cutting(connection: http.client.HTTPConnection, timeout: float) -> Iterator[None]:
    """Shut a connection down after some seconds: what drips would never be too late for a time-out of each byte.

    Raises:
        TimeoutError: If it was.
    """
    deadline = time.monotonic() + timeout

    def cut() -> None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    connection.sock.settimeout(timeout)
    timer = threading.Timer(timeout, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
        if time.monotonic() >= deadline:  # what came until then looks like all there is
            raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        timer.join()


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping) or not all(
        isinstance(each, str) and each.isascii() and each.isprintable() for pair in headers.items() for each in pair
    ):
        raise ConfigError("have to be texts without control characters", field="headers", where="headers")
    return dict(headers)
