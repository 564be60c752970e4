"""Decides who may ask by HTTP, and from where, before anything of a request is read.

A browser is no friend: a page of any site can have it ask, by a name of that site's that leads here, or by ours.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import cast

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from remote_gym.config import ServerOptions
from remote_gym.config.server import HTTP_PROTOCOLS
from remote_gym.errors import DenialReason, NotPermitted, RemoteGymError
from remote_gym.server.access.clients import CertificateExpired, Client, Credentials
from remote_gym.server.frontends.http.connection import Connection, connection_of
from remote_gym.server.frontends.http.names import Names
from remote_gym.server.frontends.http.reading import Refused, error_answer
from remote_gym.server.service import Service

_TOKEN_IN_PATH = re.compile(r"/token/([^/]+)(?=/|\Z)")
_OPEN_TO_ALL = "/health"
_CLIENT = "remote_gym_client"


def client_of(scope: Scope) -> Client:
    """The client that makes a request, as `Doors` has identified it."""
    return cast("Client", scope["state"][_CLIENT])


class Doors:
    """Lets requests through to an application whose client is known, and which no page of another site can have made.

    Args:
        application: What they are for.
        service: Knows the clients.
        options: The server's.
        names: By which the server may be asked for.
    """

    def __init__(self, application: ASGIApp, service: Service, options: ServerOptions, names: Names) -> None:
        self._application = application
        self._service = service
        self._options = options
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application do so."""
        if scope["type"] not in ("http", "websocket"):
            return
        request = HTTPConnection(scope)
        connection = connection_of(scope)
        try:
            self._check_host(request)
            origin = self._check_origin(request)
            if scope["type"] == "http" and scope["method"] == "OPTIONS" and origin:
                await _preflight(origin)(scope, receive, send)
                return
            tokens = self._tokens(request)
            # Without credentials, as whoever waits for the server to be ready asks.
            if not scope["path"].endswith(_OPEN_TO_ALL):
                scope["state"][_CLIENT] = self._identify(connection, tokens, self._frontend(scope["path"]))
        except (Refused, RemoteGymError, CertificateExpired) as error:
            await _refusal(error, scope)(scope, receive, send)
            return
        await self._application(scope, receive, self._finishing(scope, send, connection, origin))

    def _check_host(self, request: HTTPConnection) -> None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._names.allow(hosts[0]):
            found, known = ", ".join(hosts), ", ".join(self._names.listed())
            mend = "ServerOptions.http_hosts (--http-host) adds others"
            raise Refused(421, f"the server has not the name {found[:200]!r}; it has {known}, and {mend}")

    def _check_origin(self, request: HTTPConnection) -> str:
        origins = request.headers.getlist("origin")
        if not origins:
            return ""
        if len(origins) == 1 and origins[0] in self._options.http_origins:
            return origins[0]
        found, mend = ", ".join(origins), "ServerOptions.http_origins (--http-origin) names those that may"
        raise Refused(403, f"pages of {found[:200]!r} may not ask; {mend}")

    def _tokens(self, request: HTTPConnection) -> list[str]:
        """The tokens that a request shows. One in the path is taken out of it."""
        scope, headers = request.scope, request.headers
        found = [text.partition(" ")[2].strip() for text in headers.getlist("authorization") if _is_bearer(text)]
        found += headers.getlist("x-api-key")
        in_url = request.query_params.getlist("token")
        if (match := _TOKEN_IN_PATH.match(scope["path"])) is not None:
            in_url.append(match[1])
            scope["path"] = scope["path"][match.end() :] or "/"
            scope["raw_path"] = scope["path"].encode()
        if in_url and not self._options.http_url_tokens:
            raise NotPermitted(
                "a token came in the URL, which logs and histories keep; send it as 'Authorization: Bearer TOKEN' or "
                "'X-API-Key: TOKEN', or have the server take it so by ServerOptions.http_url_tokens",
                reason=DenialReason.IDENTITY,
            )
        return list(dict.fromkeys(found + in_url))

    def _frontend(self, path: str) -> str:
        """Name of the protocol that a path is of; empty for one of ours."""
        first = path.strip("/").partition("/")[0]
        if first in HTTP_PROTOCOLS:
            return first
        return "" if first == "v1" else self._options.http_root or ""

    def _identify(self, connection: Connection, tokens: Sequence[str], frontend: str) -> Client:
        if len(tokens) > 1:
            # What stands in between might check the one and leave the other to count here.
            raise NotPermitted(f"the request has {len(tokens)} tokens; send one", reason=DenialReason.IDENTITY)
        return self._service.identify(
            Credentials(
                peer=connection.peer,
                tls_version=connection.tls_version,
                certificates=connection.certificates,
                token=tokens[0] if tokens else "",
                frontend=frontend,
            )
        )

    def _finishing(self, scope: Scope, send: Send, connection: Connection, origin: str) -> Send:
        """Add to an answer what a browser, and a connection that is too old, need."""
        lifetime = self._options.certificate_lifetime
        is_old = lifetime is not None and time.monotonic() - connection.began >= lifetime / 2
        if scope["type"] != "http" or not (origin or is_old):
            return send

        async def finish(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [*_origin_headers(origin)] if origin else []
                if is_old:  # the client makes another, and shows its certificate
                    added.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return finish


def _is_bearer(text: str) -> bool:
    return text.partition(" ")[0].lower() == "bearer"


def _refusal(error: Exception, scope: Scope) -> Response:
    if isinstance(error, CertificateExpired):
        error = Refused(401, str(error), {"Connection": "close"})
    response = error_answer(error)
    if scope["type"] == "websocket":  # whose refusal uvicorn gives these itself, releases before 0.54 in any case
        response.raw_headers = [
            header for header in response.raw_headers if header[0] not in (b"content-length", b"content-type")
        ]
    return response


def _origin_headers(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"Origin"),
    ]


def _preflight(origin: str) -> Response:
    response = Response(status_code=204)
    response.raw_headers += [
        *_origin_headers(origin),
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key, x-request-id"),
        (b"access-control-max-age", b"600"),
    ]
    return response
