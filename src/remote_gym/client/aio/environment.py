"""`AsyncRemoteEnvironment`: an environment that lives elsewhere, and whose methods are awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gymnasium.error import ResetNeeded

from remote_gym.address import Address
from remote_gym.client.aio.servers import AsyncAddresses, connect
from remote_gym.client.aio.session import AsyncSession
from remote_gym.client.aio.turns import Turns
from remote_gym.client.connect.opening import CredentialPaths
from remote_gym.client.recovery import LOSSES, reset_needed
from remote_gym.client.rendering import FrameTiming
from remote_gym.client.rules.environment import EnvironmentRules
from remote_gym.client.rules.operations import Operations, perform_async
from remote_gym.config import ClientOptions, EnvironmentLike, TlsFiles, shows_options
from remote_gym.errors import ConfigError, DeadlineExceeded
from remote_gym.protocol.description import check_exposed
from remote_gym.protocol.exchange import Answer
from remote_gym.protocol.requests import assign_request, call_request, reset_request
from remote_gym.protocol.responses import Reader
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.values import decode_value

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords

_AFTER_OPENING = frozenset({"observation_space", "action_space"})


@shows_options(ClientOptions)
class AsyncRemoteEnvironment(EnvironmentRules):
    """An environment that a server hosts, for programs that await: the methods of `RemoteEnvironment` as coroutines.

    Constructing it does no input or output. The first `reset` opens a session and resets it, in one round trip; so does
    the next after it was closed, or after `SessionLost` was raised. Many can be used at once by one thread, by
    ``asyncio.gather`` or an ``asyncio.TaskGroup``; of one the calls run one after another, in order.

    A call whose await is cancelled, by a timeout for example, may have run or not. The environment can be used on: the
    next call first waits for the answer to that one.

    ``async with`` closes it. One that is dropped, or whose event loop ends, is closed by a thread.

    Args:
        url: Host name or address of the server, or ``unix:`` and a path; ``"localhost"`` unless given.
        port: TCP port; 56789 unless given. Without either the environment variable ``REMOTE_GYM_SERVER`` counts first.
        remote_args: As for `RemoteEnvironment`, as are all others.
        client_credentials_paths: `tls` as a tuple.
        render_mode: ``"rgb_array"``, or another that the environment knows, such as ``"ansi"``. Not ``"human"``.
        frames: When frames of the mode ``"rgb_array"`` travel: ``"auto"``, with observations while they are looked at;
            with each ``"step"`` and reset; or ``"on_demand"``, by themselves, whenever `render` is called.
        addresses: Several servers, in place of `url` and `port`.
        tls: PEM files of this client. None for no TLS.
        options: Options all at once, as `ClientOptions`.
        resume: A ticket of another process's environment, of either kind, to go on with it. That is done by `open`, or
            by the first call.
        **keywords: Single options; of `options` too, the keyword argument wins.

    Attributes:
        observation_space, action_space: As on the server; once a session was opened.
        metadata: As on the server.
        spec: As that of a `RemoteEnvironment`, which it makes.
        resumed: Where the environment of `resume` stands, a `Resumption`; else None.

    Raises:
        ConfigError: If an argument cannot work.
    """

    _session: AsyncSession | None

    def __init__(
        self,
        url: str | None = None,
        port: int | None = None,
        remote_args: EnvironmentLike | None = None,
        client_credentials_paths: CredentialPaths | None = None,
        render_mode: str | None = None,
        *,
        frames: FrameTiming = "auto",
        addresses: Iterable[Address] | None = None,
        resume: SessionTicket | None = None,
        tls: TlsFiles | None = None,
        options: ClientOptions | None = None,
        **keywords: Unpack[ClientKeywords],
    ) -> None:
        if render_mode == "human":
            raise ConfigError(
                "is 'human': a window that keeps the environment's pace would hold up the event loop; use 'rgb_array', "
                "and show what render() returns",
                field="render_mode",
                where="render_mode",
            )
        self._set_up(
            AsyncRemoteEnvironment,
            AsyncAddresses,
            url,
            port,
            addresses,
            remote_args=remote_args,
            client_credentials_paths=client_credentials_paths,
            render_mode=render_mode,
            frames=frames,
            resume=resume,
            tls=tls,
            options=options,
            keywords=keywords,
        )
        self._to_resume = resume
        self._turns = Turns()
        self._connecting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncRemoteEnvironment:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open a session now, or resume that of a ticket, so that spaces are known; does nothing where one is open.

        Raises:
            ConnectError: If the server could not be reached, or one end did not accept the other's certificate.
            ServerFull: If the server has no place left.
            SessionLost: If the environment of ``resume`` is gone.
            NotPermitted: If `remote_args` names code to run.
            RemoteEnvironmentError: If creating the environment raised.
            ProtocolMismatch: If the server speaks another version of the protocol.
        """
        await self._take_turn(self._options.open_timeout)
        try:
            await self._resume_first()
            if self._session is None:
                await perform_async(self._opening())
                self._connect()
        finally:
            self._turns.give_back()

    async def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, on a new session where there is none.

        Returns:
            The first observation, in writable arrays of its own, and the info.

        Raises:
            RemoteGymError: As for `open`, where there is no session, and as for `RemoteEnvironment.reset`.
        """
        request = reset_request(seed, options, self._options.message_limits)
        await self._take_turn(self._options.reset_timeout)
        try:
            await self._resume_first()
            session = self._session
            returned = await perform_async(self._resetting(request))
            if self._session is not session:
                self._connect()
            return returned
        finally:
            self._turns.give_back()

    async def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment once. It takes, returns and raises what `RemoteEnvironment.step` does."""
        await self._take_turn(self._options.step_timeout)
        try:
            session, reader = await self._standing("step")
            request = pb.Request()
            encode_action(self._action_layout, action, request.step, self._options.message_limits)
            if self._rendering.wanted:
                self._rendering.ask(request, reader)
            try:
                response, packed = await session.ask(request, self._options.step_timeout)
            except LOSSES as error:
                return reader.truncation(error)
            return reader.step(response.step, packed)
        finally:
            self._turns.give_back()

    async def step_many(self, actions: Iterable[Any]) -> list[tuple[Any, Any, Any, Any, dict[str, Any]]]:
        """Step once for each action in one round trip, up to the end of the episode; see `RemoteEnvironment`."""
        await self._take_turn(self._options.step_timeout)
        try:
            session, reader = await self._standing("step_many")
            request = self._step_many_request(actions)
            try:
                response, _ = await session.ask(request, self._options.step_timeout)
            except LOSSES as error:
                return [reader.truncation(error)]
            return reader.steps(response.step_many, len(request.step_many.steps))
        finally:
            self._turns.give_back()

    async def render(self) -> Any:
        """The frame of the newest observation; None without a render mode, or before the first reset.

        After ``on_session_lost="truncate"`` has ended an episode it is the last that was fetched, until the next reset.
        """
        await self._take_turn(self._options.step_timeout)
        try:
            await self._resume_first()
            if not self._was_reset:
                return None
            return await perform_async(self._rendering.rendering(self._session, self._reader))
        finally:
            self._turns.give_back()

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the environment, or read an attribute, that its entrypoint lists in ``EXPOSED``.

        Raises:
            AttributeError: If it is not exposed, saying what would expose it.
            RemoteEnvironmentError: If it raised.
            EncodingError: If an argument or the result has no wire form.
        """
        response = await self._exposed_name(name, call_request(name, args, kwargs, self._options.message_limits))
        return decode_value(response.call.value, self._options.message_limits)

    async def set(self, name: str, value: Any) -> None:
        """Set an attribute of the environment that its entrypoint lists in ``EXPOSED``.

        Raises:
            AttributeError: If it is not exposed, or is a method.
            RemoteEnvironmentError: If it raised.
            EncodingError: If the value has no wire form.
        """
        await self._exposed_name(name, assign_request(name, value, self._options.message_limits), to_set=True)

    async def detach(self) -> SessionTicket:
        """Close the connection, and leave the environment for its lease to whoever resumes it. Raises as `ticket`."""
        await self._take_turn(self._options.step_timeout)
        try:
            await self._resume_first()
            ticket = await perform_async(self._letting_go())
        finally:
            self._turns.give_back()
        await self.close()
        return ticket

    async def close(self) -> None:
        """Close the environment on the server and the session. A second call does nothing.

        Waits for no call in progress, which is another task's: it ends by `SessionLost`.
        """
        session, self._session = self._session, None
        self._was_reset, self._was_closed = False, True
        if self._connecting is not None and asyncio.get_running_loop() is self._connecting.get_loop():
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        self._connecting = None
        if session is not None:
            await session.close()

    def __getattr__(self, name: str) -> Any:
        if name in _AFTER_OPENING:
            raise AttributeError(f"{name} is not known before a session is open: await reset(), or open()")
        raise AttributeError(f"{type(self).__name__!r} has no {name!r}; `await environment.call({name!r})` reads it")

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_turns": Turns(), "_to_resume": None, "_connecting": None}

    def _finding(self, ticket: SessionTicket) -> Operations[AsyncSession]:
        connection = connect((ticket.url, ticket.port), self._files, self._options)
        return AsyncSession.finding(connection, ticket, self._options)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _resume_first(self) -> None:
        if self._to_resume is not None:
            ticket, self._to_resume = self._to_resume, None
            await perform_async(self._resuming(ticket))

    async def _standing(self, call: str) -> tuple[AsyncSession, Reader]:
        """The session, and what reads its answers.

        Raises:
            gymnasium.error.ResetNeeded: If it was not reset.
        """
        await self._resume_first()
        if not self._was_reset or self._session is None or self._reader is None:
            raise reset_needed(call, was_closed=self._was_closed)
        return self._session, self._reader

    async def _exposed_name(self, name: str, request: pb.Request, *, to_set: bool = False) -> pb.Response:
        await self._take_turn(self._options.step_timeout)
        try:
            await self._resume_first()
            if self._session is None:
                raise ResetNeeded(f"Cannot {'set' if to_set else 'call'} {name!r} before a session is open")
            check_exposed(self._session.description, name, to_set=to_set)
            if to_set or self._exposed.get(name) is not False:  # a method may change what is to be seen
                self._rendering.outdate(self._reader)
            answer: Answer = await self._session.ask(request, self._options.step_timeout)
            return answer[0]
        finally:
            self._turns.give_back()

    def _connect(self) -> None:
        """Begin to connect to the worker, for which who has awaited the opening need not wait."""
        if self._session is not None:
            self._connecting = asyncio.ensure_future(self._session.attach())

    async def _take_turn(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not await self._turns.take(deadline):
            raise DeadlineExceeded(f"{self!r} is busy with another task's call")
        if self._connecting is None:
            return
        try:
            if self._connecting.get_loop() is asyncio.get_running_loop():
                await asyncio.wait({self._connecting}, timeout=max(0.0, deadline - time.monotonic()))
                if not self._connecting.done():
                    raise DeadlineExceeded(f"{self!r} is still connecting")
            self._connecting = None
        except BaseException:
            self._turns.give_back()
            raise
