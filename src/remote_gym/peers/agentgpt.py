"""`from_agentgpt`: a Gymnasium environment over an environment host of AgentGPT, which dials in."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.error import ResetNeeded

from remote_gym.address import is_loopback
from remote_gym.config import ClientOptions, TlsFiles, merge_options
from remote_gym.errors import (
    ConfigError,
    ConnectionLost,
    EncodingError,
    ProtocolMismatch,
    RemoteEnvironmentError,
    TransportError,
)
from remote_gym.logs import get_logger
from remote_gym.peers.elements import element_of, flag_of, number_of, plain, plain_value, shown

try:
    from remote_gym.peers.agentgpt_hub import Host, Hub, Settings
    from remote_gym.peers.agentgpt_wire import pack, space_of, unpack
except ImportError as error:
    # Told when it is called: `from remote_gym import *` is for those without the extra, too.
    _missing: ImportError | None = error
else:
    _missing = None

if TYPE_CHECKING:
    import os

    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords

logger = get_logger(__name__)


def from_agentgpt(
    port: int,
    *,
    env_id: str,
    training_key_file: str | os.PathLike[str],
    env_idx: int | None = None,
    observation_space: gym.Space[Any] | None = None,
    action_space: gym.Space[Any] | None = None,
    host: str = "127.0.0.1",
    tls: TlsFiles | None = None,
    options: ClientOptions | None = None,
    **keywords: Unpack[ClientKeywords],
) -> AgentGptEnvironment:
    """Use an environment of an AgentGPT environment host as a Gymnasium environment.

    It listens, and hosts dial in, as they do to a trainer. The environments of a process share a port that they name
    alike, and each takes a host of its own; it is given back when the environment is closed.

    Args:
        port: To listen on; 0 for a free one, which `AgentGptEnvironment.port` is.
        env_id: Of the environment that the host makes, such as ``"Pendulum-v1"``.
        training_key_file: File with the key that hosts have to show.
        env_idx: Which host is wanted, by its ``env_idx``; None for any.
        observation_space: Of what it observes; None to ask the host.
        action_space: Likewise of its actions. Hosts cannot describe `Discrete` ones, nor what is none of `Box`, `Dict`
            and `Tuple`.
        host: Address to listen on. Beyond this machine it needs ``tls``.
        tls: Certificate and key of this end; with an authority hosts have to show certificates.
        options: Options all at once; those of timeouts and limits count. ``open_timeout`` is how long a host is
            waited for, and its making of the environment.
        **keywords: Single options.

    Raises:
        ConfigError: If an argument cannot work, nobody can listen there, or websockets is not installed.
        DeadlineExceeded: If no host has dialled in.
        EncodingError: If it describes no space of Gymnasium's; give the space then.
        RemoteEnvironmentError: If it cannot make the environment.
    """
    if _missing is not None:
        raise ConfigError("from_agentgpt needs msgpack and websockets: pip install 'remote-gym[http]'") from _missing
    merged = merge_options(ClientOptions, options, keywords, of=from_agentgpt)
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        if space is not None and not isinstance(space, gym.Space):
            raise ConfigError(f"is {space!r:.200}; use a space of Gymnasium's, or None", field=name, where=name)
    if type(port) is not int or not 0 <= port <= 65535:
        raise ConfigError(f"is {port!r}; use an integer from 0 to 65535", field="port", where="port")
    if not isinstance(env_id, str) or not env_id:
        raise ConfigError(f"is {env_id!r}; use the host's, such as 'Pendulum-v1'", field="env_id", where="env_id")
    if tls is None and not merged.allow_insecure and not is_loopback(host):
        raise ConfigError(
            f"{host!r} can be reached from other machines, and without certificates anybody in between could read the "
            "training key; give certificates (tls), or accept it by allow_insecure=True",
            field="host",
            where="host",
        )
    limits = merged.message_limits
    settings = Settings(host, port, _key(training_key_file), tls, limits.message_bytes)
    return AgentGptEnvironment(settings, env_id, env_idx, observation_space, action_space, merged)


class AgentGptEnvironment(gym.Env[Any, Any]):
    """An environment of an AgentGPT environment host; `from_agentgpt` makes one.

    A step is not sent twice: where the host goes away, `ConnectionLost` is raised, and the next reset has another
    host, or the same once it has dialled in again, make the environment anew. An answer that is late is waited for by
    the next reset, and dropped: hosts answer in order, and one that is cut off ends for good.

    Attributes:
        observation_space, action_space: As given, or as the host describes them.
        port: That hosts dial in to.
    """

    def __init__(
        self,
        settings: Settings,
        env_id: str,
        env_idx: int | None,
        observation_space: gym.Space[Any] | None,
        action_space: gym.Space[Any] | None,
        options: ClientOptions,
    ) -> None:
        self._env_id, self._env_idx = env_id, env_idx
        self._options = options
        self._given = {"observation": observation_space, "action": action_space}
        self._is_running = self._closed = False
        self._key = ""
        self._host: Host | None = None
        self._hub = Hub.join(settings)
        self.port = self._hub.port
        try:
            self.observation_space, self.action_space = self._make()
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: The host's environment gets it.
            options: Likewise.

        Returns:
            The first observation, and the info.

        Raises:
            RemoteEnvironmentError: If the environment raises.
            EncodingError: If the observation does not fit its space.
            TransportError: If no host is there, or it does not answer.
        """
        super().reset(seed=seed)
        if self._closed:
            raise ResetNeeded("the environment was closed; make another by from_agentgpt")
        self._is_running = False
        if self._host is not None:
            self._settle(self._host)
        if self._host is None:
            found = self._make()
            if found != (self.observation_space, self.action_space):
                self._let_go()
                raise ProtocolMismatch("the host has other spaces than when this environment was made; make another")
        data = {"seed": seed, "options": None if options is None else plain_value(options)}
        answer = self._ask("reset", data, self._options.reset_timeout)
        observation = element_of(self.observation_space, _member(answer, "observation"), "observation")
        self._is_running = True
        return observation, _info(answer)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step once.

        Returns:
            Observation, reward, terminated, truncated, and the info.

        Raises:
            InvalidAction: If it does not fit. Nothing was sent.
            gymnasium.error.ResetNeeded: Before a reset, and after the end of an episode.
            RemoteEnvironmentError: If the environment raises.
            EncodingError: If what it returns does not fit, such as that of several agents.
            ConnectionLost: If the host went away; whether the step was taken is not known.
            DeadlineExceeded: If no answer came within ``step_timeout``. The episode is lost.
        """
        if not self._is_running:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        answer = self._ask("step", {"action": plain(self.action_space, action)}, self._options.step_timeout)
        reward, *ends = (_member(answer, name) for name in ("reward", "terminated", "truncated"))
        for name, found in (("reward", reward), ("terminated", ends[0]), ("truncated", ends[1])):
            if found is None or isinstance(found, (list, tuple, dict)):
                raise EncodingError(
                    f"the host's {name} is {shown(found)!r:.200}: its environment has several agents, or is a vector; "
                    "from_agentgpt takes one that is a gymnasium.Env"
                )
        observation = element_of(self.observation_space, _member(answer, "observation"), "observation")
        terminated, truncated = flag_of(ends[0], "terminated"), flag_of(ends[1], "truncated")
        self._is_running = not (terminated or truncated)
        return observation, number_of(reward, "reward"), terminated, truncated, _info(answer)

    def close(self) -> None:
        """Have the host close its environment, give it back, and listen no more if nobody else does."""
        if self._closed:
            return
        self._closed, self._is_running = True, False
        try:
            if self._host is not None and not self._host.conversation.owes:
                self._ask("close", {}, self._options.close_timeout)
        except (TransportError, RemoteEnvironmentError, ProtocolMismatch) as error:
            logger.info("closing a host's environment: %s", error)
        finally:
            try:
                self._let_go()
            finally:
                self._hub.leave()

    def _make(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Take a host, and have it make the environment; its spaces."""
        deadline = time.monotonic() + self._options.open_timeout
        self._host = self._hub.take(self._env_idx, self._options.open_timeout)
        self._key = str(uuid.uuid4())
        self._ask("make", {"env_id": self._env_id, "render_mode": None}, max(0.1, deadline - time.monotonic()))
        found = []
        for what, space in self._given.items():
            if space is None:
                try:
                    answer = self._ask(f"{what}_space", {}, self._options.open_timeout)
                except RemoteEnvironmentError as error:
                    text = f"the host cannot describe its {what}_space: {error.remote_message}; give {what}_space"
                    raise EncodingError(text) from error
                space = space_of(answer, what, self._options.message_limits)
            found.append(space)
        return found[0], found[1]

    def _settle(self, host: Host) -> None:
        """Have the host answer what it still owes."""
        try:
            self._hub.background.run(host.conversation.settle(self._options.reset_timeout))
        except ConnectionLost:
            self._let_go()
        except TransportError:
            self._let_go()
            raise
        else:
            if not host.conversation.is_open:
                self._let_go()

    def _ask(self, method: str, data: dict[str, Any], timeout: float) -> Any:
        assert self._host is not None
        request = pack(method, self._key, data)
        try:
            message = self._hub.background.run(self._host.conversation.ask(request, timeout))
        except ConnectionLost:
            self._let_go()
            raise
        except BaseException:
            self._is_running = False
            raise
        try:
            return unpack(method, message, self._options.message_limits)
        except ProtocolMismatch:
            conversation = self._host.conversation
            self._hub.background.run(conversation.cut())
            self._let_go()
            raise

    def _let_go(self) -> None:
        host, self._host, self._is_running = self._host, None, False
        if host is not None:
            self._hub.give_back(host)


def _member(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise EncodingError(f"the host's answer has no {name!r}: {shown(answer)!r:.200}")
    return answer[name]


def _info(answer: Any) -> dict[str, Any]:
    info = _member(answer, "info")
    if not isinstance(info, dict):
        raise EncodingError(f"the host's info is {shown(info)!r:.200}; expected a dict")
    return info


def _key(path: str | os.PathLike[str]) -> bytes:
    """The training key.

    Raises:
        ConfigError: If there is none.
    """
    where = "training_key_file"
    try:
        key = Path(path).read_bytes().strip()
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"is {path!r:.200}, which cannot be read: {error}", field=where, where=where) from error
    if not 8 <= len(key) <= 1000 or not key.isascii() or not key.decode().isprintable():
        text = f"is {path!r:.200}, which holds no key; write a random text of 8 to 1000 characters there"
        raise ConfigError(text, field=where, where=where)
    return key
