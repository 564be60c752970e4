"""Environments in another Python, which look to the host like any other."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from remote_gym.errors import ConfigError, EncodingError
from remote_gym.guest.program import (
    ASSIGN,
    CALL,
    FIND,
    IS_ARRAY,
    IS_PACKED,
    LARGE,
    NUMPY_REWARD,
    NUMPY_TERMINATED,
    NUMPY_TRUNCATED,
    PACKED,
    RENDER,
    RESET,
    STEP,
    STEP_PACKED,
    TERMINATED,
    TRUNCATED,
)
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.encoding import check_samples, decode_space
from remote_gym.wire.spaces.layout import Layout, compile_layout
from remote_gym.worker.environment.exposure import ExposesItself
from remote_gym.worker.environment.guests.messages import Guest, GuestConfigError


@dataclass(frozen=True)
class GuestSpec:
    """The parts of a guest's environment's spec that a client may know."""

    id: str
    reward_threshold: float | None
    nondeterministic: bool
    max_episode_steps: int | None


class InGuest(ExposesItself):
    """The parts of an environment, or of a vector environment, that are the same where it is a guest's.

    Args:
        guest: Hosts it.
        index: Its number there.
        description: What the guest says of it.

    Raises:
        ConfigError: If it has a space that cannot travel.
        GuestLost: If it is described as nothing that can be read.
    """

    render_mode: str | None
    spec: Any

    def __init__(self, guest: Guest, index: int, description: Any) -> None:
        self._guest = guest
        self._index = index
        try:
            self._check_spaces(description.get("tried", ()))
            self._describe(description)
            self.metadata = dict(description["metadata"])
            self.render_mode = _text_or_none(description["render_mode"])
            self.spec = None if description["spec"] is None else _spec(*description["spec"])
            self._kinds = {_text(name): kind for name, kind in description["exposed"]}
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise guest.lose(f"described its environment as nothing that can be read: {error!r:.200}") from error
        self.exposed = tuple(self._kinds)

    @abc.abstractmethod
    def _describe(self, description: Any) -> None:
        """Take the spaces."""

    def _check_spaces(self, tried: Any) -> None:
        """Check samples of spaces of unknown classes, as a worker does of its own."""
        for name, data, samples in tried:
            stand_in = self._space(f"space of type {_text(name)}", data)
            try:
                check_samples(name, map(self._guest.decode, samples), stand_in)
            except ConfigError as error:
                raise GuestConfigError(str(error)) from error

    def _space(self, name: str, data: Any) -> gym.Space[Any]:
        try:
            return decode_space(parse(pb.Space, data, self._guest.limits), self._guest.limits)
        except EncodingError as error:
            raise GuestConfigError(f"the guest's {name} cannot travel: {error}") from error

    def _layout(self, name: str, space: gym.Space[Any], size: Any) -> Layout:
        layout = compile_layout(space)
        if size != layout.size:
            raise GuestConfigError(f"elements of the guest's {name} take {size} bytes there and {layout.size} here")
        return layout

    def _observation(self, layout: Layout, answer: memoryview, begin: int, end: int) -> Any:
        """An observation of an answer, in its packed form."""
        if len(answer) < end:
            raise self._guest.lose(f"sent a step of {len(answer)} bytes; it has to have at least {end}")
        try:
            return layout.read(answer, begin) if end < LARGE else layout.adopt(answer[begin:end])
        except EncodingError as error:
            raise self._guest.lose(f"sent what is no observation: {error}") from error

    def render(self) -> Any:
        """Render as the environment there does."""
        answer = self._guest.ask(RENDER, self._index)
        return self._guest.decode_array(answer) if answer[0] == IS_ARRAY else self._guest.read(answer)

    def kind_of(self, name: str) -> bool | None:
        """Whether an exposed attribute is a method; None if the environment has none of that name."""
        kind = self._kinds.get(name)
        return kind if kind is None else bool(kind)

    def get(self, name: str) -> Any:
        """An exposed attribute."""
        return self._guest.ask_value(FIND, self._index, name, name)

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The value that an exposed method returns."""
        return self._guest.ask_value(CALL, self._index, (name, tuple(args), dict(kwargs)), name)

    def assign(self, name: str, value: Any) -> None:
        """Set an exposed attribute."""
        self._guest.ask_value(ASSIGN, self._index, (name, value), name)


