"""The calls that are made to one server, over gRPC."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable
from typing import NoReturn

import grpc

from remote_gym.address import Place, grpc_address
from remote_gym.client.connect.channel import Channel, Metadata
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.diagnosis import Check, diagnose, reason_of, summarise
from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.client.connect.grpc_stream import GrpcStream
from remote_gym.client.connect.rpc_errors import answered, from_rpc_error, was_dropped
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import ConfigError, ConnectError, ConnectReason, DeadlineExceeded, TransportError
from remote_gym.protocol.attempt import Attempts
from remote_gym.protocol.constants import ATTEMPT_KEY, SESSION_KEY, TOKEN_KEY
from remote_gym.protocol.stream import within
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.parse import parse

_draw = random.SystemRandom().uniform  # of its own: see `retry`

PATIENCE = 0.5
"""Seconds without an answer after which it is worth finding out why."""


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
        self._channel = Channel(self.address, credentials, options.message_limits, options.server_name)

    @property
    def place(self) -> Place:
        """Url and port."""
        url, port, _ = self._where
        return url, port

    def renew(self) -> None:
        """Go on with another channel, since certificates have changed, or a call was interrupted by Ctrl-C."""
        self._channel.renew()

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
        what = f"asking {self.address} for its load"
        try:
            call = self._channel.begin("Load", b"", timeout, what)
        except TransportError as error:
            return functools.partial(_fail, error)

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
            response = parse(pb.LoadResponse, answered(self._channel.ask("Load", b"", timeout, what), what))
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
        what = f"opening a session at {self.address}"
        data = request.SerializeToString()
        deadline, end = time.monotonic() + connect_timeout, time.monotonic() + open_timeout
        pauses = itertools.chain((0.1, 0.2, 0.5), itertools.repeat(1.0))

        def begin() -> grpc.CallFuture[bytes]:
            seconds = end - time.monotonic()
            return self._channel.begin("Open", data, seconds, what, (self._attempt(),), wait_for_ready=True)

        call, reached = begin(), False
        while True:
            try:
                answer = call.result(timeout=None if reached else min(PATIENCE, connect_timeout))
                return parse(pb.OpenResponse, answered(answer, what), self._options.message_limits)
            except grpc.FutureTimeoutError:
                try:
                    reached = self._look(deadline)
                except BaseException:
                    call.cancel()
                    raise
            except grpc.RpcError as error:
                # A server that is flooded drops calls before it has looked at them: as if it had not been reached.
                pause = next(pauses) * _draw(0.5, 1.0)
                if not was_dropped(call) or time.monotonic() + pause >= min(deadline, end):
                    raise from_rpc_error(error, what) from error
                time.sleep(pause)
                call = begin()

    def reach(self, session_id: str, token: str, timeout: float) -> pb.SpacesResponse:
        """Make a broken connection again, if that can be done, and see that the session is still there.

        Returns:
            What the server tells of it.

        Raises:
            ConnectError: If it is not done within `timeout` seconds; with what to check.
            ConnectionLost: If the server was reached and gave no answer, or `close` was called.
            SessionLost: If the session has ended, with the reason.
        """
        # A channel keeps the certificates that it was made with.
        if self._channel.is_outdated:
            self._channel.renew()
        what, start = f"looking for session {session_id} at {self.address}", time.monotonic()
        metadata = (*_metadata(session_id, token), self._attempt())
        try:
            data = self._channel.ask("Spaces", b"", timeout, what, metadata, wait_for_ready=True)
        except (grpc.RpcError, DeadlineExceeded) as error:
            waited = time.monotonic() - start  # less than `timeout` where gRPC has given up before
            checks = self._diagnose(min(2.0, timeout))
            text = f"no connection to {self.address}{within(waited)}: {summarise(checks)}"
            raise ConnectError(text, reason=reason_of(checks)) from error
        answer = parse(pb.SpacesResponse, answered(data, what), self._options.message_limits)
        if answer.HasField("error"):
            raise decode_error(answer.error)
        return answer

    def _look(self, deadline: float) -> bool:
        """Whether the server can be reached, as far as one can see from outside.

        Raises:
            ConnectError: If it cannot, and trying again would not help or the time is up.
        """
        checks = self._diagnose(max(0.1, min(2.0, deadline - time.monotonic())))
        if all(check.works for check in checks):
            return True
        # A server may still be starting; certificates that do not fit will not begin to.
        if time.monotonic() >= deadline or any(check.hopeless for check in checks):
            raise ConnectError(f"no connection to {self.address}: {summarise(checks)}", reason=reason_of(checks))
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
        what, metadata = f"closing session {session_id} at {self.address}", _metadata(session_id, token)
        try:
            self._channel.ask("Close", b"", timeout, what, metadata if anyones else (*metadata, self._attempt()))
        except grpc.RpcError as error:
            raise from_rpc_error(error, what) from error

    def attach(self, session_id: str, token: str, message_bytes: int = 0) -> GrpcStream:
        """Begin an `Interact` call for a session.

        Args:
            session_id: The session's.
            token: Its secret.
            message_bytes: Size of the largest message that the server takes; 0 for any.

        Raises:
            ConnectionLost: If the channel has been closed.
        """
        what = f"attaching to session {session_id} at {self.address}"
        # Whatever interrupts this line leaves a call that may arrive late: after the one that is made next.
        return self._channel.attach(what, (*_metadata(session_id, token), self._attempt()), message_bytes)

    def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> DirectStream:
        """Connect to a session's worker itself.

        Raises:
            ConnectError: If that is not done within `timeout` seconds.
        """
        options = self._options
        try:
            context = self.credentials.context()
        except ConfigError as error:  # the channel has been made, so the files have changed since
            text = f"no direct connection for the time being: {error}"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT) from error
        return DirectStream(
            self.place,
            address,
            token,
            context=context,
            limits=options.message_limits,
            timeout=timeout,
            poll_us=options.poll_us,
            client_token=self.credentials.token,
            server_name=options.server_name,
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
        what = f"{method} at {self.address}"
        try:
            return answered(self._channel.ask(method, data, timeout, what, _metadata(session_id, token)), what)
        except grpc.RpcError as error:
            raise from_rpc_error(error, what) from error

    def close(self) -> None:
        """End every call and close the channel."""
        self._channel.close()

    def suspend(self) -> None:
        """Have all calls wait for the end of the fork that this thread begins."""
        self._channel.suspend()

    def _diagnose(self, timeout: float) -> list[Check]:
        return diagnose(*self._where, server_name=self._options.server_name, timeout=timeout)

    def _attempt(self) -> tuple[str, str]:
        return ATTEMPT_KEY, str(self._attempts.next())


def _metadata(session_id: str, token: str) -> Metadata:
    return (SESSION_KEY, session_id), (TOKEN_KEY, token)


def _fail(error: TransportError) -> NoReturn:
    raise error
