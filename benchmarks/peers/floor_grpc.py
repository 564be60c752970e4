"""The least that a message on a bidirectional stream of grpcio costs, over mutual TLS: bytes out, bytes back.

Options: ``request``, ``response`` (bytes), ``server``: ``"sync"`` or ``"aio"``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc

from case import Case, Figures
from measuring import measure_steps
from peer import main
from serving import HOST, Servers, way_to

METHOD = "/benchmark.Echo/Interact"
SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def handlers(behaviour: Any) -> tuple[Any, ...]:
    """Serve one method, of bytes."""
    name, method = METHOD[1:].split("/")
    return (grpc.method_handlers_generic_handler(name, {method: grpc.stream_stream_rpc_method_handler(behaviour)}),)


@contextlib.contextmanager
def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Answer every request with the same bytes."""
    response = bytes(job["response"])
    certificate, key, ca = (Path(path).read_bytes() for path in job["pem"])
    credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    with _serve_aio(response, credentials) if job["server"] == "aio" else _serve_sync(response, credentials) as port:
        yield {"port": port}


@contextlib.contextmanager
def _serve_sync(response: bytes, credentials: Any) -> Iterator[int]:
    def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=SIZES)
    server.add_generic_rpc_handlers(handlers(echo))
    port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    yield port
    server.stop(None).wait()


@contextlib.contextmanager
def _serve_aio(response: bytes, credentials: Any) -> Iterator[int]:
    async def echo(requests: AsyncIterator[bytes], context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(response)

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(options=SIZES)
        server.add_generic_rpc_handlers(handlers(echo))
        port = server.add_secure_port(f"{HOST}:0", credentials)
        await server.start()
        return server, port

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield port
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)


def measure(case: Case, servers: Servers) -> Figures:
    """Ask and be answered, on one stream, by grpcio's synchronous client."""
    options = {"request": 16, "response": 48, "server": "sync", **case.options}
    job = {**options, "pem": [case.pem("server"), case.pem("server-key"), case.pem("ca")]}
    ca, key, certificate = (Path(case.pem(name)).read_bytes() for name in ("ca", "client-key", "client"))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    told = servers.start(job)
    with (
        way_to(case, told["port"]) as way,
        grpc.secure_channel(f"{way.host}:{told['port']}", credentials, options=SIZES) as channel,
    ):
        call = channel.stream_stream(METHOD)(iter(requests.get, None))
        request = bytes(options["request"])

        def step(number: int) -> bool:
            requests.put(request)
            next(call)
            return False

        figures = measure_steps(case, step, way=way)
        requests.put(None)
        return figures


if __name__ == "__main__":
    main(measure, serve)
