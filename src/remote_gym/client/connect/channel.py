"""A gRPC channel that lives through forks, changed certificates, and Ctrl-C."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
import weakref
from collections.abc import Iterator

import grpc

from remote_gym.client.connect import forking
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.grpc_stream import GrpcStream
from remote_gym.client.connect.registry import CHANNELS
from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost, DeadlineExceeded
from remote_gym.protocol.constants import SERVICE_NAME

Metadata = tuple[tuple[str, str], ...]

_PAUSE = 0.0005
"""Seconds between two looks at whether a fork is over."""


def channel_options(limits: Limits, server_name: str | None = None) -> list[tuple[str, int | str]]:
    """GRPC's own settings."""
    return [
        # By which it asks for the server, and checks the certificate.
        *([] if server_name is None else [("grpc.ssl_target_name_override", server_name)]),
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


class Channel:
    """A channel to one server: gRPC's, another one after each fork.

    Args:
        address: As gRPC takes it.
        credentials: What the client shows.
        limits: Bounds on messages.
        server_name: The server's, where that is not the address's host.
    """

    def __init__(self, address: str, credentials: Credentials, limits: Limits, server_name: str | None = None) -> None:
        self._address = address
        self._credentials = credentials
        self._limits = limits
        self._server_name = server_name
        self._closed = self._suspended = False
        self._calls: set[object] = set()  # those of one answer that are waited for
        self._stream: weakref.ref[GrpcStream] | None = None
        CHANNELS.add(self)
        with self._in_use(math.inf, f"a channel to {address}", is_new=True):
            self._make()

    @property
    def is_outdated(self) -> bool:
        """Whether certificates have changed: a channel keeps those that it was made with."""
        return self._credentials.channel() is not self._used

    def renew(self) -> None:
        """Go on with another channel, since certificates have changed, or a call was interrupted by Ctrl-C.

        An interrupt between two lines of gRPC's can leave a lock of the call held for good, by which the channel's one
        thread for streams then waits. The old channel is closed by a thread that may wait with it.
        """
        with self._in_use(math.inf, f"another channel to {self._address}"):
            if self._closed:  # or it would be open again
                return
            threading.Thread(target=_close, args=(self._channel,), name="remote_gym-old-channel", daemon=True).start()
            self._make()

    def ask(
        self,
        method: str,
        data: bytes,
        timeout: float,
        what: str,
        metadata: Metadata = (),
        *,
        wait_for_ready: bool | None = None,
    ) -> bytes | None:
        """Make a call, and wait for its answer.

        Args:
            method: Such as ``"Step"``.
            data: The encoded request.
            timeout: Seconds.
            what: Is done, for errors.
            metadata: Beside the credentials'.
            wait_for_ready: As gRPC has it.

        Returns:
            The answer; see `answered` for None.

        Raises:
            grpc.RpcError: If there is none.
            ConnectionLost: If the channel has been closed.
            DeadlineExceeded: If a fork did not end in time.
        """
        deadline = time.monotonic() + timeout
        with self._in_use(deadline, what):
            call = self._channel.unary_unary(method_path(method))
            timeout = max(0.0, deadline - time.monotonic())
            answer: bytes | None = call(
                data, timeout=timeout, metadata=(*self._credentials.metadata, *metadata), wait_for_ready=wait_for_ready
            )
        return answer

    def begin(
        self,
        method: str,
        data: bytes,
        timeout: float,
        what: str,
        metadata: Metadata = (),
        *,
        wait_for_ready: bool | None = None,
    ) -> grpc.CallFuture[bytes]:
        """Make a call, whose answer is not waited for here. Arguments and errors are those of `ask`."""
        deadline = time.monotonic() + timeout
        with self._in_use(deadline, what):
            call = self._channel.unary_unary(method_path(method)).future(
                data,
                timeout=max(0.0, deadline - time.monotonic()),
                metadata=(*self._credentials.metadata, *metadata),
                wait_for_ready=wait_for_ready,
            )
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return call

    def attach(self, what: str, metadata: Metadata, message_bytes: int, method: str = "") -> GrpcStream:
        """Begin a call that carries messages both ways.

        Args:
            what: Is done, for errors.
            metadata: Beside the credentials'.
            message_bytes: Size of the largest message that the server takes; 0 for any.
            method: Path of another service's, whose server may still be starting; empty for `Interact`.

        Raises:
            ConnectionLost: If the channel has been closed.
        """
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with self._in_use(math.inf, what):
            interact = self._channel.stream_stream(method or method_path("Interact"))
            call = interact(
                iter(requests.get, None),
                metadata=(*self._credentials.metadata, *metadata),
                wait_for_ready=bool(method) or None,
            )
            stream = GrpcStream(call, requests, self._address, message_bytes)
            self._stream = weakref.ref(stream)
        return stream

    def suspend(self) -> None:
        """Have all uses that begin wait for `after_fork`."""
        self._suspended = True

    def before_fork(self, deadline: float) -> bool:
        """Close the channel, which no fork may see, unless it is in use; see `remote_gym.client.connect.forking`."""
        self._suspended = True
        stream = None if self._stream is None else self._stream()
        is_attached = stream is not None and not stream.closed
        while self._calls and not is_attached and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        if self._calls or is_attached:
            self._suspended = False
            return False
        self._channel.close()
        forking.channel_closed()
        return True

    def after_fork(self) -> None:
        """Make another channel."""
        if self._suspended:
            if not self._closed:
                self._make()
            self._suspended = False

    def in_child(self) -> None:
        """Leave it closed: it was the parent's."""
        self._suspended = False

    def close(self) -> None:
        """End every call and close the channel."""
        self._closed = True
        _close(self._channel)

    @contextlib.contextmanager
    def _in_use(self, deadline: float, what: str, *, is_new: bool = False) -> Iterator[None]:
        """Use the channel: no fork closes it meanwhile. Waits for the end of one that has, as every use does here.

        Args:
            deadline: On `time.monotonic`.
            what: Is done, for errors.
            is_new: Whether the channel is to be made, which no fork should see.

        Raises:
            ConnectError: In a forked child in which gRPC cannot be used.
            ConnectionLost: If the channel has been closed.
            DeadlineExceeded: If a fork does not end in time.
        """
        forking.check_usable()
        deadline = min(deadline, time.monotonic() + forking.LONGEST_FORK)
        use = object()
        try:
            # Without a lock, which a signal's handler that forks would wait for within itself. Either side first says
            # what it is about to do and then looks at the other, so at least one of them sees that.
            self._calls.add(use)
            while self._suspended or (is_new and forking.is_going_on()):
                if forking.is_mine():
                    forking.used_amid()  # by a signal's handler: its call is worth more than the child's use of gRPC
                    self.after_fork()
                    break
                self._calls.discard(use)
                if time.monotonic() >= deadline:
                    raise DeadlineExceeded(f"{what} took too long: the process was forking")
                time.sleep(_PAUSE)
                self._calls.add(use)
            yield
        except ValueError as error:
            if "Cannot invoke RPC" not in str(error):
                raise
            raise ConnectionLost(f"{what}: the channel to {self._address} is closed") from error
        finally:
            self._calls.discard(use)

    def _make(self) -> None:
        self._used = self._credentials.channel()
        settings = channel_options(self._limits, self._server_name)
        if self._used is None:
            self._channel = grpc.insecure_channel(self._address, options=settings)
        else:
            self._channel = grpc.secure_channel(self._address, self._used, options=settings)
        if self._closed:  # by another thread, which has not seen this one
            self._channel.close()


def _close(channel: grpc.Channel) -> None:
    channel.close()
    forking.channel_closed()


def method_path(name: str) -> str:
    """Name of a method as gRPC takes it."""
    return f"/{SERVICE_NAME}/{name}"
