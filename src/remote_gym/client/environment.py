"""`RemoteEnvironment`: a `gymnasium.Env` whose environment lives elsewhere."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded

from remote_gym.address import grpc_address, is_unix
from remote_gym.client.opening import CredentialPaths, choose_encodings, connect, open_request
from remote_gym.client.session import ClientSession
from remote_gym.client.window import Window
from remote_gym.config import ClientOptions, RemoteArgs
from remote_gym.errors import ConfigError, DeadlineExceeded, EncodingError, RemoteEnvironmentError, RemoteGymError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.elements import decode_observation, encode_action
from remote_gym.wire.frames import decode_frame
from remote_gym.wire.layout import compile_layout
from remote_gym.wire.spaces import decode_space
from remote_gym.wire.status import decode_error
from remote_gym.wire.values import decode_value, encode_value

logger = logging.getLogger(__name__)

FRAME_MODES = ("rgb_array", "human")
"""Render modes of the client for which the environment renders ``"rgb_array"``."""


class RemoteEnvironment(gym.Env[Any, Any]):
    """An environment that a server hosts, used as if it were local.

    Constructing it opens a session, for which the server creates an environment of its own. A pickled copy opens its
    own at its next `reset`; so does this one after it was closed, or after `SessionLost` was raised.

    Args:
        url: Host name or address of the server, or ``unix:`` and a path.
        port: TCP port.
        remote_args: What to create: ``entrypoint_kwargs`` are merged over the server's, and ``environment`` chooses
            one that the server offers by name. What remains of `RemoteArgs` only a server may set, as a rule.
        client_credentials_paths: PEM files: certificate authority of the server, this client's certificate and its
            private key (both None where the server asks for none). None for no TLS.
        render_mode: ``"rgb_array"`` or ``"human"``, for which the server renders and sends frames; or another that the
            environment knows, such as ``"ansi"``, which is rendered when `render` is called.
        frames: Whether frames come with each ``"step"`` and reset, or ``"on_demand"``, when `render` is called.
        **options: Any field of `ClientOptions`.

    Attributes:
        observation_space: As on the server.
        action_space: As on the server.
        metadata: As on the server; ``"human"`` is a render mode wherever ``"rgb_array"`` is.
        spec: As on the server, except that making it connects to the server again.
        latest_image: The newest frame that came with an observation, usually uint8 of shape (height, width, 3).

    Raises:
        ConfigError: If an argument cannot work, or the server says so of what it was asked for.
        ConnectError: If the server could not be reached, or one end did not accept the other's certificate.
        ServerFull: If the server has no place left.
        NotPermitted: If `remote_args` names code to run.
        RemoteEnvironmentError: If creating the environment raised.
        ProtocolMismatch: If the server speaks another version of the protocol.
    """

    # Read from the class by `gymnasium.make`, before anything is known of the server's environment.
    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "ansi"]}  # noqa: RUF012
    reward_range = (-math.inf, math.inf)

    def __init__(
        self,
        url: str = "localhost",
        port: int = 56789,
        remote_args: RemoteArgs | Mapping[str, Any] | None = None,
        client_credentials_paths: CredentialPaths | None = None,
        render_mode: str | None = None,
        *,
        frames: Literal["step", "on_demand"] = "step",
        **options: Any,
    ) -> None:
        grpc_address(url, port)  # says so, if they are none
        if port == 0 and not is_unix(url):
            raise ConfigError("port is 0; use the server's, an integer from 1 to 65535")
        if frames not in ("step", "on_demand"):
            raise ConfigError(f"frames is {frames!r}; use 'step' or 'on_demand'")
        if remote_args is not None and not isinstance(remote_args, Mapping):
            raise ConfigError(f"remote_args is {remote_args!r}; use a dict, such as {{'entrypoint_kwargs': {{...}}}}")
        if render_mode is not None and not isinstance(render_mode, str):
            raise ConfigError(f"render_mode is {render_mode!r}; use a text, such as 'rgb_array', or None")
        self.url = url
        self.port = port
        self.remote_args = dict(remote_args or {})
        self.client_credentials_paths = client_credentials_paths
        self.render_mode = render_mode
        self.latest_image: Any = None
        self._frames = frames
        self._options = ClientOptions(**options)
        self._changed_options = options
        self._session: ClientSession | None = None
        self._was_reset = False
        self._exposed: dict[str, bool] = {}
        # Before the session, so that a machine without a screen says so at once.
        self._window = Window() if render_mode == "human" else None
        self._open()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, on a new session where there is none.

        Returns:
            The first observation, in writable arrays of its own, and the info.

        Raises:
            RemoteEnvironmentError: If the environment raised. It can be reset again.
            SessionLost: If the environment is gone. The next `reset` gets a new one.
            ConnectionLost: If the connection broke and could not be made again. The next `reset` gets a new one.
            DeadlineExceeded: If no answer came within ``reset_timeout``. The next `reset` waits ``close_timeout`` for
                it, and then gets a new environment.
            EncodingError: If `seed` or `options` have no wire form.
            InvalidObservation: If the observation does not fit the environment's own space.
        """
        super().reset(seed=seed)
        limits = self._options.limits
        request = pb.Request()
        request.reset.SetInParent()
        if seed is not None:
            encode_value(seed, request.reset.seed, strict=True, limits=limits, path="seed")
        if options is not None:
            encode_value(options, request.reset.options, strict=True, limits=limits, path="options")
        self._leave_what_hangs()
        if self._session is None or self._session.lost:
            response = self._open(first=request)  # both in one round trip
        else:
            response = self._session.ask(request, self._options.reset_timeout)
        assert response is not None
        self._was_reset = True
        return self._observe(response.reset), self._info(response.reset)

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
            SessionLost: If the environment is gone. The next `reset` gets a new one.
            ConnectionLost: If the connection broke and could not be made again. The next `reset` gets a new one.
            DeadlineExceeded: If no answer came within ``step_timeout``. The next `step` waits for it first, and drops
                it; the next `reset` waits ``close_timeout`` for it, and then gets a new environment.
            InvalidObservation: If the observation does not fit the environment's own space. It has stepped.
        """
        if not self._was_reset or self._session is None:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        request = pb.Request()
        encode_action(self._action_layout, action, request.step, self._options.limits)
        return self._transition(self._session.ask(request, self._options.step_timeout).step)

    def _transition(self, transition: pb.Transition) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """What `step` returns for a transition."""
        observation = self._observe(transition)
        has = transition.HasField
        limits = self._options.limits
        # What another field of the same `oneof` holds reads as 0 or False here, so only then is it looked for.
        reward: Any = transition.reward_float
        if not reward and has("reward_value"):
            reward = decode_value(transition.reward_value, limits)
        terminated: Any = transition.terminated_bool
        if not terminated and has("terminated_value"):
            terminated = decode_value(transition.terminated_value, limits)
        truncated: Any = transition.truncated_bool
        if not truncated and has("truncated_value"):
            truncated = decode_value(transition.truncated_value, limits)
        return observation, reward, terminated, truncated, decode_value(transition.info, limits) if has("info") else {}

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
            RemoteGymError: As for `step`; its ``transitions`` are those before the step that failed.
        """
        if not self._was_reset or self._session is None:
            raise ResetNeeded("Cannot call env.step_many() before calling env.reset()")
        request = pb.Request()
        request.step_many.SetInParent()
        for action in actions:
            encode_action(self._action_layout, action, request.step_many.steps.add(), self._options.limits)
        answer = self._session.ask(request, self._options.step_timeout).step_many
        if (count := len(answer.transitions)) > len(request.step_many.steps):  # each may decompress to a lot
            raise EncodingError(f"{count} transitions came for {len(request.step_many.steps)} actions")
        transitions = [self._transition(transition) for transition in answer.transitions]
        if answer.HasField("error"):
            error = decode_error(answer.error)
            if isinstance(error, RemoteGymError):
                error.transitions = transitions
            raise error
        return transitions

    def render(self) -> Any:
        """The frame of the newest observation; None without a render mode, before the first reset, or for "human"."""
        if self.render_mode is None or self.render_mode == "human" or not self._was_reset:
            return None
        if self._streams_frames:
            return self.latest_image
        return self._fetch_frame()

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the environment, or read an attribute, that its entrypoint lists in ``EXPOSED``.

        Raises:
            RemoteEnvironmentError: If it raised, or is not exposed (as an ``AttributeError``).
            EncodingError: If an argument or the result has no wire form.
        """
        if self._session is None:
            raise ResetNeeded(f"Cannot call {name!r} before env.reset() has opened a session")
        limits = self._options.limits
        request = pb.Request(call=pb.CallRequest(name=name))
        if args:
            encode_value(args, request.call.args, strict=True, limits=limits, path=f"{name}(...)")
        if kwargs:
            encode_value(kwargs, request.call.kwargs, strict=True, limits=limits, path=f"{name}(...)")
        return decode_value(self._session.ask(request, self._options.step_timeout).call.value, limits)

    def close(self) -> None:
        """Close the environment on the server, the session and the window. A second call does nothing."""
        session, self._session = self._session, None
        self._was_reset = False
        if session is not None:
            session.close()
        if self._window is not None:
            self._window.close()

    def __getattr__(self, name: str) -> Any:
        """What the entrypoint exposes reads like an attribute of this environment."""
        is_callable = self.__dict__.get("_exposed", {}).get(name)
        if is_callable is None:
            raise AttributeError(
                f"{type(self).__name__!r} has no attribute {name!r}, nor does its entrypoint expose it"
            )
        if not is_callable:
            try:
                return self.call(name)
            except ResetNeeded as error:  # so that hasattr() says no, rather than raise
                raise AttributeError(str(error)) from error
            except RemoteEnvironmentError as error:
                if error.remote_type != "builtins.AttributeError":
                    raise
                raise AttributeError(error.remote_message) from error
        remote_method: Callable[..., Any] = lambda *args, **kwargs: self.call(name, *args, **kwargs)  # noqa: E731
        return remote_method

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to hide what the entrypoint exposes behind a value that the environment would never see."""
        if name in self.__dict__.get("_exposed", ()):
            raise AttributeError(f"{name!r} is the remote environment's, and cannot be set from here")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # A connection belongs to one process, and a session to one connection: the copy opens its own.
        state = {**self.__dict__, "_session": None, "_was_reset": False, "_window": None, "latest_image": None}
        del state["_observation_layout"], state["_action_layout"]  # made of functions
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._observation_layout = compile_layout(self.observation_space)
        self._action_layout = compile_layout(self.action_space)
        if self.render_mode == "human":
            self._window = Window()

    @property
    def _streams_frames(self) -> bool:
        return self._frames == "step" and self.render_mode in FRAME_MODES

    def _leave_what_hangs(self) -> None:
        """Give up an environment that owes an answer and still does not give it."""
        if self._session is None or self._session.lost or not self._session.is_behind:
            return
        try:
            self._session.catch_up(self._options.close_timeout)
        except DeadlineExceeded as error:
            logger.warning("session %s does not answer, and reset leaves it for a new one: %s", self._session.id, error)
            self._session.close()

    def _open(self, first: pb.Request | None = None) -> pb.Response | None:
        """Open a session, and return what answers its first request, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._was_reset = False
        self.latest_image = None
        mode = "rgb_array" if self.render_mode in FRAME_MODES else self.render_mode
        request = open_request(self.remote_args, self._options, render_mode=mode, streams_frames=self._streams_frames)
        choose_encodings(request, self._options, self.url)
        if first is not None:
            first.sequence = 1
            request.first.CopyFrom(first)
        connection = connect(self.url, self.port, self.client_credentials_paths, self._options)
        self._session = ClientSession(connection, request, self._options)
        try:
            self._adopt(self._session.description)
        except BaseException:
            self._session.close()
            self._session = None
            raise
        answer = self._session.first
        if answer is not None and answer.HasField("error"):
            raise decode_error(answer.error)
        return answer

    def _adopt(self, description: pb.Description) -> None:
        limits = self._options.limits
        self.observation_space = decode_space(description.observation_space, limits)
        self.action_space = decode_space(description.action_space, limits)
        self._observation_layout = compile_layout(self.observation_space)
        self._action_layout = compile_layout(self.action_space)
        self._exposed = {exposed.name: exposed.callable for exposed in description.exposed}
        metadata = decode_value(description.metadata, limits)
        if not isinstance(metadata, dict):
            raise EncodingError(f"the environment's metadata is {metadata!r}, not a dict")
        modes = list(metadata.get("render_modes") or [])
        if "rgb_array" in modes and "human" not in modes:
            metadata["render_modes"] = [*modes, "human"]
        self.metadata = metadata
        self.spec = self._make_spec(description) if description.HasField("spec") else None
        if self._window is not None:
            self._window.fps = metadata.get("render_fps")

    def _make_spec(self, description: pb.Description) -> EnvSpec:
        spec = description.spec
        paths = self.client_credentials_paths
        return EnvSpec(
            id=spec.id,
            entry_point="remote_gym:RemoteEnvironment",
            reward_threshold=spec.reward_threshold if spec.HasField("reward_threshold") else None,
            nondeterministic=spec.nondeterministic,
            max_episode_steps=spec.max_episode_steps if spec.HasField("max_episode_steps") else None,
            order_enforce=False,
            disable_env_checker=True,
            kwargs={
                "url": self.url,
                "port": self.port,
                "remote_args": self.remote_args,
                # As texts, since a spec can be written as JSON.
                "client_credentials_paths": paths and tuple(path and os.fspath(path) for path in paths),
                "render_mode": self.render_mode,
                "frames": self._frames,
                **self._changed_options,
            },
        )

    def _observe(self, transition: pb.Transition) -> Any:
        assert self._session is not None
        packed = self._session.take_packed()
        observation = decode_observation(self._observation_layout, transition, self._options.limits, packed)
        if transition.HasField("frame"):
            self.latest_image = decode_frame(transition.frame, self._options.limits)
            if self._window is not None:
                self._window.show(self.latest_image)
        elif self._window is not None:
            self._window.show(self._fetch_frame())
        return observation

    def _fetch_frame(self) -> Any:
        assert self._session is not None
        request = pb.Request(render=pb.RenderRequest())
        return decode_frame(self._session.ask(request, self._options.step_timeout).render.frame, self._options.limits)

    def _info(self, transition: pb.Transition) -> Any:
        return decode_value(transition.info, self._options.limits) if transition.HasField("info") else {}