class GuestEnvironment(InGuest, gym.Env[Any, Any]):
    """An environment in a guest.

    Args:
        guest: Hosts it.
        index: Its number there.
        description: What the guest says of it.

    Attributes:
        exposed: What the entrypoint exposes, whether the environment has it or not.

    Raises:
        ConfigError: If it has a space that cannot travel.
        GuestLost: If it is described as nothing that can be read.
    """

    def _describe(self, description: Any) -> None:
        self.observation_space = self._space("observation_space", description["observation_space"])
        self.action_space = self._space("action_space", description["action_space"])
        self._observations = self._layout("observation_space", self.observation_space, description["observation_size"])
        actions = self._layout("action_space", self.action_space, description["action_size"])
        self._pack_action = actions.pack
        self._step_end = PACKED.size + (self._observations.size or 0)
        self._prepared: dict[int, memoryview] = {}

    def request(self, action: Any) -> tuple[int, int, bytes]:
        """The request of a step.

        Raises:
            EncodingError: If the action has no wire form.
        """
        packed = self._pack_action(action)
        if packed is not None:
            return STEP_PACKED, self._index, packed
        return STEP, self._index, self._guest.encode(action, "action")

    def prepare(self, operation: int, answer: memoryview | None) -> None:
        """Have the answer to the next step, or to a reset without a seed, before it is asked for; None for no more."""
        if answer is None:
            self._prepared.clear()
        else:
            self._prepared[RESET if operation == RESET else STEP] = answer

    def step(self, action: Any) -> Any:
        """Step, and return what the environment there returned."""
        if self._prepared and STEP in self._prepared:
            answer = self._guest.checked(self._prepared.pop(STEP))
        else:
            answer = self._guest.ask(*self.request(action))
        return self._unpack(answer) if answer[0] == IS_PACKED else self._guest.read(answer)

    def _unpack(self, answer: memoryview) -> Any:
        end = self._step_end
        observation = self._observation(self._observations, answer, PACKED.size, end)
        _, reward, flags = PACKED.unpack_from(answer)
        terminated: Any = flags & TERMINATED != 0
        truncated: Any = flags & TRUNCATED != 0
        if flags > (TERMINATED | TRUNCATED):
            reward = np.float64(reward) if flags & NUMPY_REWARD else reward
            terminated = np.bool_(terminated) if flags & NUMPY_TERMINATED else terminated
            truncated = np.bool_(truncated) if flags & NUMPY_TRUNCATED else truncated
        info = self._guest.decode(answer[end:]) if len(answer) > end else {}
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset, and return what the environment there returned."""
        if self._prepared and RESET in self._prepared and seed is None and options is None:
            return self._guest.read(self._prepared.pop(RESET))
        return self._guest.ask_value(RESET, self._index, (seed, options), "options")

    def close(self) -> None:
        """Close the environment there, and its process with the last."""
        self._guest.close(self._index)


def _spec(id_: Any, threshold: Any, is_random: Any, most_steps: Any) -> GuestSpec:
    is_one = isinstance(id_, str) and isinstance(is_random, bool)
    has_threshold = threshold is None or isinstance(threshold, float)
    has_bound = most_steps is None or (isinstance(most_steps, int) and -(2**63) <= most_steps < 2**63)
    if not (is_one and has_threshold and has_bound):
        raise TypeError(f"a spec of {id_!r:.100}, {threshold!r:.100}, {is_random!r:.100} and {most_steps!r:.100}")
    return GuestSpec(_text(id_), threshold, is_random, most_steps)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text is to be")
    value.encode()  # raises a ValueError for lone surrogates, which no message holds
    return value
