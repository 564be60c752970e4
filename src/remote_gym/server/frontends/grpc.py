"""The service, carried by gRPC: an adapter that moves bytes and names the client."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from remote_gym.address import grpc_address, is_unix, unix_path
from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError, EncodingError, FullReason, RemoteGymError, ServerFull
from remote_gym.logs.foreign import CYGRPC, drop_undecodable
from remote_gym.protocol.attempt import Attempt
from remote_gym.protocol.constants import ATTEMPT_KEY, SERVICE_NAME, SESSION_KEY, TAKEN_KEY, TOKEN_KEY
from remote_gym.server.access.clients import CertificateExpired, Client
from remote_gym.server.frontends.crowding import Answers, Calls, CrowdedError
from remote_gym.server.frontends.grpc_caller import credentials_of
from remote_gym.server.frontends.grpc_conduct import Conduct, CutUnruly
from remote_gym.server.frontends.grpc_interact import MOST_UNREAD, Interacting
from remote_gym.server.frontends.grpc_reading import Context, ReadLate, address_of, counted, message
from remote_gym.server.frontends.health import NOT_SERVING, Health
from remote_gym.server.frontends.intake import Intake
from remote_gym.server.frontends.relay.peers import peer_of
from remote_gym.server.service import Service
from remote_gym.transport.binding import address_in_use, claim_path, local_addresses
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error
from remote_gym.wire.parse import parse
from remote_gym.wire.parts import LARGEST_MESSAGE

OPENING_LIMITS = Limits(message_bytes=LARGEST_MESSAGE, items=256)
"""Bounds on a request to open, which is the only one that the server itself reads: what holds many values in it is left
as it came."""

OPENING_FIELDS = 4096
"""Fields of such a request, at most: two bytes can be one that holds nothing, and a walk over 4 MiB of them would keep
everybody waiting for half a second."""

OPENING_COPIES = 6
"""Times that a request to open is in memory on its way to the worker, as measured with 24 of 4 MiB."""

ONE_PORT = sys.platform == "linux"
"""Whether gRPC is relayed to, from the port that direct connections come to. Elsewhere sockets have no abstract names,
by which gRPC knows whose bytes it is sent, so that gRPC has the port, and direct connections a second one."""

HANDSHAKE_TIMEOUT_MS = 10_000
"""How long a TLS handshake may take; by itself gRPC would keep a silent connection for two minutes."""

CALLS = 512
"""Calls of one client, with two more for each session that there may be: half-sent ones, and unread answers, among
them."""

MOST_PENDING = 8192
"""Calls that wait to be looked at before gRPC drops some of those that come."""

REFUSALS, ALL_REFUSALS = 256, 2048
"""Refusals of one address, and of all, that may be on their way in the form that clients read. Further calls end by
their status alone, which says the same."""

FLUSH = 1.0
"""Seconds that calls have, at the end, to send their last words."""

SHARE = 0.45
"""Share of `ServerOptions.certificate_lifetime` in which a connection takes new calls: it ends this part up to a tenth
early or late, and the last call that began on it is answered for half of the lifetime."""


class OtherService(Protocol):
    """Another protocol's service, whose calls are carried by gRPC as ours are."""

    methods: Mapping[str, Callable[[Context, Client], Awaitable[None]]]
    """Answers to calls, by the methods' names."""

    def refusal(self, error: RemoteGymError) -> Any:
        """Answer to a call that is refused."""

    def close(self) -> None:
        """Begin nothing more, once all calls have ended."""


GrpcCredentials = Callable[[], grpc.ServerCredentials]
"""Makes those of one port."""


