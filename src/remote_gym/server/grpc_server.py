"""The service, carried by gRPC: an adapter that moves bytes and names the client."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from remote_gym.address import grpc_address, is_unix
from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, EncodingError, NotPermitted, RemoteGymError
from remote_gym.logs import get_logger, host_of
from remote_gym.protocol import SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.server.caller import Caller, caller
from remote_gym.server.identity import IdentityRule
from remote_gym.server.listening import address_in_use, claim_path, local_addresses, unix_path
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.status import encode_error, error_response

logger = get_logger(__name__)

OPEN_BYTES = 4 * 2**20
"""Size of a request to open, which is the only one that the server itself reads."""

HANDSHAKE_TIMEOUT_MS = 10_000
"""How long a TLS handshake may take; by itself gRPC would keep a silent connection for two minutes."""

FLUSH = 1.0
"""Seconds that calls have, at the end, to send their last words."""

SHARE = 0.45
"""Of `ServerOptions.certificate_lifetime` that a connection of gRPC's takes new calls: it ends this part up to a tenth
early or late, and the last call that began on it is answered for half of the lifetime."""

Credentials = Callable[[], grpc.ServerCredentials]
"""Makes those of one port."""

Context = Any  # grpc.aio.ServicerContext, which has no types


def server_options(options: ServerOptions) -> list[tuple[str, int]]:
    """GRPC's own settings."""
    bounds = []
    if options.certificate_lifetime is not None:
        # At that age a connection takes no more calls, and the client's gRPC makes another. What is in progress goes
        # on, so that an idle client does not lose its session.
        age = max(1, int(options.certificate_lifetime * SHARE * 1e3))
        bounds.append(("grpc.max_connection_age_ms", age))
    if options.max_connections is not None:
        bounds.append(("grpc.max_allowed_incoming_connections", options.max_connections))
    return [
        *bounds,
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.so_reuseport", 0),  # else two servers could share a port, each with half of the clients
        ("grpc.max_receive_message_length", options.limits.message_bytes),
        ("grpc.max_send_message_length", -1),  # the worker has checked it
        ("grpc.max_concurrent_streams", 1024),  # on one client's connection
        # A peer that vanished is noticed within 4.5 s, since its lease, which begins then, is to be over 5 s late at
        # most. The ping timeout matters: without it gRPC waits a minute, whatever the keepalive timeout says.
        ("grpc.keepalive_time_ms", 1_500),
        ("grpc.keepalive_timeout_ms", 3_000),
        ("grpc.http2.ping_timeout_ms", 3_000),
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
        rule: How it knows its clients.
    """

    def __init__(self, service: Service, options: ServerOptions, rule: IdentityRule) -> None:
        self._service = service
        self._rule = rule
        self._call_lifetime = math.inf if options.certificate_lifetime is None else options.certificate_lifetime / 2
        self._server = grpc.aio.server(options=server_options(options))
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if options.reflection:
            _add_reflection(self._server)

    async def start(self, url: str, port: int, credentials: Credentials | None) -> int:
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

    def _bind(self, address: str, credentials: Credentials | None) -> int:
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials()))
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
            "Load": self._unary(
                self._load, lambda error: pb.LoadResponse(error=encode_error(error)).SerializeToString()
            ),
            "Open": self._unary(
                self._open, lambda error: pb.OpenResponse(error=encode_error(error)).SerializeToString()
            ),
            "Spaces": self._unary(
                self._spaces, lambda error: pb.SpacesResponse(error=encode_error(error)).SerializeToString()
            ),
            "Close": self._unary(self._close, error_response),
            "Interact": grpc.stream_stream_rpc_method_handler(self._interact),
        }
        # Which operation it is the request tells; the worker reads it, and the server need not.
        for name in ("Reset", "Step", "Render", "Call"):
            handlers[name] = self._unary(self._ask, error_response)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    def _unary(
        self,
        answer: Callable[[bytes, Context, str], Awaitable[bytes]],
        refuse: Callable[[RemoteGymError], bytes],
    ) -> grpc.RpcMethodHandler:
        """A handler of calls by clients that are known; others are refused."""

        async def answer_known(data: bytes, context: Context) -> bytes:
            try:
                client = await self._caller(context)
            except NotPermitted as error:
                return refuse(error)
            return await answer(data, context, client.identity)

        return grpc.unary_unary_rpc_method_handler(answer_known)

    async def _caller(self, context: Context) -> Caller:
        """Who calls.

        Raises:
            NotPermitted: If that cannot be known.
        """
        try:
            client = caller(context, self._rule)
        except NotPermitted as error:
            peer = str(context.peer())
            logger.warning(
                "refused a call from %s: %s", peer, error, repeats=host_of(peer), event="call_refused", peer=peer
            )
            raise
        if client.expires <= time.time():
            # No word about the session, which goes on when the client comes with a new certificate.
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the client's certificate has expired; connect anew")
        return client

    async def _load(self, _: bytes, context: Context, owner: str) -> bytes:
        return self._service.load().SerializeToString()

    async def _open(self, data: bytes, context: Context, owner: str) -> bytes:
        try:
            if len(data) > OPEN_BYTES:
                raise EncodingError(f"the request to open has {len(data):,} bytes; at most {OPEN_BYTES:,} are allowed")
            request = parse(pb.OpenRequest, data)
        except EncodingError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = await self._service.open(request, owner)
        return response.SerializeToString()

    async def _spaces(self, _: bytes, context: Context, owner: str) -> bytes:
        response = await self._service.spaces(*_session_key(context), owner)
        return response.SerializeToString()

    async def _close(self, _: bytes, context: Context, owner: str) -> bytes:
        return await self._service.close_session(*_session_key(context), owner)

    async def _ask(self, data: bytes, context: Context, owner: str) -> bytes:
        return await self._service.ask(*_session_key(context), owner, data)

    async def _interact(self, _: object, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        reasons: list[RemoteGymError] = []

        def cut(reason: RemoteGymError) -> None:
            reasons.append(reason)
            task.cancel()

        try:
            client = await self._caller(context)
            attachment = self._service.attach(*_session_key(context), client.identity, cut)
        except RemoteGymError as error:
            await context.write(error_response(error))
            return
        answered_until = time.monotonic() + min(self._call_lifetime, client.expires - time.time())
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                if time.monotonic() >= answered_until:
                    # Not answered: the client asks again in a new call, for which it shows its certificate again.
                    logger.info(
                        "a call of %s has reached its age; it has to make another",
                        client.identity,
                        repeats=client.identity,
                        identity=client.identity,
                    )
                    return
                await context.write(await attachment.ask(data))
        except asyncio.CancelledError:
            if not reasons:  # the client is gone
                raise
            # An idle client finds it when it asks next, and need not look for the reason.
            await context.write(error_response(reasons[0]))
        finally:
            attachment.detach()


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
