"""The service, carried by gRPC: an adapter that moves bytes and names the client."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from remote_gym.address import grpc_address, is_unix
from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError, EncodingError, RemoteGymError, ServerFull
from remote_gym.protocol.attempt import Attempt
from remote_gym.protocol.constants import ATTEMPT_KEY, SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.server.caller import Caller, known_caller
from remote_gym.server.expiry import warn_of_clients
from remote_gym.server.grpc_reading import Context, ReadLate, address_of, message, room
from remote_gym.server.identity import IdentityRule
from remote_gym.server.intake import Intake
from remote_gym.server.interacting import MOST_UNREAD, Interacting
from remote_gym.server.listening import address_in_use, claim_path, local_addresses, unix_path
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.parse import parse
from remote_gym.wire.parts import LARGEST_MESSAGE
from remote_gym.wire.status import encode_error

OPENING_LIMITS = Limits(message_bytes=LARGEST_MESSAGE, items=256)
"""Bounds on a request to open, which is the only one that the server itself reads: what holds many values in it is left
as it came."""

OPENING_COPIES = 6
"""Times that a request to open is in memory on its way to the worker, as measured with 24 of 4 MiB."""

HANDSHAKE_TIMEOUT_MS = 10_000
"""How long a TLS handshake may take; by itself gRPC would keep a silent connection for two minutes."""

FLUSH = 1.0
"""Seconds that calls have, at the end, to send their last words."""

SHARE = 0.45
"""Of `ServerOptions.certificate_lifetime` that a connection of gRPC's takes new calls: it ends this part up to a tenth
early or late, and the last call that began on it is answered for half of the lifetime."""

Credentials = Callable[[], grpc.ServerCredentials]
"""Makes those of one port."""


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
        # One limit for all methods, and anybody may call. What is larger comes in parts.
        ("grpc.max_receive_message_length", largest_message(options)),
        # Of a message that nobody reads yet gRPC takes what its window holds, and an estimate of the bandwidth lets
        # that grow to the whole message. One that is being read is let in at once, so that requests are not slower.
        ("grpc.http2.bdp_probe", 0),
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


def largest_message(options: ServerOptions) -> int:
    """Bytes of one message that the server reads over gRPC."""
    return min(options.limits.message_bytes, LARGEST_MESSAGE)


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
        self._limits = options.limits
        self._message_bytes = largest_message(options)
        share = max(options.receive_bytes // 2, OPENING_COPIES * self._message_bytes)
        self._intake = Intake(max(options.receive_bytes, share), share)
        self._unread: Counter[str] = Counter()
        self._server = grpc.aio.server(options=server_options(options), interceptors=(ReadLate(self._message_bytes),))
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
        # All of them are of streams, which read when they choose to; see `grpc_reading`.
        calls = {
            "Load": self._call(self._load, pb.LoadResponse),
            "Open": self._call(self._open, pb.OpenResponse),
            "Spaces": self._call(self._spaces, pb.SpacesResponse),
            "Close": self._call(self._close, pb.Response),
            "Interact": self._call(self._interact, pb.Response),
        }
        # Which operation it is the request tells; the worker reads it, and the server need not.
        for name in ("Reset", "Step", "Render", "Call"):
            calls[name] = self._call(self._ask, pb.Response)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, calls)

    def _call(
        self, answer: Callable[[Context, Caller], Awaitable[None]], response_class: Callable[..., Any]
    ) -> grpc.RpcMethodHandler:
        """A handler of calls by clients that are known. Others are refused, before a byte of theirs is read."""

        async def answer_known(_: object, context: Context) -> None:
            try:
                client = await known_caller(context, self._rule)
                await answer(context, client)
            except RemoteGymError as error:
                await context.write(response_class(error=encode_error(error)).SerializeToString())

        return grpc.stream_stream_rpc_method_handler(answer_known)

    async def _load(self, context: Context, _: Caller) -> None:
        await context.write(self._service.load().SerializeToString())

    async def _open(self, context: Context, client: Caller) -> None:
        if (count := self._unread[_holder(context, client)]) >= MOST_UNREAD:
            raise ServerFull(f"{count} calls of this client wait for it to read what they answered; end them first")
        async with self._message(context, client, OPENING_COPIES) as data:
            try:
                request = parse(worker_pb2.Opening, data, OPENING_LIMITS)
            except EncodingError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            if time.time() >= client.near_from:
                warn_of_clients(client.identity, client.expires)
            response = await self._service.open(request, client.identity, _attempt(context))
        if response.HasField("session"):
            response.session.message_bytes = self._message_bytes
        await context.write(response.SerializeToString())

    async def _spaces(self, context: Context, client: Caller) -> None:
        response = await self._service.spaces(*_session_key(context), client.identity, _attempt(context))
        response.message_bytes = self._message_bytes
        # A description can be large, and its client need not read it.
        async with room(self._intake, context, _holder(context, client), min(response.ByteSize(), self._intake.share)):
            data = response.SerializeToString()
            await context.write(data)

    async def _close(self, context: Context, client: Caller) -> None:
        answer = await self._service.close_session(*_session_key(context), client.identity, _attempt(context))
        await context.write(answer)

    async def _ask(self, context: Context, client: Caller) -> None:
        key = _session_key(context)
        turn = self._service.turn(*key, client.identity)
        async with contextlib.AsyncExitStack() as stack:
            async with self._message(context, client) as data:
                await stack.enter_async_context(turn)
                answer = await self._service.ask(*key, client.identity, data)
            await context.write(answer)

    async def _interact(self, context: Context, client: Caller) -> None:
        interacting = Interacting(
            context,
            _holder(context, client),
            intake=self._intake,
            limits=self._limits,
            answered_until=time.monotonic() + min(self._call_lifetime, client.expires - time.time()),
            unread=self._unread,
        )
        key, attempt = _session_key(context), _attempt(context)
        attachment = self._service.attach(*key, client.identity, interacting.cut, attempt)
        await interacting.serve(attachment)

    def _message(self, context: Context, client: Caller, copies: int = 1) -> AbstractAsyncContextManager[bytes]:
        return message(self._intake, context, _holder(context, client), self._message_bytes, copies)


def _holder(context: Context, client: Caller) -> str:
    """Whose bytes a call's are: the client's, over whatever connections, or its address's where nobody is known."""
    return client.identity or address_of(context)


def _session_key(context: Context) -> tuple[str, str]:
    metadata = dict(context.invocation_metadata() or ())
    return str(metadata.get(SESSION_KEY, "")), str(metadata.get(TOKEN_KEY, ""))


def _attempt(context: Context) -> Attempt | None:
    return Attempt.parse(str(dict(context.invocation_metadata() or ()).get(ATTEMPT_KEY, "")))


def _add_reflection(server: Any) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError as error:
        raise ConfigError("reflection=True needs grpcio-reflection: pip install 'remote-gym[reflection]'") from error
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
