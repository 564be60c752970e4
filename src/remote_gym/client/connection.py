"""A gRPC channel to one server, and the calls made on it."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import grpc

from remote_gym.address import Place, grpc_address
from remote_gym.client.credentials import Credentials
from remote_gym.client.diagnosis import diagnose, summarise
from remote_gym.client.direct import DirectConnection
from remote_gym.config import ClientOptions, Limits, TlsFiles
from remote_gym.errors import ConfigError, ConnectError, ConnectionLost, DeadlineExceeded, EncodingError, TransportError
from remote_gym.protocol import SERVICE_NAME, SESSION_KEY, TOKEN_KEY
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
    """

    def __init__(self, url: str, port: int, files: TlsFiles | None, options: ClientOptions, token: str = "") -> None:
        self.address = grpc_address(url, port)
        self._where = (url, port, files)
        self._options = options
        self._credentials = Credentials(files, token)
        self._make_channel()

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
        self._used = self._credentials.channel()
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
        call = self._load.future(b"", timeout=timeout)

        def answer() -> pb.LoadResponse | None:
            try:
                response = parse(pb.LoadResponse, call.result())
                return None if response.HasField("error") else response
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return None
                raise from_rpc_error(error, f"asking {self.address} for its load") from error

        return answer

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
        call = self._open.future(request.SerializeToString(), timeout=open_timeout, wait_for_ready=True)
        deadline = time.monotonic() + connect_timeout
        reached = False
        while True:
            try:
                return parse(pb.OpenResponse, call.result(timeout=None if reached else min(PATIENCE, connect_timeout)))
            except grpc.FutureTimeoutError:
                try:
                    reached = self._look(deadline)
                except BaseException:
                    call.cancel()
                    raise
            except grpc.RpcError as error:
                raise from_rpc_error(error, f"opening a session at {self.address}") from error

    def reach(self, session_id: str, token: str, timeout: float) -> pb.SpacesResponse:
        """Make a broken connection again, if that can be done, and see that the session is still there.

        Returns:
            What the server tells of it.

        Raises:
            ConnectError: If it is not done within `timeout` seconds; with what to check.
            SessionLost: If the session has ended, with the reason.
        """
        # A channel keeps the certificates that it was made with.
        if self._credentials.channel() is not self._used:
            self.renew()
        metadata = _session_metadata(session_id, token)
        try:
            answer = parse(
                pb.SpacesResponse, self._spaces(b"", timeout=timeout, metadata=metadata, wait_for_ready=True)
            )
        except grpc.RpcError as error:
            found = summarise(diagnose(*self._where, timeout=2.0))
            raise ConnectError(f"no connection to {self.address} within {timeout:.3g} s: {found}") from error
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

    def close_session(self, session_id: str, token: str, timeout: float) -> None:
        """Let the server close a session, whatever state it is in. Does not wait for a server that is gone.

        Raises:
            ConnectionLost: If the server cannot be reached.
            DeadlineExceeded: If it does not answer within `timeout` seconds.
        """
        try:
            self._close(b"", timeout=timeout, metadata=_session_metadata(session_id, token))
        except grpc.RpcError as error:
            raise from_rpc_error(error, f"closing session {session_id} at {self.address}") from error

    def attach(self, session_id: str, token: str) -> Interaction:
        """Begin an `Interact` call for a session.

        Raises:
            ConnectionLost: If the channel has been closed.
        """
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            call = self._interact(iter(requests.get, None), metadata=_session_metadata(session_id, token))
        except ValueError as error:  # as gRPC has it
            raise ConnectionLost(f"the channel to {self.address} is closed") from error
        return Interaction(call, requests, self.address)

    def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> DirectConnection:
        """Connect to a session's worker itself.

        Raises:
            ConnectError: If that is not done within `timeout` seconds.
        """
        options = self._options
        try:
            context = self._credentials.context()
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
            client_token=self._credentials.token,
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
            answer: bytes = call(data, timeout=timeout, metadata=_session_metadata(session_id, token))
        except grpc.RpcError as error:
            raise from_rpc_error(error, f"{method} at {self.address}") from error
        return answer

    def close(self) -> None:
        """End every call and close the channel."""
        self._channel.close()


