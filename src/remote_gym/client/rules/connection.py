"""Calls to a server: what is done about an answer that does not come, and about one that is none."""

from __future__ import annotations

import functools
import itertools
import random
import ssl
import time
from abc import ABC, abstractmethod
from typing import Any

import grpc

from remote_gym.address import Place, grpc_address
from remote_gym.client.connect.channel import Metadata
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.diagnosis import Check, reason_of, summarise
from remote_gym.client.connect.rpc_errors import answered, from_rpc_error, was_dropped
from remote_gym.client.rules.operations import Operations
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import ConfigError, ConnectError, ConnectReason, DeadlineExceeded
from remote_gym.protocol.attempt import Attempts
from remote_gym.protocol.constants import ATTEMPT_KEY, SESSION_KEY, TOKEN_KEY
from remote_gym.protocol.stream import within
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.parse import parse

_draw = random.SystemRandom().uniform  # of its own: see `remote_gym.client.connect.retry`

PATIENCE = 0.5
"""Seconds without an answer after which it is worth finding out why."""


class Connection(ABC):
    """Calls to one server, each for one session or to open one.

    What its methods return, one kind of connection returns by blocking, and another has awaited. The rules are here.

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

    @property
    def place(self) -> Place:
        """Url and port."""
        url, port, _ = self._where
        return url, port

    @abstractmethod
    def open(self, request: pb.OpenRequest, *, connect_timeout: float, open_timeout: float) -> Any:
        """Reach the server and open a session.

        Returns:
            The answer, a `pb.OpenResponse`.

        Raises:
            ConnectError: If the server was not reached within `connect_timeout` seconds, or one end does not accept
                the other; with what to check.
            ConnectionLost: If the connection broke; the server closes what it may have opened after its lease.
            DeadlineExceeded: If opening took longer than `open_timeout` seconds.
            EncodingError: If the answer is none.
        """

    @abstractmethod
    def reach(self, session_id: str, token: str, timeout: float) -> Any:
        """Make a broken connection again, if that can be done, and see that the session is still there.

        Returns:
            What the server tells of it, a `pb.SpacesResponse`.

        Raises:
            ConnectError: If it is not done within `timeout` seconds; with what to check.
            ConnectionLost: If the server was reached and gave no answer, or `close` was called.
            SessionLost: If the session has ended, with the reason.
        """

    @abstractmethod
    def attach(self, session_id: str, token: str, message_bytes: int = 0) -> Any:
        """Begin an `Interact` call for a session.

        Args:
            session_id: The session's.
            token: Its secret.
            message_bytes: Size of the largest message that the server takes; 0 for any.

        Returns:
            The stream.

        Raises:
            ConnectionLost: If the channel has been closed.
        """

    @abstractmethod
    def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> Any:
        """Connect to a session's worker itself.

        Returns:
            The stream.

        Raises:
            ConnectError: If that is not done within `timeout` seconds.
        """

    @abstractmethod
    def close_session(self, session_id: str, token: str, timeout: float, *, anyones: bool = False) -> Any:
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

    @abstractmethod
    def renew(self) -> None:
        """Go on with another channel, since certificates have changed, or a call was interrupted by Ctrl-C."""

    @abstractmethod
    def close(self) -> None:
        """End every call, and use the channel no more."""

    # ----------------------------------------------------------------------------------------------------------
    # What the rules are made of

    @abstractmethod
    def _begin(
        self, method: str, data: bytes, timeout: float, what: str, metadata: Metadata, *, wait_for_ready: bool
    ) -> Any:
        """Make a call, whose answer is not waited for; see `Channel.begin`."""

    @abstractmethod
    def _result(self, call: Any, timeout: float | None) -> Any:
        """Wait for a call's answer; raises `grpc.FutureTimeoutError` after so many seconds, and the call goes on."""

    @abstractmethod
    def _ask(
        self, method: str, data: bytes, timeout: float, what: str, metadata: Metadata, *, wait_for_ready: bool | None
    ) -> Any:
        """Make a call, and wait for its answer; see `Channel.ask`."""

    @abstractmethod
    def _diagnose(self, timeout: float) -> Any:
        """Look at the connection: a list of `Check`, which says what is wrong, if something is."""

    @abstractmethod
    def _sleep(self, seconds: float) -> Any:
        """Wait."""

    @abstractmethod
    def _refresh(self) -> None:
        """Go on with another channel if certificates have changed: it keeps those that it was made with."""

    def _opening(
        self, request: pb.OpenRequest, connect_timeout: float, open_timeout: float
    ) -> Operations[pb.OpenResponse]:
        """Do as `open`."""
        # gRPC does not tell an unanswered call from one that was never sent, nor why. So a call that is not answered
        # soon makes us look at the connection ourselves; in the usual case it costs no round trip of its own.
        what = f"opening a session at {self.address}"
        data = request.SerializeToString()
        deadline, end = time.monotonic() + connect_timeout, time.monotonic() + open_timeout
        pauses = itertools.chain((0.1, 0.2, 0.5), itertools.repeat(1.0))

        def begin() -> Any:
            return self._begin("Open", data, end - time.monotonic(), what, (self._attempt(),), wait_for_ready=True)

        def result() -> Any:
            return self._result(call, None if reached else min(PATIENCE, connect_timeout))

        call, reached = (yield begin), False
        while True:
            try:
                return parse(pb.OpenResponse, answered((yield result), what), self._options.message_limits)
            except grpc.FutureTimeoutError:
                try:
                    reached = yield from self._looking(deadline)
                except BaseException:
                    call.cancel()
                    raise
            except grpc.RpcError as error:
                # A server that is flooded drops calls before it has looked at them: as if it had not been reached.
                pause = next(pauses) * _draw(0.5, 1.0)
                if not was_dropped(error) or time.monotonic() + pause >= min(deadline, end):
                    raise from_rpc_error(error, what) from error
                yield functools.partial(self._sleep, pause)
                call = yield begin

    def _looking(self, deadline: float) -> Operations[bool]:
        """Whether the server can be reached, as far as one can see from outside.

        Raises:
            ConnectError: If it cannot, and trying again would not help or the time is up.
        """
        timeout = max(0.1, min(2.0, deadline - time.monotonic()))
        checks: list[Check] = yield lambda: self._diagnose(timeout)
        if all(check.works for check in checks):
            return True
        # A server may still be starting; certificates that do not fit will not begin to.
        if time.monotonic() >= deadline or any(check.hopeless for check in checks):
            raise ConnectError(f"no connection to {self.address}: {summarise(checks)}", reason=reason_of(checks))
        return False

    def _reaching(self, session_id: str, token: str, timeout: float) -> Operations[pb.SpacesResponse]:
        """Do as `reach`."""
        self._refresh()
        what, start = f"looking for session {session_id} at {self.address}", time.monotonic()
        metadata = (*session_metadata(session_id, token), self._attempt())
        try:
            data: bytes | None = yield lambda: self._ask("Spaces", b"", timeout, what, metadata, wait_for_ready=True)
        except (grpc.RpcError, DeadlineExceeded) as error:
            waited = time.monotonic() - start  # less than `timeout` where gRPC has given up before
            checks: list[Check] = yield lambda: self._diagnose(min(2.0, timeout))
            text = f"no connection to {self.address}{within(waited)}: {summarise(checks)}"
            raise ConnectError(text, reason=reason_of(checks)) from error
        answer = parse(pb.SpacesResponse, answered(data, what), self._options.message_limits)
        if answer.HasField("error"):
            raise decode_error(answer.error)
        return answer

    def _closing(self, session_id: str, token: str, timeout: float, user: Connection | None) -> Operations[None]:
        """Do as `close_session`, for a session that `user` has; where another client has it by now, for None alone."""
        what, metadata = f"closing session {session_id} at {self.address}", session_metadata(session_id, token)
        if user is not None:
            metadata = (*metadata, user._attempt())
        try:
            yield lambda: self._ask("Close", b"", timeout, what, metadata, wait_for_ready=None)
        except grpc.RpcError as error:
            raise from_rpc_error(error, what) from error

    def _attachment(self, session_id: str, token: str) -> tuple[str, Metadata]:
        """Purpose of an `Interact` call, for errors, and its metadata."""
        what = f"attaching to session {session_id} at {self.address}"
        # Whatever interrupts this line leaves a call that may arrive late: after the one that is made next.
        return what, (*session_metadata(session_id, token), self._attempt())

    def _context(self) -> ssl.SSLContext | None:
        """This end's TLS of direct connections.

        Raises:
            ConnectError: If the files do not fit.
        """
        try:
            return self.credentials.context()
        except ConfigError as error:  # the channel has been made, so the files have changed since
            text = f"no direct connection for the time being: {error}"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT) from error

    def _attempt(self) -> tuple[str, str]:
        return ATTEMPT_KEY, str(self._attempts.next())


def session_metadata(session_id: str, token: str) -> Metadata:
    """Metadata of a call for a session."""
    return (SESSION_KEY, session_id), (TOKEN_KEY, token)
