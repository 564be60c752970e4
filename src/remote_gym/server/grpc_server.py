"""The service, carried by gRPC: an adapter that moves bytes and names the client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError, EncodingError, RemoteGymError
from remote_gym.protocol import SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.server.service import Service, error_response
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse

logger = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext, which has no types


def server_options(limits: Limits) -> list[tuple[str, int]]:
    """GRPC's own settings."""
    return [
        ("grpc.so_reuseport", 0),  # else two servers could share a port, each with half of the clients
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),  # the worker has checked it
        # A peer that vanished is noticed within 10 s. The ping timeout matters: without it gRPC waits a minute,
        # whatever the keepalive timeout says.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 4_000),
        ("grpc.http2.ping_timeout_ms", 4_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # else it drops clients that ping as we do
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ]


class GrpcServer:
    """Serves a `Service` at one address.

    Args:
        service: What answers.
        options: The server's.
    """

    def __init__(self, service: Service, options: ServerOptions) -> None:
        self._service = service
        self._server = grpc.aio.server(options=server_options(options.limits))
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if options.reflection:
            _add_reflection(self._server)

    async def start(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen.

        Args:
            address: As gRPC writes it: ``host:port``, ``[::1]:port`` or ``unix:path``.
            credentials: None for plaintext.

        Returns:
            The port; 1 for a Unix socket.

        Raises:
            ConfigError: If the address is taken, or not one of this machine's.
        """
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {address}: the port is in use, or the address is not this machine's; "
                "port=0 picks a free port"
            ) from error
        await self._server.start()
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return int(port)

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls at once, and end those in progress after `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _handlers(self) -> grpc.GenericRpcHandler:
        handlers = {
            "Open": grpc.unary_unary_rpc_method_handler(self._open),
            "Spaces": grpc.unary_unary_rpc_method_handler(self._spaces),
            "Interact": grpc.stream_stream_rpc_method_handler(self._interact),
        }
        for name in ("Reset", "Step", "Render", "Call", "Close"):
            handlers[name] = grpc.unary_unary_rpc_method_handler(self._unary(name.lower()))
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    async def _open(self, data: bytes, context: Context) -> bytes:
        try:
            request = parse(pb.OpenRequest, data)
        except EncodingError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = await self._service.open(request, identity(context))
        return response.SerializeToString()

    async def _spaces(self, _: bytes, context: Context) -> bytes:
        response = await self._service.spaces(*_session_key(context), identity(context))
        return response.SerializeToString()

    def _unary(self, operation: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def answer(data: bytes, context: Context) -> bytes:
            try:
                found = parse(pb.Request, data).WhichOneof("operation")
                if found != operation:
                    raise EncodingError(f"the request of {operation.title()} holds {found}; set {operation!r}")
            except EncodingError as error:
                return error_response(error)
            return await self._service.ask(*_session_key(context), identity(context), data)

        return answer

    async def _interact(self, _: object, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            attachment = self._service.attach(*_session_key(context), identity(context), task.cancel)
        except RemoteGymError as error:
            await context.write(error_response(error))
            return
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                await context.write(await attachment.ask(data))
        finally:
            attachment.detach()


def identity(context: Context) -> str:
    """Who the client is, by its certificate; empty without one.

    The first of the certificate's URI, DNS and email names, else its common name. gRPC's own
    ``peer_identities()`` mixes these with IP addresses, which name a machine rather than a client.
    """
    properties = context.auth_context()
    for key in ("peer_uri", "peer_dns", "peer_email", "x509_common_name"):
        for value in properties.get(key, ()):
            if value:
                return str(value.decode(errors="replace"))
    return ""


def _session_key(context: Context) -> tuple[str, str]:
    metadata = dict(context.invocation_metadata() or ())
    return str(metadata.get(SESSION_KEY, "")), str(metadata.get(TOKEN_KEY, ""))


def _add_reflection(server: Any) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError as error:
        raise ConfigError("reflection=True needs grpcio-reflection: pip install 'remote-gym[reflection]'") from error
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
