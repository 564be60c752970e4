"""A gRPC channel to one server, and the calls made on it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import grpc

from remote_gym.address import Place, grpc_address
from remote_gym.client import forking
from remote_gym.client.credentials import Credentials
from remote_gym.client.diagnosis import diagnose, summarise
from remote_gym.client.direct import DirectConnection
from remote_gym.client.interaction import Interaction
from remote_gym.client.rpc_errors import answered, from_rpc_error
from remote_gym.config import ClientOptions, Limits, TlsFiles
from remote_gym.errors import ConfigError, ConnectError, ConnectionLost
from remote_gym.protocol.attempt import Attempts
from remote_gym.protocol.constants import ATTEMPT_KEY, SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.status import decode_error

PATIENCE = 0.5
"""Seconds without an answer after which it is worth finding out why."""


def channel_options(limits: Limits) -> list[tuple[str, int]]:
    """GRPC's own settings."""
    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.enable_retries", 0),  # a request that gRPC repeats by itself would step twice
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # one environment's trouble is not another's
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),  # which is also how long one attempt may take
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 4_000),
        # Without it a half-open connection takes a minute to notice, whatever the keepalive timeout says.
        ("grpc.http2.ping_timeout_ms", 4_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


class GrpcConnection:
    """A channel to one server.

    Args:
        url: Host name, address, or ``unix:path``.
        port: TCP port.
        files: None for plaintext.
        options: The client's.
        token: What the server knows the client by, where that is no certificate; empty without one. Needs TLS.
        credentials: Of an earlier connection with the same files, whose last good ones are used while these do not fit.
    """

    def __init__(
        self,
        url: str,
        port: int,
        files: TlsFiles | None,
        options: ClientOptions,
        token: str = "",
        credentials: Credentials | None = None,
    ) -> None:
        self.address = grpc_address(url, port)
        self._where = (url, port, files)
        self._options = options
        if credentials is None or credentials.token != token:
            credentials = Credentials(files, token)
        self.credentials = credentials
        self._attempts = Attempts()
        self._closed = self._suspended = False
        self._calls: set[object] = set()  # those of one answer that are waited for
        self._stream: weakref.ref[Interaction] | None = None
        self._make_channel()
        forking.add_channel(self)

    @property
    def place(self) -> Place:
        """Url and port."""
        url, port, _ = self._where
        return url, port

    def renew(self) -> None:
        """Go on with another channel, since certificates have changed, or a call was interrupted by Ctrl-C.

        An interrupt between two lines of gRPC's can leave a lock of the call held for good, by which the channel's one
        thread for streams then waits. The old channel is closed by a thread that may wait with it.
        """
        threading.Thread(target=self._channel.close, name="remote_gym-old-channel", daemon=True).start()
        self._make_channel()

    def _make_channel(self) -> None:
        settings = channel_options(self._options.limits)
        self._used = self.credentials.channel()
        if self._used is None:
            self._channel = grpc.insecure_channel(self.address, options=settings)
        else:
            self._channel = grpc.secure_channel(self.address, self._used, options=settings)
        self._load = self._channel.unary_unary(_method("Load"))
        self._open = self._channel.unary_unary(_method("Open"))
        self._spaces = self._channel.unary_unary(_method("Spaces"))
        self._close = self._channel.unary_unary(_method("Close"))
        self._interact = self._channel.stream_stream(_method("Interact"))

    def ask_load(self, timeout: float) -> Callable[[], pb.LoadResponse | None]:
        """Ask how busy the server is, without waiting for the answer.

        Args:
            timeout: Seconds.

        Returns:
            What waits for it, and returns None for a server that does not tell: of an older release, or because it does
            not know the client, which opening will say.

        Raises:
            TransportError: By what is returned, if the server could not be reached in time.
        """
        call = self._load.future(b"", timeout=timeout, metadata=self.credentials.metadata)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        what = f"asking {self.address} for its load"

        def answer() -> pb.LoadResponse | None:
            try:
                response = parse(pb.LoadResponse, answered(call.result(), what))
                return None if response.HasField("error") else response
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return None
                raise from_rpc_error(error, what) from error

        return answer

    def check_known(self, timeout: float) -> None:
        """See whether the server knows this client, without opening anything.

        Args:
            timeout: Seconds.

        Raises:
            NotPermitted: If it does not, saying what is missing.
            TransportError: If no answer came in time.
        """
        what = f"asking whether {self.address} knows this client"
        try:
            with self._in_use():
                answer = self._load(b"", timeout=timeout, metadata=self.credentials.metadata)
            response = parse(pb.LoadResponse, answered(answer, what))
        except grpc.RpcError as error:
            raise from_rpc_error(error, what) from error
        if response.HasField("error"):
            raise decode_error(response.error)

    def open(self, request: pb.OpenRequest, *, connect_timeout: float, open_timeout: float) -> pb.OpenResponse:
        """Reach the server and open a session.

        Raises:
            ConnectError: If the server was not reached within `connect_timeout` seconds, or one end does not accept
                the other; with what to check.
            ConnectionLost: If the connection broke; the server closes what it may have opened after its lease.
            DeadlineExceeded: If opening took longer than `open_timeout` seconds.
            EncodingError: If the answer is none.
        """
        # gRPC does not tell an unanswered call from one that was never sent, nor why. So a call that is not answered
        # soon makes us look at the connection ourselves; in the usual case it costs no round trip of its own.
        data, metadata = request.SerializeToString(), (*self.credentials.metadata, self._attempt())
        call = self._open.future(data, timeout=open_timeout, metadata=metadata, wait_for_ready=True)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        deadline = time.monotonic() + connect_timeout
        what = f"opening a session at {self.address}"
        reached = False
        while True:
            try:
                answer = call.result(timeout=None if reached else min(PATIENCE, connect_timeout))
                return parse(pb.OpenResponse, answered(answer, what), self._options.limits)
            except grpc.FutureTimeoutError:
                try:
                    reached = self._look(deadline)
                except BaseException:
                    call.cancel()
                    raise
            except grpc.RpcError as error:
                raise from_rpc_error(error, what) from error

    def reach(self, session_id: str, token: str, timeout: float) -> pb.SpacesResponse:
        """Make a broken connection again, if that can be done, and see that the session is still there.

        Returns:
            What the server tells of it.

        Raises:
            ConnectError: If it is not done within `timeout` seconds; with what to check.
            ConnectionLost: If the server was reached and gave no answer.
            SessionLost: If the session has ended, with the reason.
        """
        # A channel keeps the certificates that it was made with.
        if self.credentials.channel() is not self._used:
            self.renew()
        metadata, start = (*self._metadata(session_id, token), self._attempt()), time.monotonic()
        try:
            with self._in_use():
                data = self._spaces(b"", timeout=timeout, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            waited = time.monotonic() - start  # less than `timeout` where gRPC has given up before
            found = summarise(diagnose(*self._where, timeout=min(2.0, timeout)))
            raise ConnectError(f"no connection to {self.address} within {waited:.3g} s: {found}") from error
        what = f"looking for session {session_id} at {self.address}"
        answer = parse(pb.SpacesResponse, answered(data, what), self._options.limits)
        if answer.HasField("error"):
            raise decode_error(answer.error)
        return answer

    def _look(self, deadline: float) -> bool:
        """Whether the server can be reached, as far as one can see from outside.

        Raises:
            ConnectError: If it cannot, and trying again would not help or the time is up.
        """
        checks = diagnose(*self._where, timeout=max(0.1, min(2.0, deadline - time.monotonic())))
        if all(check.works for check in checks):
            return True
        # A server may still be starting; certificates that do not fit will not begin to.
        if time.monotonic() >= deadline or any(check.hopeless for check in checks):
            raise ConnectError(f"no connection to {self.address}: {summarise(checks)}")
        return False

    def close_session(self, session_id: str, token: str, timeout: float, *, anyones: bool = False) -> None:
        """Let the server close a session, whatever state it is in. Does not wait for a server that is gone.

        Args:
            session_id: The session's.
            token: Its secret.
            timeout: Seconds.
            anyones: Whether to close it also where another client has taken it over.

        Raises:
            ConnectionLost: If the server cannot be reached.
            DeadlineExceeded: If it does not answer within `timeout` seconds.
        """
        metadata = self._metadata(session_id, token)
        try:
            with self._in_use():
                self._close(b"", timeout=timeout, metadata=metadata if anyones else (*metadata, self._attempt()))
        except grpc.RpcError as error:
            raise from_rpc_error(error, f"closing session {session_id} at {self.address}") from error

    def attach(self, session_id: str, token: str, message_bytes: int = 0) -> Interaction:
        """Begin an `Interact` call for a session.

        Args:
            session_id: The session's.
            token: Its secret.
            message_bytes: Size of the largest message that the server takes; 0 for any.

        Raises:
            ConnectionLost: If the channel has been closed.
        """
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            # Whatever interrupts this line leaves a call that may arrive late: after the one that is made next.
            metadata = (*self._metadata(session_id, token), self._attempt())
            call = self._interact(iter(requests.get, None), metadata=metadata)
        except ValueError as error:  # as gRPC has it
            raise ConnectionLost(f"the channel to {self.address} is closed") from error
        stream = Interaction(call, requests, self.address, message_bytes)
        self._stream = weakref.ref(stream)
        return stream

    def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> DirectConnection:
        """Connect to a session's worker itself.

        Raises:
            ConnectError: If that is not done within `timeout` seconds.
        """
        options = self._options
        try:
            context = self.credentials.context()
        except ConfigError as error:  # the channel has been made, so the files have changed since
            raise ConnectError(f"no direct connection for the time being: {error}") from error
        return DirectConnection(
            self._where[0],
            address,
            token,
            context=context,
            limits=options.limits,
            timeout=timeout,
            poll_us=options.poll_us,
            client_token=self.credentials.token,
        )

    def call(self, method: str, session_id: str, token: str, data: bytes, timeout: float) -> bytes:
        """Make one call by itself, for those that do without `Interact`, and return the answer as it came.

        Args:
            method: Such as ``"Step"``.
            session_id: The session's.
            token: Its secret.
            data: The encoded request.
            timeout: Seconds.

        Raises:
            TransportError: If it was not answered.
            EncodingError: If one end did not take the message.
        """
        call = self._channel.unary_unary(_method(method))
        try:
            with self._in_use():
                answer = call(data, timeout=timeout, metadata=self._metadata(session_id, token))
        except grpc.RpcError as error:
            raise from_rpc_error(error, f"{method} at {self.address}") from error
        return answered(answer, f"{method} at {self.address}")

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Wait for the answer to a call."""
        call = object()
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def before_fork(self) -> None:
        """Close the channel, which no fork may see, unless it is in use; see `remote_gym.client.forking`."""
        stream = None if self._stream is None else self._stream()
        self._suspended = not self._calls and (stream is None or stream.closed)
        if self._suspended:
            self._channel.close()

    def after_fork(self) -> None:
        """Make another channel."""
        if self._suspended and not self._closed:
            self._make_channel()

    def close(self) -> None:
        """End every call and close the channel."""
        self._closed = True
        self._channel.close()

    def _attempt(self) -> tuple[str, str]:
        return ATTEMPT_KEY, str(self._attempts.next())

    def _metadata(self, session_id: str, token: str) -> tuple[tuple[str, str], ...]:
        return (*self.credentials.metadata, (SESSION_KEY, session_id), (TOKEN_KEY, token))


def _method(name: str) -> str:
    return f"/{SERVICE_NAME}/{name}"
