"""A client of the HTTP frontend that shows the bytes: requests by `http.client`, WebSockets by `websockets`."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from remote_gym.testing import LoopbackServer
from waiting import scaled


def context_of(paths: tuple[Path, Path | None, Path | None] | None) -> ssl.SSLContext | None:
    """What a client connects with; None without TLS."""
    if paths is None:
        return None
    ca, certificate, private_key = paths
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, private_key)
    return context


class Asking:
    """Makes requests on one connection.

    Args:
        port: Of this machine.
        context: None without TLS.
        headers: Of every request.
    """

    def __init__(
        self, port: int, context: ssl.SSLContext | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        kind = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
        settings: dict[str, Any] = {} if context is None else {"context": context}
        self.connection = kind("localhost", port, timeout=scaled(20.0), **settings)
        self.headers = dict(headers or {})

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPResponse]:
        """Status, JSON, and the answer itself. A body is sent as JSON, unless it is bytes already."""
        sent = {**self.headers, **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None, response

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def asking(server: LoopbackServer, **headers: str) -> Iterator[Asking]:
    """Requests to a server, by its own certificate for clients."""
    with contextlib.closing(Asking(server.server.port, context_of(server.client_credentials_paths), headers)) as client:
        yield client


class Socket:
    """A WebSocket of OpenEnv's, whose messages are JSON."""

    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket

    def send(self, kind: str, data: Any = None) -> None:
        self.websocket.send(json.dumps({"type": kind, **({} if data is None else {"data": data})}))

    def receive(self) -> dict[str, Any]:
        return json.loads(self.websocket.recv(timeout=scaled(20.0)))

    def ask(self, kind: str, data: Any = None) -> dict[str, Any]:
        self.send(kind, data)
        return self.receive()


@contextlib.contextmanager
def socket_of(
    server: Any, path: str = "/openenv/ws", headers: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[Socket]:
    """A WebSocket to a server."""
    import websockets
    from websockets.sync.client import connect

    if int(websockets.__version__.partition(".")[0]) >= 15:
        settings["proxy"] = None
    context = settings.pop("ssl") if "ssl" in settings else context_of(server.client_credentials_paths)
    port = settings.pop("port") if "port" in settings else server.server.port
    address = f"{'ws' if context is None else 'wss'}://localhost:{port}{path}"
    with connect(
        address, ssl=context, additional_headers=dict(headers or {}), open_timeout=scaled(20.0), **settings
    ) as websocket:
        yield Socket(websocket)
