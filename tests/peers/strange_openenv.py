"""A server that speaks OpenEnv's protocol as a test has it, and not as it should."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

SPACES = {
    "action": {"properties": {"action": {"type": "integer", "minimum": 0, "maximum": 4}}, "required": ["action"]},
    "observation": {"properties": {"count": {"type": "integer"}, "done": {}, "reward": {}, "metadata": {}}},
}

Answer = Callable[[dict[str, Any], Callable[[Any], None]], Any]
"""Gets a message and what sends one; what it returns is sent as well, as JSON unless it is a text or bytes."""


def observed(count: Any = 0, **more: Any) -> dict[str, Any]:
    """An observation as it should be."""
    return {"type": "observation", "data": {"observation": {"count": count}, "reward": 1.0, "done": False, **more}}


@contextlib.contextmanager
def strange(answer: Answer, schemas: Any = SPACES) -> Iterator[str]:
    """Serve until the block ends; gives the URL."""

    def handle(connection: Any) -> None:
        def send(message: Any) -> None:
            connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

        with contextlib.suppress(ConnectionClosed):
            for text in connection:
                found = answer(json.loads(text), send)
                if found is not None:
                    send(found)

    def describe(connection: Any, request: Any) -> Any:
        if not request.path.endswith("/schema"):
            return None
        return connection.respond(200, schemas if isinstance(schemas, str) else json.dumps(schemas))

    with serve(handle, "127.0.0.1", 0, process_request=describe, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def saying(data: bytes) -> Iterator[int]:
    """Send some bytes to each connection, and no more; gives the port."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])
                    taken[-1].sendall(data)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in taken:
                each.close()
