"""Several environments in one worker, stepped by one request."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate
from numpy.typing import NDArray

from remote_gym.errors import ConfigError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.autoreset import autoreset_code, autoreset_mode
from remote_gym.wire.infos import Infos, add_info
from remote_gym.wire.values.foreign import local
from remote_gym.wire.values.unencodable import type_name
from remote_gym.worker.environment.forked_children import ForkedChild
from remote_gym.worker.environment.pools import with_batched_spaces

_CHOOSES = "autoreset_mode" in inspect.signature(SyncVectorEnv).parameters  # since Gymnasium 1.1
_IS_0 = gym.__version__.startswith("0.")
_OWN_MODE = pb.SAME_STEP if _IS_0 else pb.NEXT_STEP
"""Mode of `SyncVectorEnv` unless told otherwise, and before Gymnasium 1.1 in any case."""


class Ahead(abc.ABC):
    """Gets from elsewhere, by one message, all that a step is going to ask of environments that are there.

    The environments then have their answers when they are asked, one after the other, by the same code as any.
    """

    @abc.abstractmethod
    def prepare(self, operations: Iterable[tuple[int, Any]], *, resets_ended: bool) -> None:
        """Let environments take the steps that are theirs.

        Args:
            operations: Numbers of environments and the actions of their steps, `RESET` for a reset, in order.
            resets_ended: Whether one is reset at once when its step ends an episode.
        """

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop answers that were not asked for, since the step has failed."""


RESET: Any = object()
"""In place of an action."""


class Together(SyncVectorEnv):
    """Gymnasium's own, except that values of infos keep their kinds; the client casts them as Gymnasium does.

    In the mode that it has unless told otherwise, a step does the same in somewhat less time.
    """

    ahead: Ahead | None = None
    """Set where the environments are in another process."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """Reset all, or those of a mask."""
        if not hasattr(self, "_env_obs"):  # before Gymnasium 1.0
            return super().reset(seed=seed, options=options)
        self._env_obs = _LocalObservations(self._env_obs)
        try:
            return super().reset(seed=seed, options=options)
        finally:
            self._env_obs = list(self._env_obs)

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Step every environment once, or reset it where its episode ended with the step before."""
        ahead = self.ahead
        if ahead is None:
            return self._step(actions)
        ahead.prepare(self._operations(actions), resets_ended=_mode(self) == pb.SAME_STEP)
        try:
            return self._step(actions)
        finally:
            ahead.forget()

    def _operations(self, actions: Any) -> list[tuple[int, Any]]:
        """Steps and resets that `_step` begins with, up to one at which it fails."""
        ended = self._autoreset_envs.tolist() if hasattr(self, "_autoreset_envs") else [False] * self.num_envs
        if _mode(self) == pb.DISABLED and any(ended):  # which Gymnasium refuses
            ended = ended[: ended.index(True)]
        try:
            each = list(iterate(self.action_space, actions))
        except Exception:  # noqa: BLE001 - which is the step's to meet
            return []
        if len(each) != self.num_envs:
            return []
        resets = _mode(self) == pb.NEXT_STEP
        return [
            (index, RESET if resets and has_ended else action)
            for index, (action, has_ended) in enumerate(zip(each, ended, strict=False))
        ]

    def _step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        if not _CHOOSES or self.autoreset_mode is not gym.vector.AutoresetMode.NEXT_STEP:
            return super().step(actions)
        rewards: list[Any] = []
        terminations: list[Any] = []
        truncations: list[Any] = []
        infos: Infos = {}
        ended = self._autoreset_envs.tolist()
        # Gymnasium writes each number into its array as it comes, which takes many times as long as all at once do.
        for index, (action, environment) in enumerate(zip(iterate(self.action_space, actions), self.envs, strict=True)):
            reward: Any = 0.0
            terminated = truncated = False
            if ended[index]:
                self._env_obs[index], info = environment.reset()
            else:
                self._env_obs[index], reward, terminated, truncated, info = environment.step(action)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            if info or type(info) is not dict:  # what is no dict raises there, as with Gymnasium
                infos = self._add_info(infos, info, index)
        _fill(self._rewards, rewards)
        _fill(self._terminations, terminations)
        _fill(self._truncations, truncations)
        self._observations = self._concatenate()
        self._autoreset_envs = np.logical_or(self._terminations, self._truncations)
        flags = self._terminations.copy(), self._truncations.copy()
        return self._observations, self._rewards.copy(), *flags, infos

    def _concatenate(self) -> Any:
        try:
            return concatenate(self.single_observation_space, self._env_obs, self._observations)
        except (TypeError, RuntimeError):  # arrays of another library that NumPy cannot read, as on a GPU
            return concatenate(self.single_observation_space, list(map(local, self._env_obs)), self._observations)

    def _add_info(self, vector_infos: Infos, env_info: Infos, env_num: int) -> Infos:
        if _IS_0:  # it merges in a way of its own, into arrays of dicts, on which scripts for it rely
            return super()._add_info(vector_infos, env_info, env_num)
        return add_info(vector_infos, env_info, env_num, self.num_envs)


