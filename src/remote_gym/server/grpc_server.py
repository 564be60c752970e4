"""The service, carried by gRPC: an adapter that moves bytes and names the client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from remote_gym.address import grpc_address, is_unix
from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError, EncodingError, RemoteGymError
from remote_gym.protocol import SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.server.listening import address_in_use, claim_path, local_addresses, unix_path
from remote_gym.server.service import Service, error_response
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse

logger = logging.getLogger(__name__)

OPEN_BYTES = 4 * 2**20
"""Size of a request to open, which is the only one that the server itself reads."""

FLUSH = 0.2
"""Seconds that calls have, at the end, to send their last words."""

Context = Any  # grpc.aio.ServicerContext, which has no types


def server_options(limits: Limits) -> list[tuple[str, int]]:
    """GRPC's own settings."""
    return [
        ("grpc.so_reuseport", 0),  # else two servers could share a port, each with half of the clients
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),  # the worker has checked it
        ("grpc.max_concurrent_streams", 1024),  # on one client's connection
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

    async def start(self, url: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on every address of a name, so that no other server can have one of them.

        Args:
            url: Host name, address, or ``unix:path``.
            port: TCP port; 0 for a free one.
            credentials: None for plaintext.

        Returns:
            The port; 0 for a Unix socket.

        Raises:
            ConfigError: If an address is taken, or not one of this machine's.
        """
        if is_unix(url):
            claim_path(unix_path(url))
            self._bind(url, credentials)
        else:
            for address in local_addresses(url, port):
                port = self._bind(grpc_address(address, port), credentials)
        await self._server.start()
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return 0 if is_unix(url) else port

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {address_in_use(address)}") from error

    async def report_stopping(self) -> None:
        """Answer health checks by NOT_SERVING from now on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """End all calls, once what they have to say is on its way."""
        await self._server.stop(FLUSH)

    def _handlers(self) -> grpc.GenericRpcHandler:
        handlers = {
            "Load": grpc.unary_unary_rpc_method_handler(self._load),
            "Open": grpc.unary_unary_rpc_method_handler(self._open),
            "Spaces": grpc.unary_unary_rpc_method_handler(self._spaces),
            "Close": grpc.unary_unary_rpc_method_handler(self._close),
            "Interact": grpc.stream_stream_rpc_method_handler(self._interact),
        }
        # Which operation it is the request tells; the worker reads it, and the server need not.
        for name in ("Reset", "Step", "Render", "Call"):
            handlers[name] = grpc.unary_unary_rpc_method_handler(self._ask)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    async def _load(self, _: bytes, context: Context) -> bytes:
        return self._service.load().SerializeToString()

    async def _open(self, data: bytes, context: Context) -> bytes:
        try:
            if len(data) > OPEN_BYTES:
                raise EncodingError(f"the request to open has {len(data):,} bytes; at most {OPEN_BYTES:,} are allowed")
            request = parse(pb.OpenRequest, data)
        except EncodingError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = await self._service.open(request, identity(context))
        return response.SerializeToString()

    async def _spaces(self, _: bytes, context: Context) -> bytes:
        response = await self._service.spaces(*_session_key(context), identity(context))
        return response.SerializeToString()

    async def _close(self, _: bytes, context: Context) -> bytes:
        return await self._service.close_session(*_session_key(context), identity(context))

    async def _ask(self, data: bytes, context: Context) -> bytes:
        return await self._service.ask(*_session_key(context), identity(context), data)

    async def _interact(self, _: object, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        reasons: list[RemoteGymError] = []

        def cut(reason: RemoteGymError) -> None:
            reasons.append(reason)
            task.cancel()

        try:
            attachment = self._service.attach(*_session_key(context), identity(context), cut)
        except RemoteGymError as error:
            await context.write(error_response(error))
            return
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                await context.write(await attachment.ask(data))
        except asyncio.CancelledError:
            if not reasons:  # the client is gone
                raise
            # An idle client finds it when it asks next, and need not look for the reason.
            await context.write(error_response(reasons[0]))
        finally:
            attachment.detach()


def identity(context: Context) -> str:
    """Who the client is, by its certificate, such as ``"DNS:alice"``; empty without one.

    The first of the certificate's URI, DNS and email names, else its common name, after which kind of name it is.
    gRPC's own ``peer_identities()`` mixes these with IP addresses, which name a machine rather than a client.
    """
    properties = context.auth_context()
    for kind, key in (("URI", "peer_uri"), ("DNS", "peer_dns"), ("email", "peer_email"), ("CN", "x509_common_name")):
        for value in properties.get(key, ()):
            if value:
                return f"{kind}:{value.decode(errors='replace')}"
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
