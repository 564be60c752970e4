"""Opening, resetting and resuming a remote environment, whoever waits for the answers."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.error import ResetNeeded

from remote_gym.address import Address
from remote_gym.client.attributes import RANDOM
from remote_gym.client.connect.opening import CredentialPaths
from remote_gym.client.connection_info import ConnectionInfo
from remote_gym.client.recovery import LOSSES, leaving_what_hangs, opening_again
from remote_gym.client.rendering import FrameTiming, Rendering
from remote_gym.client.rules.operations import Operations
from remote_gym.client.rules.servers import Choice
from remote_gym.client.rules.session import OpenSession
from remote_gym.client.servers import to_places
from remote_gym.client.spec import SpecAttribute, read_spec, without_secrets
from remote_gym.config import ClientOptions, EnvironmentLike, TlsFiles, merge_options, read_environment
from remote_gym.protocol.description import check_resumed, read_exposed, read_metadata, read_tools
from remote_gym.protocol.exchange import Answer, unless_error
from remote_gym.protocol.open_request import check_arguments, mode_to_open, open_request
from remote_gym.protocol.responses import Reader
from remote_gym.protocol.ticket import Resumption, SessionTicket
from remote_gym.tls import absolute_paths, client_files
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.spaces.encoding import decode_space
from remote_gym.wire.spaces.layout import compile_layout


class EnvironmentRules(ABC):
    """Base of the environments whose methods block, and of those whose methods are awaited.

    A subclass calls `_set_up`, which does no input or output, and performs the rules.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    # Read from the class by `gymnasium.make`, before anything is known of the server's environment.
    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "ansi"]}  # noqa: RUF012 - replaced, not changed
    spec = SpecAttribute()
    resumed: Resumption | None

    _session: Any  # an `OpenSession` of the subclass's kind, or None
    _reader: Reader | None
    _lent: Any = None
    _lacking: tuple[str, ...]
    _made_by_id: bool
    _exposed: dict[str, bool]

    if TYPE_CHECKING:  # else it would hide the one of those that lend a generator, a base class that comes later

        def _return_generator(self) -> Any:
            """Have the environment's random generator go on from where one that was `_lent` is."""

    def _set_up(
        self,
        of: type[Any],
        choice: Callable[..., Choice],
        url: str | None,
        port: int | None,
        addresses: Iterable[Address] | None,
        *,
        remote_args: EnvironmentLike | None,
        client_credentials_paths: CredentialPaths | None,
        render_mode: str | None,
        frames: FrameTiming,
        resume: SessionTicket | None,
        tls: TlsFiles | None,
        options: ClientOptions | None,
        keywords: Mapping[str, Any],
    ) -> None:
        """Take the arguments of a constructor, which is that of `of`; `choice` is its kind of `Choice`.

        Raises:
            ConfigError: If one of them cannot work.
        """
        places = to_places(url, port, addresses)
        check_arguments(frames, render_mode, resume, timings=("auto", "step", "on_demand"))
        self.url, self.port = places[0]
        self.remote_args = {} if remote_args is None else dict(read_environment("remote_args", remote_args))
        self.client_credentials_paths = client_credentials_paths = absolute_paths(client_credentials_paths)
        self.render_mode = render_mode
        self._options = merge_options(ClientOptions, options, keywords, of=of)
        self._files = client_files(client_credentials_paths, tls)
        self._made_with: dict[str, Any] = {
            "remote_args": self.remote_args,
            "client_credentials_paths": client_credentials_paths,
            "render_mode": render_mode,
            "frames": frames,
            **({} if tls is None else {"tls": self._files}),
            **({} if addresses is None else {"addresses": places}),
            **without_secrets({"options": options, **keywords}),
        }
        self._addresses = choice(places, self._files, self._options)
        self._session = self._reader = None
        self.resumed = None
        self._was_reset = self._was_closed = False
        # Before the session, so that a machine without a screen says so at once.
        self._rendering = Rendering(render_mode, frames, self._options)

    @property
    def connection_info(self) -> ConnectionInfo:
        """Server, environment and session, and what they are connected over now."""
        return ConnectionInfo.of(self._session, (self.url, self.port), self.remote_args)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.connection_info}>"

    @property
    def ticket(self) -> SessionTicket:
        """Ticket by which another process goes on with this environment where it stands; it holds a secret.

        Raises:
            gymnasium.error.ResetNeeded: If no session is open.
        """
        if self._session is None or self._session.lost:
            raise ResetNeeded("There is no session, and so no ticket, until env.reset() opens one")
        ticket: SessionTicket = self._session.ticket
        return ticket

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Methods that the environment exposes, as a language model is told of tools.

        Each has a ``name``, a ``description``, which is its docstring, and an ``input_schema``, the JSON Schema of its
        arguments by name: ``call(name, **arguments)`` calls it.

        Raises:
            gymnasium.error.ResetNeeded: If no session is open.
        """
        if self._session is None:
            raise ResetNeeded("There is no session, and so no tools are known, until env.reset() opens one")
        return read_tools(self._session.description)

    def __copy__(self) -> Any:
        # A shallow copy would share window, arguments and space objects; two environments share nothing.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        # A connection belongs to one process, and a session to one connection: the copy opens its own.
        state = {**self.__dict__, "_session": None, "_was_reset": False, "_reader": None, "_lent": None}
        state.pop("_action_layout", None)  # made of functions
        return state

    @abstractmethod
    def _finding(self, ticket: SessionTicket) -> Operations[Any]:
        """Find a ticket's session, of the subclass's kind."""

    @abstractmethod
    def _sleep(self, seconds: float) -> Any: ...

    def _after_observation(self) -> Callable[[], None] | None:
        """Function to call after each observation; None for none."""
        return None

    def _opening(self, first: pb.Request | None = None) -> Operations[Answer | None]:
        """Open a session, and return what answers its first request, if there is one."""
        replaced, self._session = self._session, None
        if replaced is not None:
            if replaced.lost:
                self._addresses.lost(replaced.place)
            yield replaced.close
        self._was_reset, self._was_closed, self._lent = False, False, None
        self._reader = None
        mode, streams = mode_to_open(self.render_mode), self._rendering.streams
        request = open_request(self.remote_args, self._options, render_mode=mode, streams_frames=streams)
        if first is not None:
            first.sequence = 1
            request.first.CopyFrom(first)
        open_once = functools.partial(self._addresses.open, request)
        # Only a reset waits for a server that is away; without one it is reported at once that nobody answers.
        if first is None:
            session = yield open_once
        else:
            session = yield from opening_again(open_once, self._options, sleep=self._sleep)
        self._session = session
        try:
            self._adopt(session)
        except BaseException:
            self._session = None
            yield session.close
            raise
        return None if session.first is None else unless_error(session.first)

    def _resuming(self, ticket: SessionTicket) -> Operations[None]:
        """Go on with a session of another process."""
        session = self._session = yield from self._finding(ticket)
        try:
            check_resumed(session.description, self.render_mode)
            timeout = self._options.step_timeout
            answer: Answer | None = yield lambda: session.take_over(timeout)
            self._adopt(session)
            self._was_reset = answer is not None
            assert self._reader is not None
            returned = None if answer is None else self._reader.anything(*answer)
            self.resumed = Resumption(executed=session.ticket.answered - ticket.answered, returned=returned)
        except GeneratorExit:
            raise
        except BaseException:
            self._session = None
            yield session.let_go  # it may be another's, or be resumed otherwise
            raise

    def _resetting(self, request: pb.Request) -> Operations[tuple[Any, dict[str, Any]]]:
        """Reset, on a new session where there is none; return what `reset` does."""
        self._rendering.begin_episode(self._reader)
        answer: Answer | None = None
        of_a_loss: dict[str, Any] = {}
        session: OpenSession | None = self._session
        try:
            if session is not None and session.is_behind and not session.lost:
                yield from leaving_what_hangs(session, self._options, f"session {session.id}")
            if session is not None and not session.lost:
                standing, timeout = session, self._options.reset_timeout
                yield standing.improve
                if self._lent is not None:
                    yield self._return_generator
                answer = yield lambda: standing.ask(request, timeout)
        except LOSSES as error:
            assert self._reader is not None
            of_a_loss = self._reader.loss(error)
        if answer is None:
            answer = yield from self._opening(first=request)  # both in one round trip
        self._was_reset = True
        assert answer is not None and self._reader is not None
        response, packed = answer
        return self._reader.reset(response.reset, packed, of_a_loss)

    def _step_many_request(self, actions: Iterable[Any]) -> pb.Request:
        request = pb.Request()
        request.step_many.SetInParent()
        for action in actions:
            encode_action(self._action_layout, action, request.step_many.steps.add(), self._options.message_limits)
        if self._rendering.wanted:
            assert self._reader is not None
            self._rendering.ask(request, self._reader, len(request.step_many.steps))
        return request

    def _letting_go(self) -> Operations[SessionTicket]:
        """Do as `detach`, except for closing."""
        if self._lent is not None:
            yield self._return_generator
        ticket = self.ticket
        yield self._session.let_go
        return ticket

    def _adopt(self, session: OpenSession) -> None:
        description, limits = session.description, self._options.message_limits
        self._rendering.check(description)
        self.url, self.port = session.place
        self.observation_space = decode_space(description.observation_space, limits)
        self.action_space = decode_space(description.action_space, limits)
        self._reader = Reader(
            self.observation_space,
            limits,
            keeps_last=self._options.on_session_lost == "truncate",
            on_observation=self._after_observation(),
        )
        self._action_layout = compile_layout(self.action_space)
        self.metadata = read_metadata(description, limits, self.render_mode)
        place: dict[str, Any] = {} if "addresses" in self._made_with else {"url": self.url, "port": self.port}
        self.spec = read_spec(description, **place, **self._made_with)
        self._lacking, self._made_by_id = tuple(description.lacking), description.made_by_id
        self._exposed = read_exposed(description, own={*self.__dict__, *dir(type(self))} - {RANDOM})
        if self._rendering.window is not None:
            self._rendering.window.fps = self.metadata.get("render_fps")