class Interaction:
    """One `Interact` call: send, and receive the answer, again and again."""

    def __init__(self, call: Any, requests: queue.SimpleQueue[bytes | None], address: str) -> None:
        self._call = call
        self._requests = requests
        self._address = address
        self._watchdog = _Watchdog(call, requests)
        self._sent = time.monotonic()

    def send(self, data: bytes, deadline: float) -> None:
        """Send one message.

        Args:
            data: The message.
            deadline: On `time.monotonic`, for the answer to come.
        """
        self._sent = time.monotonic()
        self._watchdog.watch(deadline)
        self._requests.put(data)

    def receive(self, deadline: float) -> bytes:
        """Wait for the message that answers the one sent. After an error the interaction is of no more use.

        Args:
            deadline: As when it was sent.

        Raises:
            DeadlineExceeded: If it did not come in time.
            ConnectionLost: If the call ended.
            EncodingError: If the answer is over the limit.
        """
        try:
            answer: bytes = next(self._call)
        except StopIteration:
            raise ConnectionLost(f"{self._address} ended the call") from None
        except grpc.RpcError as error:
            if self._watchdog.expired:
                waited = deadline - self._sent
                raise DeadlineExceeded(f"no answer from {self._address} within {waited:.3g} s") from error
            raise from_rpc_error(error, f"the connection to {self._address}") from error
        except RuntimeError as error:
            # Ctrl-C while gRPC waits for a lock: it then releases what it has not got, and this error hides the other.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        finally:
            self._watchdog.rest()
        return answer

    def close(self) -> None:
        """Detach. The session lives on for its lease. Returns at once: the call is cancelled by a thread of its own."""
        self._watchdog.stop()
        self._requests.put(None)


class _Watchdog:
    """Cancels a call whose deadline has passed: a stream has no deadlines for its single messages.

    A thread of its own looks every `INTERVAL` seconds. That costs a step no more than setting an attribute, where a
    timer, or a queue to wait on, would cost it a hand-over between threads.

    It is also who cancels a call that is to end. After Ctrl-C in the middle of gRPC's code that may take for ever, as
    a lock of the call's may still be held; and so may its ``__del__``, from which the thread's reference keeps it.
    """

    INTERVAL = 0.25

    def __init__(self, call: Any, requests: queue.SimpleQueue[bytes | None]) -> None:
        self.expired = False
        self._deadline = math.inf
        self._call = call
        # Held to change the deadline and to judge it, or it could strike a request that has just been answered.
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._to_cancel: list[Any] = []
        # Weakly, so that an environment that is dropped without being closed can be collected, and its call with it.
        arguments = (weakref.ref(self), self._stopped, requests, self._to_cancel)
        threading.Thread(target=_look_after, args=arguments, name="remote_gym-deadlines", daemon=True).start()

    def watch(self, deadline: float) -> None:
        with self._lock:
            self._deadline = deadline
            self.expired = False

    def rest(self) -> None:
        with self._lock:
            self._deadline = math.inf

    def stop(self) -> None:
        self._to_cancel.append(self._call)
        self._stopped.set()

    def look(self) -> None:
        with self._lock:
            if time.monotonic() > self._deadline:
                self.expired = True
                self.stop()


def _look_after(
    reference: weakref.ref[_Watchdog],
    stopped: threading.Event,
    requests: queue.SimpleQueue[bytes | None],
    to_cancel: list[Any],
) -> None:
    while not stopped.wait(_Watchdog.INTERVAL):
        watchdog = reference()
        if watchdog is None:
            break
        watchdog.look()
        del watchdog
    requests.put(None)  # gRPC's thread that reads them ends with it
    for call in to_cancel:
        call.cancel()


def from_rpc_error(error: grpc.RpcError, what: str) -> TransportError | EncodingError:
    """Our error for one of gRPC's."""
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{what} took too long")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return EncodingError(f"{what}: {details}; raise Limits.message_bytes at both ends")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ConnectError(f"{what}: what listens there is no remote_gym server ({details})")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return EncodingError(f"{what}: {details}")
    return ConnectionLost(f"{what} broke: {code.name}: {details}")


def _session_metadata(session_id: str, token: str) -> tuple[tuple[str, str], ...]:
    return ((SESSION_KEY, session_id), (TOKEN_KEY, token))


def _method(name: str) -> str:
    return f"/{SERVICE_NAME}/{name}"
