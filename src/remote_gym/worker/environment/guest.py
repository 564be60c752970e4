"""Environments in another Python, which look to the host like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from remote_gym.config import Limits
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
from remote_gym.wire.spaces.decoding import decode_space
from remote_gym.wire.spaces.layout import Layout, compile_layout
from remote_gym.worker.environment.exposure import ExposesItself
from remote_gym.worker.environment.guest_messages import Guest, GuestConfigError
from remote_gym.worker.environment.guest_process import GuestProcess
from remote_gym.worker.environment.stacks import stacks

START_TIMEOUT = 100.0
"""Seconds until a guest's first message has to be there: less than a session has to open, so that its error arrives."""


@dataclass(frozen=True)
class GuestSpec:
    """The parts of a guest's environment's spec that a client may know."""

    id: str
    reward_threshold: float | None
    nondeterministic: bool
    max_episode_steps: int | None


class GuestEnvironment(gym.Env[Any, Any], ExposesItself):
    """An environment in a guest.

    Args:
        guest: Hosts it.
        index: Its number there.
        order: What to create, as `creation_order` has it.

    Attributes:
        exposed: What the entrypoint exposes, whether the environment has it or not.

    Raises:
        ConfigError: If it cannot be created as configured, or has a space that cannot travel.
        BaseException: Whatever its constructor raises.
    """

    def __init__(self, guest: Guest, index: int, order: Mapping[str, Any]) -> None:
        self._guest = guest
        self._index = index
        description = guest.create(index, order)
        try:
            self.observation_space, self._observations = self._space(description, "observation")
            self.action_space, self._actions = self._space(description, "action")
            self.metadata = dict(description["metadata"])
            self.render_mode = _text_or_none(description["render_mode"])
            spec = description["spec"]
            self.spec = None if spec is None else GuestSpec(*spec)  # type: ignore[assignment]
            self._kinds = {str(name): kind for name, kind in description["exposed"]}
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise guest.lose(f"described its environment as nothing that can be read: {error!r:.200}") from error
        self.exposed = tuple(self._kinds)
        self._pack_action = self._actions.pack
        self._step_end = PACKED.size + (self._observations.size or 0)

    def _space(self, description: Any, name: str) -> tuple[gym.Space[Any], Layout]:
        try:
            space = decode_space(parse(pb.Space, description[f"{name}_space"], self._guest.limits), self._guest.limits)
        except EncodingError as error:
            raise GuestConfigError(f"the guest's {name}_space cannot travel: {error}") from error
        layout = compile_layout(space)
        size = description[f"{name}_size"]
        if size != layout.size:
            raise GuestConfigError(
                f"elements of the guest's {name}_space take {size} bytes there and {layout.size} here"
            )
        return space, layout

    def step(self, action: Any) -> Any:
        """Step, and return what the environment there returned."""
        packed = self._pack_action(action)
        if packed is not None:
            answer = self._guest.ask(STEP_PACKED, self._index, packed)
        else:
            answer = self._guest.ask(STEP, self._index, self._guest.encode(action, "action"))
        return self._unpack(answer) if answer[0] == IS_PACKED else self._guest.read(answer)

    def _unpack(self, answer: memoryview) -> Any:
        end = self._step_end
        if len(answer) < end:
            raise self._guest.lose(f"sent a step of {len(answer)} bytes; it has to have at least {end}")
        _, reward, flags = PACKED.unpack_from(answer)
        try:
            if end < LARGE:
                observation = self._observations.read(answer, PACKED.size)
            else:
                observation = self._observations.adopt(answer[PACKED.size : end])
        except EncodingError as error:
            raise self._guest.lose(f"sent what is no observation: {error}") from error
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
        return self._guest.ask_value(RESET, self._index, (seed, options), "options")

    def render(self) -> Any:
        """Render as the environment there does."""
        answer = self._guest.ask(RENDER, self._index)
        return self._guest.decode_array(answer) if answer[0] == IS_ARRAY else self._guest.read(answer)

    def close(self) -> None:
        """Close the environment there, and its process with the last."""
        self._guest.close(self._index)

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


def _text_or_none(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"a render mode of type {type(value).__name__}")


def start_guest(
    command: Sequence[str],
    folder: Path,
    limits: Limits,
    *,
    variables: Mapping[str, str] | None = None,
    first_line: str = "",
    ends_in_shell: bool = False,
) -> Guest:
    """Start a command that ends in a Python.

    Args:
        command: Its words.
        folder: The entrypoint's root, in which it starts.
        limits: Bounds on what the guest sends.
        variables: Environment variables of the command.
        first_line: What it reads before anything else.
        ends_in_shell: Whether its last word is a line of a shell.

    Raises:
        ConfigError: If no Python runs, or one that can host nothing.
    """
    process = GuestProcess(
        command,
        str(folder),
        limits,
        START_TIMEOUT,
        variables=variables,
        first_line=first_line,
        ends_in_shell=ends_in_shell,
    )
    stacks.write_what(process.where_it_is)
    return Guest(process, limits)


def creation_order(
    *,
    env_id: int,
    entrypoint: str | None,
    source: bytes | None,
    root: Path,
    imports: Sequence[str],
    kwargs: Mapping[str, Any],
    render_mode: str | None,
    limits: Limits,
) -> dict[str, Any]:
    """An order to a guest: the environment to create.

    Args:
        env_id: Its number, for an entrypoint that asks for it.
        entrypoint: Path of the file; None to make a registered environment.
        source: What is in it; None where it is found there by its path.
        root: The entrypoint's, which the guest goes to if it is there.
        imports: Modules to import first.
        kwargs: Keyword arguments.
        render_mode: As in `gymnasium.make`.
        limits: Bounds on what it sends.
    """
    return {
        "env_id": env_id,
        "entrypoint": entrypoint,
        "source": source,
        "root": str(root),
        "imports": list(imports),
        "kwargs": dict(kwargs),
        "render_mode": render_mode,
        "limits": asdict(limits),
    }
