"""The calls that one session of an event loop makes to its server, over gRPC."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import grpc

from remote_gym.client.aio.channel import Server, server_at
from remote_gym.client.aio.direct_stream import AsyncDirectStream, attach_directly
from remote_gym.client.aio.grpc_stream import AsyncGrpcStream
from remote_gym.client.connect.channel import Metadata, method_path
from remote_gym.client.connect.diagnosis import Check
from remote_gym.client.connect.rpc_errors import answered, from_rpc_error
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import perform_async
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import ConnectionLost
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse


class AsyncConnection(Connection):
    """Calls that are awaited, over a channel that other sessions of the loop use, too.

    Arguments are those of `Connection`.
    """

    def __init__(self, url: str, port: int, files: TlsFiles | None, options: ClientOptions, token: str = "") -> None:
        self.server: Server = server_at((url, port), files, token, options)
        super().__init__(url, port, files, options, token, self.server.credentials)
        self._channel = self.server.acquire()
        self._calls: set[Any] = set()
        self._is_closed = False

    async def ask_load(self, timeout: float) -> pb.LoadResponse | None:
        """Ask how busy the server is.

        Args:
            timeout: Seconds.

        Returns:
            The answer; None of a server that does not tell.

        Raises:
            TransportError: If the server could not be reached in time.
        """
        what = f"asking {self.address} for its load"
        try:
            data = await self._ask("Load", b"", timeout, what, (), wait_for_ready=None)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise from_rpc_error(error, what) from error
        response = parse(pb.LoadResponse, answered(data, what))
        return None if response.HasField("error") else response

    async def open(self, request: pb.OpenRequest, *, connect_timeout: float, open_timeout: float) -> pb.OpenResponse:
        """Open a session; see `Connection`. Times begin when it is its turn, of all that open one at the server."""
        async with self.server.opening:
            return await perform_async(self._opening(request, connect_timeout, open_timeout))

    async def reach(self, session_id: str, token: str, timeout: float) -> pb.SpacesResponse:
        """See that a session is still there; see `Connection`."""
        return await perform_async(self._reaching(session_id, token, timeout))

    async def close_session(self, session_id: str, token: str, timeout: float, *, anyones: bool = False) -> None:
        """Have a session closed; see `Connection`. The time begins when it is its turn."""
        async with self.server.closing:
            await perform_async(self._closing(session_id, token, timeout, None if anyones else self))

    def close_from_thread(self, session_id: str, token: str, timeout: float) -> None:
        """Have a session closed by blocking, where there is no event loop; as `close_session`."""
        with self.server.blocking() as blocking:
            blocking.close_for(self, session_id, token, timeout)

    async def attach(self, session_id: str, token: str, message_bytes: int = 0) -> AsyncGrpcStream:
        """Begin an `Interact` call; see `Connection`."""
        what, metadata = self._attachment(session_id, token)
        self._check_open(what)
        interact = self._channel.stream(method_path("Interact"))
        make = functools.partial(interact, metadata=(*self.credentials.metadata, *metadata))
        return AsyncGrpcStream(make, self.address, message_bytes)

    async def attach_directly(self, address: pb.DirectAddress, token: str, timeout: float) -> AsyncDirectStream:
        """Connect to a worker; see `Connection`. The time begins when it is its turn."""
        async with self.server.attaching:
            return await attach_directly(
                self.place,
                address,
                token,
                context=self._context(),
                limits=self._options.message_limits,
                timeout=timeout,
                client_token=self.credentials.token,
                server_name=self._options.server_name,
            )

    def renew(self) -> None:
        """Do nothing: a cancelled await leaves no lock of gRPC's held, and the channel is others' too."""

    def close(self) -> None:
        """End every call of this session, and use the channel no more."""
        if self._is_closed:
            return
        self._is_closed = True
        for call in list(self._calls):
            call.cancel()
        self.server.release(self._channel)

    async def closed(self) -> None:
        """Wait until nothing is left of what was closed."""
        await self.server.closed()

    def _check_open(self, what: str) -> None:
        if self._is_closed:
            raise ConnectionLost(f"{what}: the channel to {self.address} is closed")

    async def _begin(
        self, method: str, data: bytes, timeout: float, what: str, metadata: Metadata, *, wait_for_ready: bool | None
    ) -> Any:
        self._check_open(what)
        call = self._channel.unary(method_path(method))(
            data,
            timeout=max(0.0, timeout),
            metadata=(*self.credentials.metadata, *metadata),
            wait_for_ready=wait_for_ready,
        )
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    async def _result(self, call: Any, timeout: float | None) -> bytes | None:
        # Not by awaiting the call, which raises `CancelledError` where it was cancelled, too: by `close`, in another
        # task. That could not be told from this await being cancelled.
        if not await _is_done(call, timeout):
            raise grpc.FutureTimeoutError
        if self._is_closed:  # not `call.cancelled()`, which a server's cancellation is as well
            raise ConnectionLost(f"the channel to {self.address} is closed")
        answer: bytes | None = await call
        return answer

    async def _ask(
        self, method: str, data: bytes, timeout: float, what: str, metadata: Metadata, *, wait_for_ready: bool | None
    ) -> bytes | None:
        call = await self._begin(method, data, timeout, what, metadata, wait_for_ready=wait_for_ready)
        return await self._result(call, None)

    async def _diagnose(self, timeout: float) -> list[Check]:
        return await self.server.diagnose(timeout)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _refresh(self) -> None:
        if not self._is_closed and self._channel.is_outdated:
            outdated, self._channel = self._channel, self.server.acquire()
            self.server.release(outdated)


async def _is_done(call: Any, timeout: float | None) -> bool:
    """Wait until a call is done, for so many seconds; whether it is."""
    if not call.done():
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def wake(*_: object) -> None:
            if not done.done():
                done.set_result(None)

        call.add_done_callback(wake)
        timer = None if timeout is None else loop.call_later(timeout, wake)
        try:
            await done
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
    return bool(call.done())
