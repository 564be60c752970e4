"""`RemoteEnvironment`: a `gymnasium.Env` whose environment lives elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gymnasium.error import ResetNeeded

from remote_gym.address import Address
from remote_gym.client.attributes import RemoteAttributes
from remote_gym.client.connect.opening import CredentialPaths, connect
from remote_gym.client.docker_image import FromDockerImage
from remote_gym.client.recovery import LOSSES, reset_needed
from remote_gym.client.rendering import FrameTiming
from remote_gym.client.rules.environment import EnvironmentRules
from remote_gym.client.rules.operations import Operations, perform
from remote_gym.client.servers import Addresses
from remote_gym.client.session import ClientSession
from remote_gym.config import ClientOptions, EnvironmentLike, TlsFiles, shows_options
from remote_gym.protocol.description import check_exposed
from remote_gym.protocol.requests import assign_request, call_request, reset_request
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.values import decode_value

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords


@shows_options(ClientOptions)
class RemoteEnvironment(EnvironmentRules, FromDockerImage, RemoteAttributes):
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

    reward_range = (-math.inf, math.inf)

    _session: ClientSession | None

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
        self._set_up(
            RemoteEnvironment,
            Addresses,
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
        perform(self._opening() if resume is None else self._resuming(resume))

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
        return perform(self._resetting(request))

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
        request = self._step_many_request(actions)
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
        return perform(self._rendering.rendering(self._session, self._reader)) if self._was_reset else None

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

    def detach(self) -> SessionTicket:
        """Close the connection, and leave the environment for its lease to whoever resumes it. Raises as `ticket`."""
        ticket = perform(self._letting_go())
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

    @property
    def latest_image(self) -> Any:
        """The newest observation's frame, usually uint8 (height, width, 3), or None; fetched if need be."""
        return perform(self._rendering.latest(self._session, self._reader)) if self._was_reset else None

    def _finding(self, ticket: SessionTicket) -> Operations[ClientSession]:
        return ClientSession.finding(
            connect(ticket.url, ticket.port, self._files, self._options), ticket, self._options
        )

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _after_observation(self) -> Callable[[], None] | None:
        return None if self._rendering.window is None else self._show

    def _show(self) -> None:
        assert self._reader is not None
        perform(self._rendering.showing(self._session, self._reader))
