"""`RemoteEnvironment`: a `gymnasium.Env` whose environment lives elsewhere."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gymnasium.error import ResetNeeded

from remote_gym.address import Address
from remote_gym.client.attributes import RANDOM, RemoteAttributes
from remote_gym.client.connect.opening import CredentialPaths, connect
from remote_gym.client.connection_info import ConnectionInfo
from remote_gym.client.docker_image import FromDockerImage
from remote_gym.client.recovery import LOSSES, leave_what_hangs, open_again, reset_needed
from remote_gym.client.rendering import FrameTiming, Rendering
from remote_gym.client.servers import Addresses, to_places
from remote_gym.client.session import ClientSession
from remote_gym.client.spec import SpecAttribute, read_spec, without_secrets
from remote_gym.config import ClientOptions, EnvironmentLike, TlsFiles, merge_options, read_environment, shows_options
from remote_gym.protocol.description import check_exposed, check_resumed, read_exposed, read_metadata
from remote_gym.protocol.exchange import Answer, unless_error
from remote_gym.protocol.open_request import check_arguments, mode_to_open, open_request
from remote_gym.protocol.requests import assign_request, call_request, reset_request
from remote_gym.protocol.responses import Reader
from remote_gym.protocol.ticket import Resumption, SessionTicket
from remote_gym.tls import absolute_paths, client_files
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.spaces.encoding import decode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import decode_value

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords


@shows_options(ClientOptions)
class RemoteEnvironment(FromDockerImage, RemoteAttributes):
    """An environment that a server hosts, used as if it were local.

    Constructing it opens a session, for which the server creates an environment of its own. A pickled copy opens its
    own at its next `reset`; so does this one after it was closed, or after `SessionLost` was raised.

    What the entrypoint exposes is read, called and set as attributes of this environment.

    Args:
        url: Host name or address of the server, or ``unix:`` and a path; ``"localhost"`` unless given.
        port: TCP port; 56789 unless given. Without either the environment variable ``REMOTE_GYM_SERVER`` counts first.
        remote_args: What to create, unless what the server offers by itself: ``{"environment": "easy"}``, one that it
            offers by name; ``{"entrypoint_kwargs": {...}}``, merged over the server's; where it lets clients choose, a
            Gymnasium id, ``"CartPole-v1"`` or ``{"id": "CartPole-v1", ...}``, or the path of an entrypoint. What
            remains of `RemoteArgs` only a server may set.
        client_credentials_paths: `tls` as a tuple: certificate authority of the server, this client's certificate and
            its private key (both None where the server asks for none).
        render_mode: ``"rgb_array"`` or ``"human"``, for which the server renders and sends frames; or another that the
            environment knows, such as ``"ansi"``, which is rendered when `render` is called.
        frames: When frames of the mode ``"rgb_array"`` travel: ``"auto"``, with observations while they are looked at;
            with each ``"step"`` and reset; or ``"on_demand"``, by themselves, whenever `render` is called.
        addresses: Several servers, each ``"host:port"`` or a pair, in place of `url` and `port`. Sessions are opened on
            the least loaded.
        tls: PEM files of this client, such as ``TlsFiles.from_folder("certificates", "client")``. None for no TLS.
        options: Options all at once, as `ClientOptions`.
        resume: A ticket of another process's environment, to go on with it; the other arguments are to be those of it.
        **keywords: Single options; of `options` too, the keyword argument wins.

    Attributes:
        observation_space, action_space: As on the server.
        metadata: As on the server; ``"human"`` is a render mode wherever ``"rgb_array"`` is.
        spec: As on the server, except that making it connects to the server again; so with `gymnasium.make`, too.
        resumed: Where the environment of `resume` stands, a `Resumption`; else None.

    Raises:
        ConfigError: If an argument cannot work, or the server says so of what it was asked for.
        ConnectError: If the server could not be reached, or one end did not accept the other's certificate.
        ServerFull: If the server has no place left.
        SessionLost: If the environment of `resume` is gone.
        NotPermitted: If `remote_args` names code to run.
        RemoteEnvironmentError: If creating the environment raised.
        ProtocolMismatch: If the server speaks another version of the protocol.
    """

    # Read from the class by `gymnasium.make`, before anything is known of the server's environment.
    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "ansi"]}  # noqa: RUF012
    reward_range = (-math.inf, math.inf)
    spec = SpecAttribute()

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
        places = to_places(url, port, addresses)
        check_arguments(frames, render_mode, resume, timings=("auto", "step", "on_demand"))
        self.url, self.port = places[0]
        self.remote_args = {} if remote_args is None else dict(read_environment("remote_args", remote_args))
        self.client_credentials_paths = client_credentials_paths = absolute_paths(client_credentials_paths)
        self.render_mode = render_mode
        self._options = merge_options(ClientOptions, options, keywords, of=RemoteEnvironment)
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
        self._addresses = Addresses(places, self._files, self._options)
        self._session: ClientSession | None = None
        self._reader: Reader | None = None
        self.resumed: Resumption | None = None
        self._was_reset = self._was_closed = False
        # Before the session, so that a machine without a screen says so at once.
        self._rendering = Rendering(render_mode, frames, self._options)
        if resume is None:
            self._open()
        else:
            self._resume(resume)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, on a new session where there is none.

        Returns:
            The first observation, in writable arrays of its own, and the info.

        Raises:
            RemoteEnvironmentError: If the environment raised. It can be reset again.
            SessionLost: If the environment is gone, without ``on_session_lost="truncate"``. The next gets a new one.
            ConnectionLost: Likewise, if the connection broke and could not be made again.
            DeadlineExceeded: If no answer came within ``reset_timeout``. The next `reset` waits ``close_timeout`` for
                it, and then gets a new environment.
            EncodingError: If `seed` or `options` have no wire form.
            InvalidObservation: If the observation does not fit the environment's own space.
        """
        super().reset(seed=seed)
        request = reset_request(seed, options, self._options.message_limits)
        self._rendering.begin_episode(self._reader)
        answer, of_a_loss = None, {}
        session = self._session
        try:
            if session is not None and session.is_behind and not session.lost:
                leave_what_hangs(session, self._options, f"session {session.id}")
            if session is not None and not session.lost:
                session.improve()
                if self._lent is not None:
                    self._return_generator()
                answer = session.ask(request, self._options.reset_timeout)
        except LOSSES as error:
            assert self._reader is not None
            of_a_loss = self._reader.loss(error)
        if answer is None:
            answer = self._open(first=request)  # both in one round trip
        self._was_reset = True
        assert answer is not None and self._reader is not None
        response, packed = answer
        return self._reader.reset(response.reset, packed, of_a_loss)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment once.

        Args:
            action: An element of `action_space`. Lists, and other widths of its numbers, are converted as NumPy does
                under ``casting="same_kind"``; values outside the bounds are left to the environment.

        Returns:
            The observation in writable arrays of its own, reward, terminated, truncated and info, each of the value
            and the kind that the environment returned.

        Raises:
            InvalidAction: If it does not fit the space's structure, shape or kind. Nothing was sent.
            gymnasium.error.ResetNeeded: Before the first reset.
            RemoteEnvironmentError: If the environment raised. The session lives on.
            SessionLost: If the environment is gone. The next `reset` gets a new one. With
                ``on_session_lost="truncate"`` the episode ends instead, by the last observation and ``truncated``, and
                ``info["remote_gym"]["session_lost"]`` tells the reason.
            ConnectionLost: If the connection broke and could not be made again; otherwise like `SessionLost`.
            DeadlineExceeded: If no answer came within ``step_timeout``. The next `step` waits for it first, and drops
                it; the next `reset` waits ``close_timeout`` for it, and then gets a new environment.
            InvalidObservation: If the observation does not fit the environment's own space. It has stepped.
        """
        if not self._was_reset or self._session is None or self._reader is None:
            raise reset_needed("step", was_closed=self._was_closed)
        request = pb.Request()
        encode_action(self._action_layout, action, request.step, self._options.message_limits)
        if self._rendering.wanted:
            self._rendering.ask(request, self._reader)
        try:
            if self._lent is not None:
                self._return_generator()
            response, packed = self._session.ask(request, self._options.step_timeout)
        except LOSSES as error:
            return self._reader.truncation(error)
        return self._reader.step(response.step, packed)

    def step_many(self, actions: Iterable[Any]) -> list[tuple[Any, Any, Any, Any, dict[str, Any]]]:
        """Step once for each action in one round trip, up to the end of the episode.

        For chunks of actions, and where a round trip takes longer than a step.

        Args:
            actions: As for `step`.

        Returns:
            What `step` would have returned, for each step that was taken: the last is the one after which
            ``terminated`` or ``truncated`` is true, if there is such a one.

        Raises:
            InvalidAction: If one of them does not fit the space. Nothing was sent.
            RemoteGymError: As for `step`; its ``transitions`` are those before the step that failed. Where the
                environment is gone there are none: they are lost with the answer. With ``on_session_lost="truncate"``
                one is returned then, which ends the episode by the observation before the first action.
        """
        if not self._was_reset or self._session is None or self._reader is None:
            raise reset_needed("step_many", was_closed=self._was_closed)
        request = pb.Request()
        request.step_many.SetInParent()
        for action in actions:
            encode_action(self._action_layout, action, request.step_many.steps.add(), self._options.message_limits)
        if self._rendering.wanted:
            self._rendering.ask(request, self._reader, len(request.step_many.steps))
        try:
            if self._lent is not None:
                self._return_generator()
            response, _ = self._session.ask(request, self._options.step_timeout)
        except LOSSES as error:
            return [self._reader.truncation(error)]
        return self._reader.steps(response.step_many, len(request.step_many.steps))

    def render(self) -> Any:
        """The frame of the newest observation; None without a render mode, before the first reset, or for "human".

        After ``on_session_lost="truncate"`` has ended an episode it is the last that was fetched, until the next reset.
        """
        return self._rendering.render(self._session, self._reader) if self._was_reset else None

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the environment, or read an attribute, that its entrypoint lists in ``EXPOSED``.

        Raises:
            AttributeError: If it is not exposed, saying what would expose it.
            RemoteEnvironmentError: If it raised.
            EncodingError: If an argument or the result has no wire form.
        """
        if self._session is None:
            raise ResetNeeded(f"Cannot call {name!r} before env.reset() has opened a session")
        check_exposed(self._session.description, name)
        if self._lent is not None:
            self._return_generator()
        request = call_request(name, args, kwargs, self._options.message_limits)
        if self._exposed.get(name) is not False:  # a method may change what is to be seen, also where it raises
            self._rendering.outdate(self._reader)
        response, _ = self._session.ask(request, self._options.step_timeout)
        return decode_value(response.call.value, self._options.message_limits)

    def _assign(self, name: str, value: Any) -> None:
        if self._session is None:
            raise ResetNeeded(f"Cannot set {name!r} before env.reset() has opened a session")
        request = assign_request(name, value, self._options.message_limits)
        self._rendering.outdate(self._reader)
        self._session.ask(request, self._options.step_timeout)

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
        return self._session.ticket

    def detach(self) -> SessionTicket:
        """Close the connection, and leave the environment for its lease to whoever resumes it. Raises as `ticket`."""
        if self._lent is not None:
            self._return_generator()
        ticket = self.ticket
        assert self._session is not None
        self._session.let_go()
        self.close()
        return ticket

    def close(self) -> None:
        """Close the environment on the server, the session and the window. A second call does nothing."""
        session, self._session = self._session, None
        self._was_reset, self._was_closed, self._lent = False, True, None
        try:
            if session is not None:
                session.close()
            self._rendering.close()
        finally:  # also where Ctrl-C has struck
            self._end_own_server()

    def __copy__(self) -> RemoteEnvironment:
        # A shallow copy would share window, arguments and space objects; two environments share nothing.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        # A connection belongs to one process, and a session to one connection: the copy opens its own.
        state = {**self.__dict__, "_session": None, "_was_reset": False, "_reader": None, "_lent": None}
        del state["_action_layout"]  # made of functions
        return state

    @property
    def latest_image(self) -> Any:
        """The newest observation's frame, usually uint8 (height, width, 3), or None; fetched if need be."""
        return self._rendering.latest(self._session, self._reader) if self._was_reset else None

    def _open(self, first: pb.Request | None = None) -> Answer | None:
        """Open a session, and return what answers its first request, if there is one."""
        replaced, self._session = self._session, None
        if replaced is not None:
            if replaced.lost:
                self._addresses.lost(replaced.place)
            replaced.close()
        self._was_reset, self._was_closed, self._lent = False, False, None
        self._reader = None
        mode, streams = mode_to_open(self.render_mode), self._rendering.streams
        request = open_request(self.remote_args, self._options, render_mode=mode, streams_frames=streams)
        if first is not None:
            first.sequence = 1
            request.first.CopyFrom(first)
        open_once = functools.partial(self._addresses.open, request)
        # Only a reset waits for a server that is away; the constructor reports at once that nobody answers.
        self._session = open_once() if first is None else open_again(open_once, self._options)
        try:
            self._adopt(self._session)
        except BaseException:
            self._session.close()
            self._session = None
            raise
        answer = self._session.first
        return None if answer is None else unless_error(answer)

    def _resume(self, ticket: SessionTicket) -> None:
        """Go on with a session of another process."""
        connection = connect(ticket.url, ticket.port, self._files, self._options)
        session = self._session = ClientSession.find(connection, ticket, self._options)
        try:
            check_resumed(session.description, self.render_mode)
            answer = session.take_over(self._options.step_timeout)
            self._adopt(session)
            self._was_reset = answer is not None
            assert self._reader is not None
            returned = None if answer is None else self._reader.anything(*answer)
            self.resumed = Resumption(executed=session.ticket.answered - ticket.answered, returned=returned)
        except BaseException:
            session.let_go()  # it may be another's, or be resumed otherwise
            self._session = None
            raise

    def _adopt(self, session: ClientSession) -> None:
        description, limits = session.description, self._options.message_limits
        self._rendering.check(description)
        self.url, self.port = session.place
        self.observation_space = decode_space(description.observation_space, limits)
        self.action_space = decode_space(description.action_space, limits)
        self._reader = Reader(
            self.observation_space,
            limits,
            keeps_last=self._options.on_session_lost == "truncate",
            on_observation=None if self._rendering.window is None else self._show,
        )
        self._action_layout = compile_layout(self.action_space)
        self.metadata = read_metadata(description, limits, self.render_mode)
        place: dict[str, Any] = {} if "addresses" in self._made_with else {"url": self.url, "port": self.port}
        self.spec = read_spec(description, **place, **self._made_with)
        self._lacking, self._made_by_id = tuple(description.lacking), description.made_by_id
        self._exposed = read_exposed(description, own={*self.__dict__, *dir(type(self))} - {RANDOM})
        if self._rendering.window is not None:
            self._rendering.window.fps = self.metadata.get("render_fps")

    def _show(self) -> None:
        assert self._reader is not None
        self._rendering.show(self._session, self._reader)
