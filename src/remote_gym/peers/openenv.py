"""`from_openenv`: a Gymnasium environment over a server of OpenEnv."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from remote_gym.config import ClientOptions, TlsFiles, merge_options
from remote_gym.errors import (
    ConfigError,
    ConnectionLost,
    EncodingError,
    FullReason,
    InvalidAction,
    LossReason,
    ProtocolMismatch,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionLost,
    TransportError,
)
from remote_gym.logs import get_logger
from remote_gym.peers.elements import flag_of, is_image, number_of, plain_value, shown
from remote_gym.peers.openenv_schema import Form, form_of, members_of

try:
    from remote_gym.peers.background import Background
    from remote_gym.peers.openenv_connection import Link, ask, place_of
except ImportError as error:
    # Told when it is called: `from remote_gym import *` is for those without the extra, too.
    _missing: ImportError | None = error
else:
    _missing = None

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords
    from remote_gym.peers.conversation import Conversation

logger = get_logger(__name__)


def from_openenv(
    url: str,
    *,
    observation_space: gym.Space[Any] | None = None,
    action_space: gym.Space[Any] | None = None,
    headers: Mapping[str, str] | None = None,
    tls: TlsFiles | None = None,
    options: ClientOptions | None = None,
    **keywords: Unpack[ClientKeywords],
) -> OpenEnvEnvironment:
    """Use an environment of an OpenEnv server as a Gymnasium environment.

    Args:
        url: The server's base URL, as OpenEnv's own clients take it: ``"http://localhost:8000"``.
        observation_space: Of what it observes: a `Dict` of the members that are wanted, or the space of the one that
            there is. None for what the server's ``/schema`` describes.
        action_space: Likewise of its actions.
        headers: Of each request, such as ``{"X-API-Key": "..."}``; ``token=`` is a bearer token.
        tls: PEM files of this client; None for the system's authorities, where the URL has https.
        options: Options all at once; those of timeouts, tokens and limits count.
        **keywords: Single options.

    Raises:
        ConfigError: If an argument cannot work, or websockets is not installed.
        ConnectError: If the server cannot be reached, or is none of OpenEnv's.
        EncodingError: If its ``/schema`` has no space of Gymnasium's; give the space then.
        NotPermitted: If it does not know the token.
        ServerFull: If it has no room.
    """
    if _missing is not None:
        raise ConfigError("from_openenv needs websockets: pip install 'remote-gym[http]'") from _missing
    merged = merge_options(ClientOptions, options, keywords, of=from_openenv)
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        if space is not None and not isinstance(space, gym.Space):
            raise ConfigError(f"is {space!r:.200}; use a space of Gymnasium's, or None", field=name, where=name)
    return OpenEnvEnvironment(Link(place_of(url), tls, headers or {}, merged), observation_space, action_space, merged)


class OpenEnvEnvironment(gym.Env[Any, Any]):
    """An environment of an OpenEnv server; `from_openenv` makes one.

    A step is not sent twice: where the connection breaks, or no answer comes in time, the episode is lost, since
    OpenEnv has no way to tell whether it was taken. The next reset begins another one, by another connection.

    Attributes:
        observation_space, action_space: As given, or by the server's schemas: a `Dict` of their members, or the one
            space where there is one.
    """

    def __init__(
        self,
        link: Link,
        observation_space: gym.Space[Any] | None,
        action_space: gym.Space[Any] | None,
        options: ClientOptions,
    ) -> None:
        self._link = link
        self._options = options
        self._is_running = self._closed = False
        self._observations, self._actions = _forms(link, observation_space, action_space, options)
        self.observation_space, self.action_space = self._observations.space, self._actions.space
        self._background = Background(f"remote_gym.openenv {link.name}")
        self._release = weakref.finalize(self, self._background.stop)
        self._conversation: Conversation | None = None
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: The server's environment gets it, if it takes one.
            options: Further members of the reset, such as ``episode_id``.

        Returns:
            The first observation, and the info: the server's metadata, and members of the observation that its space
            does not name.

        Raises:
            RemoteEnvironmentError: If the server refuses.
            EncodingError: If the observation does not fit its space.
            SessionLost: If the server has ended the session.
            TransportError: If it does not answer.
        """
        super().reset(seed=seed)
        data = _reset_data(seed, options)
        if self._closed:
            raise ResetNeeded("the environment was closed; make another by from_openenv")
        self._is_running = False
        if self._conversation is None or not self._conversation.is_open:
            self._let_go()
            self._connect()
        observation, _, _, _, info = self._read(self._ask("reset", data, self._options.reset_timeout))
        self._is_running = True
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step once.

        Returns:
            Observation, reward (0.0 where the server has none), terminated, truncated, and the info, as `reset` has
            it. OpenEnv knows one end, ``done``, which is ``terminated`` unless the metadata tell the two.

        Raises:
            InvalidAction: If it does not fit. Nothing was sent.
            gymnasium.error.ResetNeeded: Before a reset, and after the end of an episode.
            RemoteEnvironmentError: If the server refuses it.
            ConnectionLost: If the connection broke; whether the step was taken is not known.
            DeadlineExceeded: If no answer came within ``step_timeout``. The episode is lost; the next reset begins
                another.
        """
        if not self._is_running:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        data = self._actions.write(action)
        answer = self._ask("step", data, self._options.step_timeout)
        observation, reward, terminated, truncated, info = self._read(answer)
        self._is_running = not (terminated or truncated)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """End the session, and close the connection."""
        if self._closed:
            return
        self._closed, self._is_running = True, False
        conversation, self._conversation = self._conversation, None
        try:
            if conversation is not None:
                farewell = json.dumps({"type": "close"})
                self._background.run(conversation.close(self._options.close_timeout, farewell))
        finally:
            self._release()

    def _connect(self) -> None:
        self._conversation = self._link.converse(self._background)

    def _ask(self, kind: str, data: dict[str, Any], timeout: float) -> Mapping[str, Any]:
        """The data of what answers a message.

        Raises:
            RemoteGymError: If that is an error: the kind that says most.
            ProtocolMismatch: If it answers something else, or is unreadable.
            TransportError: If none came in time. The connection is given up: its answer may still come.
        """
        assert self._conversation is not None
        try:
            message = json.dumps({"type": kind, "data": data})
        except (TypeError, ValueError) as error:
            raise InvalidAction(f"{kind}: {error}") from None
        try:
            text = self._background.run(ask(self._conversation, message, timeout))
        except ConnectionLost as error:
            unasked = self._conversation.unasked
            self._let_go()
            # A server without room says so unasked, and closes.
            if unasked is not None and isinstance(found := self._parse(kind, unasked), RemoteGymError):
                raise found from error
            raise
        except BaseException:
            self._let_go()
            raise
        answer = self._parse(kind, text)
        if isinstance(answer, RemoteGymError):
            if not isinstance(answer, RemoteEnvironmentError):
                self._let_go()
            raise answer
        return answer

    def _parse(self, kind: str, text: str | bytes) -> Mapping[str, Any] | RemoteGymError:
        """Data of an observation, or the error that a message is."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            return ProtocolMismatch(f"{self._link.name} answered {kind} by what is no JSON: {shown(error)}")
        data = message.get("data") if isinstance(message, dict) else None
        if not isinstance(data, dict) or message.get("type") not in ("observation", "error"):
            return ProtocolMismatch(f"{self._link.name} answered {kind} by {shown(message)!r:.300}")
        if message["type"] == "observation":
            return data
        code, found = shown(data.get("code")), shown(data.get("message"))
        if data.get("errors"):  # Pydantic's, which their message does not hold
            found = shown(f"{found}: {data['errors']}")
        if code == "CAPACITY_REACHED":
            return ServerFull(f"{self._link.name}: {found}", reason=FullReason.SESSIONS)
        if code == "SESSION_ERROR":
            return SessionLost(f"{self._link.name}: {found}", reason=LossReason.UNKNOWN)
        return RemoteEnvironmentError(f"openenv.{kind}", f"{found} (code {code})")

    def _read(self, data: Mapping[str, Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        found = data.get("observation")
        members = dict(found) if isinstance(found, dict) else {"observation": found}
        # Their servers send the metadata twice, within the observation as well.
        within = None if _names(self.observation_space, "metadata") else members.pop("metadata", None)
        metadata = data.get("metadata") or within
        observation, rest = self._observations.read(members)
        info = {name: each for name, each in rest.items() if not self._is_shown_twice(name)}
        reward, done = data.get("reward"), flag_of(data.get("done", False), "done")
        flags = done, False
        if isinstance(metadata, dict):
            terminated, truncated = metadata.get("terminated"), metadata.get("truncated")
            if isinstance(terminated, bool) and isinstance(truncated, bool):  # of a server of ours
                flags = terminated, truncated
                metadata = {name: each for name, each in metadata.items() if name not in ("terminated", "truncated")}
            info |= metadata
        return observation, 0.0 if reward is None else number_of(reward, "reward"), *flags, info

    def _is_shown_twice(self, name: str) -> bool:
        """Whether it is an image as PNG, beside itself."""
        of = name.removesuffix("_png")
        if of == name:
            return False
        space = self.observation_space
        return is_image(space.spaces[of] if isinstance(space, spaces.Dict) and of in space.spaces else space)

    def _let_go(self) -> None:
        conversation, self._conversation, self._is_running = self._conversation, None, False
        if conversation is not None:
            self._background.run(conversation.cut())


def _forms(
    link: Link, observation_space: gym.Space[Any] | None, action_space: gym.Space[Any] | None, options: ClientOptions
) -> tuple[Form, Form]:
    """How observations and actions travel: the server is asked for what the spaces do not say."""
    given = {"observation": observation_space, "action": action_space}
    schemas: Any = {}
    if not all(isinstance(space, spaces.Dict) for space in given.values()):
        try:
            schemas = link.schemas()
        except (TransportError, EncodingError):
            if None in given.values():
                raise
    if not isinstance(schemas, dict):
        raise EncodingError(f"{link.name}/schema is {shown(schemas)!r:.200}; expected an object")
    found = []
    for what, space in given.items():
        if space is None:
            found.append(form_of(schemas.get(what), what, options.message_limits))
        else:
            found.append(Form(space, None if isinstance(space, spaces.Dict) else _only_name(schemas, what), what))
    return found[0], found[1]


def _only_name(schemas: Mapping[str, Any], what: str) -> str:
    """Name of the one member that the server has there; else that which servers of ours give it."""
    try:
        names = list(members_of(schemas.get(what), what))
    except EncodingError:
        return what
    return names[0] if len(names) == 1 else what


def _names(space: gym.Space[Any], name: str) -> bool:
    return isinstance(space, spaces.Dict) and name in space.spaces


def _reset_data(seed: int | None, options: dict[str, Any] | None) -> dict[str, Any]:
    data = plain_value(options or {})
    if "seed" in data:
        raise ConfigError("holds a seed; give it as seed=", field="options", where="options")
    try:
        json.dumps(data)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"hold what JSON does not know: {error}", field="options", where="options") from None
    return data if seed is None else {"seed": int(seed), **data}
