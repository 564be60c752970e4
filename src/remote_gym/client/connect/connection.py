"""The calls that are made to one server, over gRPC."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import NoReturn

import grpc

from remote_gym.client.connect.channel import Channel, Metadata
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.diagnosis import Check, diagnose, reason_of, summarise
from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.client.connect.grpc_stream import GrpcStream
from remote_gym.client.connect.rpc_errors import answered, from_rpc_error
from remote_gym.client.rules.connection import Connection, session_metadata
from remote_gym.client.rules.operations import perform
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import ConnectError, TransportError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.parse import parse


class GrpcConnection(Connection):
    """Calls that block, over a channel of their own. Arguments are those of `Connection`."""

    def __init__(
        self,
        url: str,
        port: int,
        files: TlsFiles | None,
        options: ClientOptions,
        token: str = "",
        credentials: Credentials | None = None,
    ) -> None:
        super().__init__(url, port, files, options, token, credentials)
        self._channel = Channel(self.address, self.credentials, options.message_limits, options.server_name)

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
        """Open a session; see `Connection`."""
        return perform(self._opening(request, connect_timeout, open_timeout))

    def reach(self, session_id: str, token: str, timeout: float) -> pb.SpacesResponse:
        """See that a session is still there; see `Connection`."""
        return perform(self._reaching(session_id, token, timeout))

    def close_session(self, session_id: str, token: str, timeout: float, *, anyones: bool = False) -> None:
        """Have a session closed; see `Connection`."""
        perform(self._closing(session_id, token, timeout, None if anyones else self))

    def close_for(self, user: Connection, session_id: str, token: str, timeout: float) -> None:
        """Have a session closed that another connection of this process has, as `close_session` of that would."""
        perform(self._closing(session_id, token, timeout, user))

    def attach(self, session_id: str, token: str, message_bytes: int = 0) -> GrpcStream:
        """Begin an `Interact` call; see `Connection`."""
        return self._channel.attach(*self._attachment(session_id, token), message_bytes)

    def stream(self, method: str) -> GrpcStream:
        """Begin a call of another service's, which carries bytes both ways.

        Args:
            method: Its path, such as ``"/dm_env_rpc.v1.Environment/Process"``.

        Raises:
            ConnectionLost: If the channel has been closed.
        """
        return self._channel.attach(f"calling {self.address}", (), 0, method)

    def why_not(self, timeout: float) -> ConnectError | None:
        """Error for a server that does not answer, if something is wrong on the way to it.

        Args:
            timeout: Seconds for each step that waits.
        """
        checks = self._diagnose(timeout)
        if all(check.works for check in checks):
            return None
        return ConnectError(f"no connection to {self.address}: {summarise(checks)}", reason=reason_of(checks))

    def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> DirectStream:
        """Connect to a worker; see `Connection`."""
        return DirectStream(
            self.place,
            address,
            token,
            context=self._context(),
            limits=self._options.message_limits,
            timeout=timeout,
            poll_us=self._options.poll_us,
            client_token=self.credentials.token,
            server_name=self._options.server_name,
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
            return answered(self._channel.ask(method, data, timeout, what, session_metadata(session_id, token)), what)
        except grpc.RpcError as error:
            raise from_rpc_error(error, what) from error

    def close(self) -> None:
        """End every call and close the channel."""
        self._channel.close()

    def suspend(self) -> None:
        """Have all calls wait for the end of the fork that this thread begins."""
        self._channel.suspend()

    def _begin(
        self, method: str, data: bytes, timeout: float, what: str, metadata: Metadata, *, wait_for_ready: bool
    ) -> grpc.CallFuture[bytes]:
        return self._channel.begin(method, data, timeout, what, metadata, wait_for_ready=wait_for_ready)

    def _result(self, call: grpc.CallFuture[bytes], timeout: float | None) -> bytes | None:
        answer: bytes | None = call.result(timeout=timeout)
        return answer

    def _ask(
        self, method: str, data: bytes, timeout: float, what: str, metadata: Metadata, *, wait_for_ready: bool | None
    ) -> bytes | None:
        return self._channel.ask(method, data, timeout, what, metadata, wait_for_ready=wait_for_ready)

    def _diagnose(self, timeout: float) -> list[Check]:
        return diagnose(*self._where, server_name=self._options.server_name, timeout=timeout)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _refresh(self) -> None:
        if self._channel.is_outdated:
            self._channel.renew()


def _fail(error: TransportError) -> NoReturn:
    raise error
