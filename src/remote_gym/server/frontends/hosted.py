"""One session that a frontend holds for its client: what `RemoteEnvironment` is elsewhere, beside the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from remote_gym.config import ServerOptions
from remote_gym.errors import RemoteGymError, SessionLost
from remote_gym.protocol.description import check_exposed
from remote_gym.protocol.exchange import Answer, Exchange, unless_error
from remote_gym.protocol.requests import call_request
from remote_gym.protocol.responses import Reader
from remote_gym.server.access.clients import Client
from remote_gym.server.attachment import Attachment
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frames import decode_frame
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.spaces.encoding import decode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.splice import parse_response
from remote_gym.wire.values import decode_value

if TYPE_CHECKING:
    from remote_gym.server.frontends.bridge import Workshop

T = TypeVar("T")


class Hosted:
    """An open session. Requests are made one after another, and each is made to its end, whoever stops waiting for it.

    Args:
        service: The server's.
        client: Whose session it is.
        session: As the service has opened it.
        options: The server's.
        workshop: Decodes and encodes.

    Attributes:
        id: The session's.
        description: Of its environment.
        observation_space: As the environment has it.
        action_space: Likewise.
        holder: The connection's conversation that has it; None while no connection does.
        progress: What the frontend notes of the episode.
    """

    def __init__(
        self, service: Service, client: Client, session: pb.Session, options: ServerOptions, workshop: Workshop
    ) -> None:
        limits = options.message_limits
        self.id = session.id
        self.description = session.description
        self.observation_space = decode_space(session.description.observation_space, limits)
        self.action_space = decode_space(session.description.action_space, limits)
        self.holder: object | None = None
        self.progress: Any = None
        self._first = session.first
        self._service = service
        self._client = client
        self._token = session.token
        self._limits = limits
        self._workshop = workshop
        self._reader = Reader(self.observation_space, limits, keeps_last=False)
        self._layout = compile_layout(self.action_space)
        self._exchange = Exchange(session.id, limits, answered=1 if session.first else 0)
        self._turn = asyncio.Lock()
        self._attachment: Attachment | None = None
        self.on_cut: Callable[[RemoteGymError], object] = lambda _: None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, as far as one knows."""
        return self._exchange.is_over

    def attach(self) -> None:
        """Hold the session for as long as a connection lasts; its lease stands still.

        Raises:
            RemoteGymError: If it has ended.
        """
        if self._attachment is None:
            self._attachment = self._service.attach(self.id, self._token, self._client, self._cut)

    def detach(self) -> None:
        """Leave the session for its lease."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.detach()

    async def first(self, read: Callable[[Any, dict[str, Any]], T]) -> T:
        """Read the answer of the reset that came with the opening.

        Args:
            read: Makes of observation and info what is sent.

        Raises:
            Exception: As the environment's reset did.
        """
        data, self._first = self._first, b""

        def finish() -> T:
            response, packed = unless_error(parse_response(data, self._limits))
            return read(*self._reader.reset(response.reset, packed))

        return await self._workshop.run(len(data), finish)

    async def reset(self, request: pb.Request, read: Callable[[Any, dict[str, Any]], T]) -> T:
        """Reset the environment. Raises as `RemoteEnvironment.reset`."""
        return await self._ask(
            lambda: request, lambda answer: read(*self._reader.reset(answer[0].reset, answer[1])), size=0
        )

    async def step(
        self, action: Callable[[], Any], read: Callable[[Any, Any, Any, Any, dict[str, Any]], T], size: int
    ) -> T:
        """Step the environment once. Raises as `RemoteEnvironment.step`.

        Args:
            action: Makes the action of what came.
            read: Makes of what the step returns what is sent.
            size: Bytes that the action came in.
        """

        def make() -> pb.Request:
            request = pb.Request()
            encode_action(self._layout, action(), request.step, self._limits)
            return request

        return await self._ask(make, lambda answer: read(*self._reader.step(answer[0].step, answer[1])), size)

    async def render(self, read: Callable[[Any], T]) -> T:
        """Render once."""

        def make() -> pb.Request:
            request = pb.Request()
            request.render.SetInParent()
            return request

        return await self._ask(make, lambda answer: read(decode_frame(answer[0].render.frame, self._limits)), size=0)

    async def call(
        self, name: str, args: list[Any], kwargs: Mapping[str, Any], read: Callable[[Any], T], size: int
    ) -> T:
        """Call a method that the environment exposes, or read an attribute. Raises as `RemoteEnvironment.call`."""
        check_exposed(self.description, name)
        return await self._ask(
            lambda: call_request(name, args, kwargs, self._limits),
            lambda answer: read(decode_value(answer[0].call.value, self._limits)),
            size,
        )

    async def settled(self, function: Callable[[], T]) -> T:
        """Call a function once what has been asked is answered."""
        async with self._turn:
            return function()

    async def close(self) -> None:
        """End the session, and wait until its environment is closed. Once is enough."""
        self.detach()
        if not self._exchange.is_over:
            self._exchange.end(" (its client has closed it)", is_open=False)
            await asyncio.shield(asyncio.ensure_future(self._service.close_session(self.id, self._token, self._client)))

    async def _ask(self, make: Callable[[], pb.Request], read: Callable[[Answer], T], size: int) -> T:
        # Shielded, since the worker has it as soon as it is sent: the next request is to find its answer read.
        task = asyncio.ensure_future(self._ask_to_the_end(make, read, size))
        task.add_done_callback(_look_at_error)
        return await asyncio.shield(task)

    async def _ask_to_the_end(self, make: Callable[[], pb.Request], read: Callable[[Answer], T], size: int) -> T:
        async with self._turn:
            data = await self._workshop.run(size, lambda: self._exchange.begin(make()))
            answer = await self._send(data)
            return await self._workshop.run(len(answer), lambda: read(self._receive(answer)))

    async def _send(self, data: bytes) -> bytes:
        try:
            if self._attachment is not None:
                return await self._attachment.ask(data)
            return await self._service.ask(self.id, self._token, self._client, data)
        except RemoteGymError as error:
            self._exchange.fail(error)
            raise

    def _receive(self, data: bytes) -> Answer:
        try:
            answer = self._exchange.receive(data)
        except RemoteGymError as error:
            self._exchange.fail(error)
            raise
        return unless_error(answer)

    def _cut(self, reason: RemoteGymError) -> None:
        """The service ends the session, or its attachment."""
        self._exchange.fail(reason if isinstance(reason, SessionLost) else SessionLost(str(reason)))
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            asyncio.get_running_loop().call_soon(attachment.detach)
        self.on_cut(reason)


def _look_at_error(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from reporting the error of a request that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