def _fill(array: NDArray[Any], values: list[Any]) -> None:
    try:
        array[:] = values
    # Some came in arrays of their own, which NumPy takes for numbers one by one, or in another library's.
    except (ValueError, TypeError, RuntimeError):
        for index, value in enumerate(values):
            array[index] = local(value)


class _LocalObservations(list[Any]):
    """Observations of which each becomes NumPy's as it is set, since Gymnasium could not read a GPU's."""

    def __setitem__(self, index: Any, observation: Any) -> None:
        super().__setitem__(index, local(observation))


class TogetherBefore11(Together):
    """Mends Gymnasium before 1.1, which does not tell of masks that it cannot reset only some, and, in 0.29, render."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.render_mode = self.envs[0].render_mode

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """Reset all.

        Raises:
            ConfigError: If only some were to be.
        """
        if options is not None and "reset_mask" in options:
            raise ConfigError(
                "a reset_mask of some of a worker's environments needs gymnasium 1.1 at the server, which has "
                f"{gym.__version__}; reset all of them, or give each a worker of its own"
            )
        return super().reset(seed=seed, options=options)

    def render(self) -> tuple[Any, ...]:
        """A frame of each environment."""
        return tuple(environment.render() for environment in self.envs)


def batch(create: Callable[[int], gym.Env[Any, Any]], num_envs: int, mode: pb.AutoresetMode) -> SyncVectorEnv:
    """A vector environment of `num_envs` environments.

    Args:
        create: Makes the environment of that index.
        num_envs: At least 1.
        mode: When they are reset; `SyncVectorEnv`'s own mode if unspecified.

    Raises:
        ConfigError: If this Gymnasium does not know the mode, or the environments do not have the same spaces.
        BaseException: Whatever `create` raises; what it has created is closed.
    """
    if mode not in pb.AutoresetMode.values():
        raise ConfigError(f"autoreset_mode is number {mode}, which this server does not know")
    created: list[gym.Env[Any, Any]] = []

    def create_next() -> gym.Env[Any, Any]:
        created.append(create(len(created)))
        return created[-1]

    arguments: dict[str, Any] = {"copy": False}  # what it returns is encoded before it steps again
    if _CHOOSES:
        arguments["autoreset_mode"] = autoreset_mode(mode or _OWN_MODE)
    elif mode not in (pb.AUTORESET_UNSPECIFIED, _OWN_MODE):
        raise ConfigError(
            f"autoreset_mode {autoreset_mode(mode)!r} needs gymnasium 1.1 at the server, which has {gym.__version__}; "
            f"it offers {autoreset_mode(_OWN_MODE)!r}"
        )
    try:
        return (Together if _CHOOSES else TogetherBefore11)([create_next] * num_envs, **arguments)
    except ForkedChild:  # whose parent goes on with them
        raise
    except BaseException as error:
        for environment in created:
            environment.close()
        # Gymnasium's word for environments whose spaces differ, which are no batch.
        if isinstance(error, RuntimeError) and len(created) == num_envs:
            raise ConfigError(f"the environments cannot be stepped together: {error}") from error
        raise


def check_vector_environment(
    environment: object, num_envs: int, mode: pb.AutoresetMode, where: str
) -> gym.vector.VectorEnv:
    """Check what an entrypoint's ``create_vector_environment`` returned, and add batched spaces if it has none.

    Raises:
        ConfigError: If it is not what was asked for, saying what it is, and what it should be.
    """
    environment = with_batched_spaces(environment, where)
    if not isinstance(environment, gym.vector.VectorEnv):
        raise ConfigError(
            f"{where} returned a {type_name(environment)}; return a gymnasium.vector.VectorEnv, a pool of "
            "envpool.make_gymnasium, or an environment of supersuit's with base_class='gymnasium'"
        )
    if environment.num_envs != num_envs:
        raise ConfigError(f"{where} returned {environment.num_envs} environments; {num_envs} were asked for")
    if mode not in (pb.AUTORESET_UNSPECIFIED, found := mode_of(environment)):
        raise ConfigError(
            f"{where} returned an environment of autoreset_mode {autoreset_mode(found)!r} and the client asked for "
            f"{autoreset_mode(mode)!r}; let it take `autoreset_mode`, or ask for none"
        )
    return environment


def _mode(environment: SyncVectorEnv) -> pb.AutoresetMode:
    return autoreset_code(environment.autoreset_mode) if _CHOOSES else _OWN_MODE


def mode_of(environment: gym.vector.VectorEnv) -> pb.AutoresetMode:
    """When a vector environment resets what has ended, as its metadata tells."""
    if isinstance(environment, SyncVectorEnv) and not _CHOOSES:
        return _OWN_MODE
    try:
        return autoreset_code((environment.metadata or {}).get("autoreset_mode"))
    except ConfigError:  # a word of its own, which is no wrong one
        return pb.AUTORESET_UNSPECIFIED