def server_options(options: ServerOptions) -> list[tuple[str, int]]:
    """GRPC's own settings."""
    bounds = []
    if options.certificate_lifetime is not None:
        # At that age a connection takes no more calls, and the client's gRPC makes another. What is in progress goes
        # on, so that an idle client does not lose its session.
        age = max(1, int(options.certificate_lifetime * SHARE * 1e3))
        bounds.append(("grpc.max_connection_age_ms", age))
    # On a port of gRPC's own. On the one port the listener counts, and gRPC might count one that has ended until later.
    if options.max_connections is not None and (options.grpc_port is not None or not ONE_PORT):
        bounds.append(("grpc.max_allowed_incoming_connections", options.max_connections))
    return [
        *bounds,
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.so_reuseport", 0),  # else two servers could share a port, each with half of the clients
        # One limit for all methods, and anybody may call. What is larger comes in parts.
        ("grpc.max_receive_message_length", largest_message(options)),
        # 4 KB can be 4 MiB, compressed, and what is large compresses itself. One bit for each algorithm; the first is
        # for none.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # Of a message that nobody reads yet gRPC takes what its window holds, and an estimate of the bandwidth lets
        # that grow to the whole message. One that is being read is let in at once, so that requests are not slower.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_send_message_length", -1),  # the worker has checked it
        # Beyond a thousand calls gRPC drops those that come, so fast that a flood of them begins anew 40,000 times a
        # second, and the server does not get to see whose they are.
        ("grpc.server.max_pending_requests", MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MOST_PENDING),
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
    return min(options.message_limits.message_bytes, LARGEST_MESSAGE)


class GrpcServer:
    """Serves a `Service` at one address.

    Args:
        service: What answers.
        options: The server's.
        conduct: Counts the calls that are of no use.
        others: Services of other protocols, by their names.
    """

    def __init__(
        self,
        service: Service,
        options: ServerOptions,
        conduct: Conduct,
        others: Mapping[str, OtherService] = MappingProxyType({}),
    ) -> None:
        self._service = service
        self._limits = options.message_limits
        self._message_bytes = largest_message(options)
        share = max(options.receive_bytes // 2, OPENING_COPIES * self._message_bytes)
        self._intake = Intake(max(options.receive_bytes, share), share)
        self._answers = Answers(options.receive_bytes // 8)
        self._calls = Calls(CALLS + 2 * options.max_sessions)
        self._refusals = Calls(REFUSALS, ALL_REFUSALS, always=1)
        self._unread: Counter[str] = Counter()
        self._writing: set[tuple[str, str, object]] = set()  # holders, sessions, and calls of answers on their way
        self._conduct = conduct
        interceptors = (CutUnruly(conduct), ReadLate(self._message_bytes, (SERVICE_NAME, *others)))
        CYGRPC.addFilter(drop_undecodable)  # which a second server's does not add again
        self._server = grpc.aio.server(options=server_options(options), interceptors=interceptors)
        self._health = Health(("", SERVICE_NAME))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        for name, other in others.items():
            methods = {method: self._call(answer, other.refusal) for method, answer in other.methods.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if options.reflection:
            _add_reflection(self._server)

    def listen(self, url: str, port: int, credentials: GrpcCredentials | None) -> int:
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
        return 0 if is_unix(url) else port

    def listen_privately(self, address: str, credentials: GrpcCredentials | None) -> None:
        """Listen for what the server's one port relays.

        Args:
            address: A Unix socket's, as gRPC writes it.
            credentials: None for plaintext.

        Raises:
            ConfigError: If that cannot be done.
        """
        self._bind(address, credentials)

    async def start(self) -> None:
        """Answer calls."""
        await self._server.start()

    def _bind(self, address: str, credentials: GrpcCredentials | None) -> int:
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials()))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {address_in_use(address)}") from error

    def report_stopping(self) -> None:
        """Answer health checks by NOT_SERVING from now on."""
        self._health.set(NOT_SERVING)

    async def stop(self) -> None:
        """End all calls, once what they have to say is on its way."""
        await self._server.stop(FLUSH)

    def _handlers(self) -> grpc.GenericRpcHandler:
        # All of them are of streams, which read when they choose to; see `grpc_reading`.
        calls = {
            "Load": self._call(self._load, _refusals(pb.LoadResponse)),
            "Open": self._call(self._open, _refusals(pb.OpenResponse)),
            "Spaces": self._call(self._spaces, _refusals(pb.SpacesResponse)),
            "Close": self._call(self._close, _refusals(pb.Response)),
            "Interact": self._call(self._interact, _refusals(pb.Response)),
        }
        # Which operation it is the request tells; the worker reads it, and the server need not.
        for name in ("Reset", "Step", "Render", "Call"):
            calls[name] = self._call(self._ask, _refusals(pb.Response))
        return grpc.method_handlers_generic_handler(SERVICE_NAME, calls)

    def _call(
        self, answer: Callable[[Context, Client], Awaitable[None]], refusal: Callable[[RemoteGymError], Any]
    ) -> grpc.RpcMethodHandler:
        """A handler of calls by clients that are known. Others are refused, before a byte of theirs is read.

        Args:
            answer: Answers a call.
            refusal: Makes an answer of an error.
        """

        async def answer_known(_: object, context: Context) -> None:
            try:
                client = self._service.identify(credentials_of(context))
            except CertificateExpired as error:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            except RemoteGymError as error:
                await self._refuse(context, refusal(error), error)
                return
            holder = _holder(context, client)
            async with counted(self._calls, context, holder):
                try:
                    await answer(context, client)
                    return
                except RemoteGymError as error:
                    response = refusal(error)
                self._conduct.note_refusal(peer_of(context))
                # Not where the error is known: its traceback holds all of the request, as long as nobody reads this.
                await self._send(context, holder, response)

        return grpc.stream_stream_rpc_method_handler(answer_known)

    async def _refuse(self, context: Context, response: Any, error: RemoteGymError) -> None:
        """Refuse a call of who may be anybody, and need not read why."""
        self._conduct.note_refusal(peer_of(context))
        try:
            with self._refusals.one(address_of(context)):
                await context.write(response.SerializeToString())
        except CrowdedError:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))

    async def _send(self, context: Context, holder: str, response: Any) -> None:
        """Write a call's only answer, once its client has room for it."""
        try:
            async with self._answers.sending(holder, response.ByteSize()):
                await context.write(response.SerializeToString())
        except CrowdedError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def _load(self, context: Context, client: Client) -> None:
        await self._send(context, _holder(context, client), self._service.load())

    async def _open(self, context: Context, client: Client) -> None:
        holder = _holder(context, client)
        # Of sessions that have ended, since the answers of the others are one for each.
        sessions = self._service.workers()
        ended = sum(theirs == holder and session not in sessions for theirs, session, _ in self._writing)
        if (count := self._unread[holder] + ended) >= MOST_UNREAD:
            text = f"{count} calls of this client wait for it to read what they answered; end them first"
            raise ServerFull(text, reason=FullReason.UNREAD)
        self._service.check_rate(client)
        await self._send(context, holder, await self._opened(context, client))

    async def _opened(self, context: Context, client: Client) -> pb.OpenResponse:
        # Apart, so that the request is gone when the answer is written, which its client need not read.
        async with self._message(context, client, OPENING_COPIES) as data:
            try:
                request = parse(worker_pb2.Opening, data, OPENING_LIMITS, OPENING_FIELDS)
            except EncodingError as error:
                self._service.check_rate(client, take=True)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            # Without it a client cannot tell a call that gRPC has dropped, as it does in a flood, from one that broke.
            await context.send_initial_metadata(((TAKEN_KEY, "1"),))
            response = await self._service.open(request, client, _attempt(context))
        if response.HasField("session"):
            response.session.message_bytes = self._message_bytes
            _name_place(response.session, context)
        return response

    async def _spaces(self, context: Context, client: Client) -> None:
        response = await self._service.spaces(*_session_key(context), client, _attempt(context))
        response.message_bytes = self._message_bytes
        _name_place(response, context)
        await self._send(context, _holder(context, client), response)

    async def _close(self, context: Context, client: Client) -> None:
        answer = await self._service.close_session(*_session_key(context), client, _attempt(context))
        await self._send(context, _holder(context, client), pb.Response.FromString(answer))

    async def _ask(self, context: Context, client: Client) -> None:
        key = _session_key(context)
        turn = self._service.turn(*key, client)
        async with contextlib.AsyncExitStack() as stack:
            async with self._message(context, client) as data:
                await stack.enter_async_context(turn)
                answer = await self._service.ask(*key, client, data)
            del data  # which is not to be kept until the answer has been read
            written = (_holder(context, client), key[0], context)
            self._writing.add(written)
            try:
                await context.write(answer)
            finally:
                self._writing.discard(written)

    async def _interact(self, context: Context, client: Client) -> None:
        interacting = Interacting(
            context,
            _holder(context, client),
            intake=self._intake,
            limits=self._limits,
            answered_until=client.answered_until,
            unread=self._unread,
        )
        key, attempt = _session_key(context), _attempt(context)
        attachment = self._service.attach(*key, client, interacting.cut, attempt)
        await interacting.serve(attachment)

    def _message(self, context: Context, client: Client, copies: int = 1) -> AbstractAsyncContextManager[bytes]:
        return message(self._intake, context, _holder(context, client), self._message_bytes, copies)


def _refusals(response_class: Callable[..., Any]) -> Callable[[RemoteGymError], Any]:
    return lambda error: response_class(error=encode_error(error))


def _holder(context: Context, client: Client) -> str:
    """Name under which a call's bytes are counted: the identity, or the address of an anonymous client."""
    return client.identity or address_of(context)


def _name_place(answer: pb.Session | pb.SpacesResponse, context: Context) -> None:
    """Direct connections come to the port that the client has found, unless it has found gRPC's own."""
    if answer.HasField("direct") and peer_of(context).number is not None:
        answer.direct.same_place = True


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
