"""`from_dm_env_rpc`: a Gymnasium environment over a server of dm_env_rpc."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from remote_gym.address import Address, to_place
from remote_gym.client.connect.opening import connect
from remote_gym.config import ClientOptions, TlsFiles, merge_options
from remote_gym.errors import (
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    ProtocolMismatch,
    RemoteEnvironmentError,
    TransportError,
)
from remote_gym.logs import get_logger
from remote_gym.protocol.stream import Stream

try:
    from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
    from dm_env_rpc.v1 import tensor_utils
    from google.protobuf.message import DecodeError

    from remote_gym.peers.dm_env_rpc_specs import Tensors, unpack
except ImportError as error:
    # Told when it is called: `from remote_gym import *` is for those without the extra, too.
    _missing: ImportError | None = error
else:
    _missing = None

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords

logger = get_logger(__name__)

METHOD = "/dm_env_rpc.v1.Environment/Process"
REWARD, DISCOUNT = "reward", "discount"
"""Names of observations that are no observations, as `dm_env_rpc.v1.dm_env_adaptor` has them."""


def from_dm_env_rpc(
    address: Address = ("localhost", 56789),
    *,
    world: Mapping[str, Any] | None = None,
    join: Mapping[str, Any] | None = None,
    world_name: str | None = None,
    seed_setting: str | None = None,
    rendering: str | None = None,
    tls: TlsFiles | None = None,
    options: ClientOptions | None = None,
    **keywords: Unpack[ClientKeywords],
) -> DmEnvRpcEnvironment:
    """Use an environment of a dm_env_rpc server as a Gymnasium environment.

    It creates a world of its own, unless it is given the name of one, and joins it.

    Args:
        address: The server's, ``"host:port"`` or a pair.
        world: Settings by which a world is created.
        join: Settings by which it is joined.
        world_name: A world that is there, which is joined and not destroyed in the end; None to create one.
        seed_setting: Setting of a reset that takes `reset`'s seed. None where the server has none: seeds are ignored
            then, and a warning says so once.
        rendering: Name of an observation that is a frame, uint8 of shape (height, width, 3): `render` returns the
            newest, and it is no part of observations.
        tls: PEM files of this client; None for no TLS, which is for this machine alone.
        options: Options all at once; those of timeouts, tokens and limits count.
        **keywords: Single options.

    Raises:
        ConfigError: If an argument cannot work, or dm-env-rpc is not installed.
        ConnectError: If the server cannot be reached.
        EncodingError: If a spec of its has no space of Gymnasium's.
        RemoteEnvironmentError: If the server refuses to create or to join the world.
    """
    if _missing is not None:
        raise ConfigError("from_dm_env_rpc needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'") from _missing
    merged = merge_options(ClientOptions, options, keywords, of=from_dm_env_rpc)
    settings = _Settings(dict(world or {}), dict(join or {}), world_name, seed_setting, rendering)
    return DmEnvRpcEnvironment(address, settings, tls, merged)


class _Settings:
    """How a world is created, joined, seeded and seen; arguments of `from_dm_env_rpc`."""

    def __init__(
        self,
        world: dict[str, Any],
        join: dict[str, Any],
        world_name: str | None,
        seed_setting: str | None,
        rendering: str | None,
    ) -> None:
        if world and world_name is not None:
            raise ConfigError(
                f"world is {world!r} beside the world {world_name!r}, which is there already; leave one out",
                field="world",
            )
        self.world, self.join, self.world_name = _tensors("world", world), _tensors("join", join), world_name
        self.seed, self.rendering = seed_setting, rendering


class DmEnvRpcEnvironment(gym.Env[Any, Any]):
    """An environment of a dm_env_rpc server; `from_dm_env_rpc` makes one.

    A step is not sent twice: where the connection breaks, `ConnectionLost` is raised, since dm_env_rpc has no way to
    tell whether it was taken. The next reset joins the world again, or another one where that has ended.

    Attributes:
        observation_space, action_space: By the server's specs: a `Dict` by their names, whose dots are levels, or the
            one space where there is one.
    """

    def __init__(self, address: Address, settings: _Settings, tls: TlsFiles | None, options: ClientOptions) -> None:
        self._settings = settings
        self._options = options
        self._connection = connect(*to_place(address), tls, options)
        self._stream: Stream | None = None
        self._created: str | None = None  # the world that is to be destroyed in the end
        self._is_running = self._closed = self._told_of_seeds = False
        self._frame: Any = None
        self.render_mode = None if settings.rendering is None else "rgb_array"
        self.metadata = {"render_modes": [] if settings.rendering is None else ["rgb_array"]}
        try:
            specs = self._join()
            self._specs = specs
            self._rewards = _by_name(specs, REWARD)
            self._discounts = _by_name(specs, DISCOUNT)
            self._frames = None if settings.rendering is None else _by_name(specs, settings.rendering)
            if settings.rendering is not None and self._frames is None:
                names = sorted(spec.name for spec in specs.observations.values())
                raise ConfigError(f"rendering is {settings.rendering!r}, and the server has {names}", field="rendering")
            limits = options.message_limits
            without = {REWARD, DISCOUNT, *([] if settings.rendering is None else [settings.rendering])}
            self._observations = Tensors(specs.observations, left_out=without, what="observation", limits=limits)
            self._actions = Tensors(specs.actions, left_out=(), what="action", limits=limits)
        except BaseException:
            self.close()
            raise
        self.observation_space = self._observations.space
        self.action_space = self._actions.space
        others = (self._rewards, self._discounts, self._frames)
        self._wanted = [*self._observations.uids, *(uid for uid, _ in filter(None, others))]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Sent as the setting ``seed_setting``.
            options: Settings of the reset.

        Returns:
            The first observation, and the info: ``{"discount": ...}`` where the server tells one.

        Raises:
            RemoteEnvironmentError: If the server refuses.
            ProtocolMismatch: If it has other specs than before.
            TransportError: If it does not answer.
        """
        super().reset(seed=seed)
        settings = dict(options or {})
        if seed is not None:
            if self._settings.seed is not None:
                settings[self._settings.seed] = seed
            elif not self._told_of_seeds:
                self._told_of_seeds = True
                logger.warning("the server gets no seed, since from_dm_env_rpc was given no seed_setting")
        if self._stream is None:
            self._check_specs(self._join())
        self._is_running = False
        request = dm.EnvironmentRequest(reset=dm.ResetRequest(settings=_tensors("options", settings)))
        self._check_specs(self._ask(request, self._options.reset_timeout).reset.specs)
        # The first step of an episode takes no action, and returns its first observation.
        observation, _, state, info = self._step({}, self._options.reset_timeout)
        if state != dm.EnvironmentStateType.RUNNING:
            raise ProtocolMismatch(f"the server began an episode in the state {_state(state)}; expected RUNNING")
        self._is_running = True
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step once.

        Returns:
            Observation, reward (0.0 where the server has none), whether the state is TERMINATED, whether it is
            INTERRUPTED, and the info.

        Raises:
            InvalidAction: If it does not fit. Nothing was sent.
            gymnasium.error.ResetNeeded: Before a reset, and after the end of an episode: the server would begin another
                one, and not take the action.
            RemoteEnvironmentError: If the server refuses it.
            ConnectionLost: If the connection broke; whether the step was taken is not known.
            DeadlineExceeded: If no answer came within ``step_timeout``. The next reset joins anew.
        """
        if not self._is_running:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        observation, reward, state, info = self._step(self._actions.pack(action), self._options.step_timeout)
        self._is_running = state == dm.EnvironmentStateType.RUNNING
        is_terminated = state == dm.EnvironmentStateType.TERMINATED
        return observation, reward, is_terminated, not self._is_running and not is_terminated, info

    def render(self) -> Any:
        """The newest frame; None without ``rendering``."""
        return self._frame

    def close(self) -> None:
        """Leave the world, destroy it if it was made for this environment, and close the connection."""
        if self._closed:
            return
        self._closed, self._is_running = True, False
        try:
            if self._stream is not None or self._created is not None:
                self._ask(dm.EnvironmentRequest(leave_world=dm.LeaveWorldRequest()), self._options.close_timeout)
            if self._created is not None:
                request = dm.EnvironmentRequest(destroy_world=dm.DestroyWorldRequest(world_name=self._created))
                self._ask(request, self._options.close_timeout)
        except (TransportError, RemoteEnvironmentError, EncodingError) as error:
            logger.info("leaving a world: %s", error)
        finally:
            self._let_go()
            self._connection.close()

    def _join(self) -> Any:
        """Join the world, on a stream of its own; another world where the one that was made has ended."""
        if self._closed:
            raise ResetNeeded("the environment was closed; make another by from_dm_env_rpc")
        name = self._settings.world_name or self._created
        if name is not None:
            try:
                return self._join_world(name)
            except RemoteEnvironmentError:
                if name != self._created:
                    raise
        request = dm.EnvironmentRequest(create_world=dm.CreateWorldRequest(settings=self._settings.world))
        self._created = self._ask(request, self._options.open_timeout).create_world.world_name
        return self._join_world(self._created)

    def _join_world(self, name: str) -> Any:
        request = dm.JoinWorldRequest(world_name=name, settings=self._settings.join)
        return self._ask(dm.EnvironmentRequest(join_world=request), self._options.open_timeout).join_world.specs

    def _step(self, actions: Mapping[int, Any], timeout: float) -> tuple[Any, float, int, dict[str, Any]]:
        request = dm.StepRequest(requested_observations=self._wanted, actions=actions)
        answer = self._ask(dm.EnvironmentRequest(step=request), timeout).step
        tensors = answer.observations
        observation = self._observations.unpack(tensors)
        reward = 0.0 if self._rewards is None else _number(unpack(tensors, *self._rewards), REWARD)
        info = {} if self._discounts is None else {DISCOUNT: unpack(tensors, *self._discounts)}
        if self._frames is not None:
            self._frame = unpack(tensors, *self._frames)
        return observation, reward, answer.state, info

    def _ask(self, request: Any, timeout: float) -> Any:
        """Send a request and return what answers it.

        Raises:
            RemoteEnvironmentError: If that is an error.
            ProtocolMismatch: If it answers something else.
            TransportError: If none came in time. The stream is given up: its answer may still come.
            EncodingError: If it cannot be read.
        """
        kind, deadline = request.WhichOneof("payload"), time.monotonic() + timeout
        is_first = self._stream is None
        if self._stream is None:
            self._stream = self._connection.stream(METHOD)
        try:
            self._stream.send(request.SerializeToString(), deadline)
            answer = dm.EnvironmentResponse.FromString(bytes(self._receive(deadline, is_first=is_first)))
        except DecodeError as error:
            self._let_go()
            raise EncodingError(f"the server's answer to {kind} cannot be read: {error}") from error
        except BaseException:
            self._let_go()
            raise
        found = answer.WhichOneof("payload")
        if found == "error":
            raise RemoteEnvironmentError(f"dm_env_rpc.{kind}", f"{answer.error.message} (code {answer.error.code})")
        if found != kind:
            self._let_go()
            raise ProtocolMismatch(f"the server answered {found} to {kind}")
        return answer

    def _receive(self, deadline: float, *, is_first: bool) -> bytes | memoryview:
        """Wait for an answer; for the first one of a stream only as long as a server may take to be reached."""
        assert self._stream is not None
        if not is_first:
            return self._stream.receive(deadline)
        try:
            return self._stream.receive(min(deadline, time.monotonic() + self._options.connect_timeout))
        except (ConnectionLost, DeadlineExceeded) as error:
            # gRPC tells neither whether it was reached nor why not.
            reason = self._connection.why_not(min(2.0, self._options.connect_timeout))
            raise (reason or error) from error

    def _let_go(self) -> None:
        stream, self._stream, self._is_running = self._stream, None, False
        if stream is not None:
            stream.close()

    def _check_specs(self, specs: Any) -> None:
        if specs != self._specs:
            raise ProtocolMismatch(
                "the server describes actions and observations otherwise than when this environment was made; make "
                "another by from_dm_env_rpc"
            )


def _tensors(what: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as dm_env_rpc has them.

    Raises:
        ConfigError: If one has no form there.
    """
    found = {}
    for name, value in settings.items():
        try:
            found[name] = tensor_utils.pack_tensor(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{what}[{name!r}] is {value!r:.100}, which is no tensor: {error}", field=what) from error
    return found


def _by_name(specs: Any, name: str) -> tuple[int, Any] | None:
    return next(((uid, spec) for uid, spec in specs.observations.items() if spec.name == name), None)


def _number(value: Any, what: str) -> float:
    if np.ndim(value) or isinstance(value, str):
        raise EncodingError(f"the server's {what} is {value!r:.100}; expected a number")
    return float(value)


def _state(state: int) -> str:
    try:
        return str(dm.EnvironmentStateType.Name(state))
    except ValueError:
        return str(state)
