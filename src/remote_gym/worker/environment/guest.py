"""Environments in another Python, which look to the host like any other.

The messages, each after its length in four bytes, little-endian. A request is one byte that names the operation, the
environment's number in two bytes, little-endian, and:

- ``c``, create: a ``Value``, a dict as `_order` makes it. Answered by a ``Value`` that describes the environment.
- ``p``, step: the action in its space's packed form. ``v``, step: the action as a ``Value``.
- ``r``, reset: a ``Value``, the pair of seed and options.
- ``f``, render: nothing.
- ``g``, get an attribute: its name, a ``Value``. ``m``, call a method: name, positional and keyword arguments.
  ``a``, assign: name and value.
- ``q``, close: nothing.

An answer is one byte, and:

- ``p``, of a step: the reward as a float64, a byte of flags (`remote_gym.guest.program.TERMINATED` and so on, which
  also tell which of the three are NumPy's), the observation in its space's packed form, and the info as a ``Value``,
  which is left out where it is empty.
- ``v``: what was returned, a ``Value``; of a step that could not be packed, all that it returned.
- ``a``, of a render: the length of an ``Array`` without data, in four bytes, the ``Array``, and its elements.
- ``e``: a ``Value``, of kind, type, message and traceback of an exception.

``Value``, ``Array`` and ``Space`` are the protocol's messages, so that what a guest sends passes the checks that what a
client sends passes. The guest is not asked before it has answered, and sends nothing unasked.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, RemoteEnvironmentError
from remote_gym.guest.program import (
    ASSIGN,
    CALL,
    CLOSE,
    CONFIG,
    CREATE,
    ENCODING,
    FIND,
    HEAD,
    IS_ARRAY,
    IS_ERROR,
    IS_PACKED,
    IS_VALUE,
    LARGE,
    NUMPY_REWARD,
    NUMPY_TERMINATED,
    NUMPY_TRUNCATED,
    PACKED,
    RENDER,
    REQUEST,
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
from remote_gym.wire.values import decode_array, decode_value, encode_value
from remote_gym.worker.environment.exposure import ExposesItself
from remote_gym.worker.environment.guest_process import GuestProcess
from remote_gym.worker.environment.user_code import FromGuest

START_TIMEOUT = 100.0
"""Seconds until a guest's first message has to be there: less than a session has to open, so that its error arrives."""


class GuestRaised(FromGuest, RemoteEnvironmentError):
    """What an environment in a guest raised."""


class GuestConfigError(FromGuest, ConfigError):
    """What cannot work in a guest as the server's owner has configured it."""


class GuestEncodingError(FromGuest, EncodingError):
    """What an environment in a guest returned, and cannot travel."""


@dataclass(frozen=True)
class GuestSpec:
    """What a client may know of the spec of an environment in a guest."""

    id: str
    reward_threshold: float | None
    nondeterministic: bool
    max_episode_steps: int | None


class Guest:
    """A process that hosts environments, until the last of them is closed.

    Args:
        process: Runs `remote_gym.guest.program`.
        limits: Bounds on what it sends, and is sent.

    Attributes:
        exposed: What the entrypoint exposes, whether the environment has it or not.

    Raises:
        ConfigError: If it cannot host any, as it says itself.
    """

    def __init__(self, process: GuestProcess, limits: Limits) -> None:
        self._process = process
        self.limits = limits
        self.exposed: tuple[str, ...] = ()
        self._open: set[int] = set()
        try:
            self.read(process.first)
        except BaseException:
            process.close(0.0)
            raise

    def ask(self, operation: int, index: int, body: bytes = b"") -> memoryview:
        """Send a request, and return its answer, which is no error.

        Raises:
            GuestLost: If the guest is gone.
            BaseException: What the environment raised, as `_raised` has it.
        """
        answer = self._process.ask(REQUEST.pack(operation, index) + body)
        if answer[0] == IS_ERROR:
            raise self._raised(answer)
        return answer

    def ask_value(self, operation: int, index: int, value: Any, path: str) -> Any:
        """As `ask`, with a value to send and one to return.

        Raises:
            EncodingError: If the value has no wire form.
        """
        return self.read(self.ask(operation, index, self.encode(value, path)))

    def encode(self, value: Any, path: str) -> bytes:
        """A value as a guest reads it.

        Raises:
            EncodingError: If it has no wire form.
        """
        message = pb.Value()
        try:
            encode_value(value, message, strict=True, limits=self.limits, path=path)
        except EncodingError as error:
            raise GuestEncodingError(str(error)) from error
        return message.SerializeToString()

    def read(self, answer: memoryview) -> Any:
        """The value that an answer holds.

        Raises:
            GuestLost: If it holds none, or one over the limits: the guest is given up.
            BaseException: What the environment raised.
        """
        if answer[0] == IS_VALUE:
            return self.decode(answer[1:])
        if answer[0] == IS_ERROR:
            raise self._raised(answer)
        raise self._process.lose(f"answered by a message of kind {answer[0]}, which is unknown or out of place")

    def decode(self, data: memoryview) -> Any:
        """A value that the guest sent.

        Raises:
            GuestLost: If it is none, or is over the limits.
        """
        try:
            return decode_value(parse(pb.Value, data, self.limits), self.limits)
        except EncodingError as error:
            raise self._process.lose(f"sent what is no value: {error}") from error

    def decode_array(self, answer: memoryview) -> Any:
        """The array of an answer to a render.

        Raises:
            GuestLost: If it is none, or is over the limits.
        """
        try:
            (size,) = HEAD.unpack_from(answer, 1)
            begin = 1 + HEAD.size + size
            message = parse(pb.Array, answer[1 + HEAD.size : begin], self.limits)
            return decode_array(message, self.limits, answer[begin:])
        except (EncodingError, struct.error) as error:
            raise self._process.lose(f"sent what is no array: {error}") from error

    def lose(self, why: str) -> Exception:
        """Give the guest up, and return the error that says so."""
        return self._process.lose(why)

    def create(self, index: int, order: Mapping[str, Any]) -> GuestEnvironment:
        """Create an environment.

        Raises:
            ConfigError: If it cannot be created as configured, or has a space that cannot travel.
            BaseException: Whatever its constructor raises.
        """
        description = self.ask_value(CREATE, index, order, "entrypoint_kwargs")
        self._open.add(index)
        environment = GuestEnvironment(self, index, description)
        self.exposed = environment.exposed
        return environment

    def close(self, index: int) -> None:
        """Close one environment, and the process with the last.

        Raises:
            BaseException: What the environment raised.
        """
        try:
            if index in self._open:
                self._open.discard(index)
                if not self._process.is_lost:  # which was told when it was noticed
                    self.ask(CLOSE, index)
        finally:
            if not self._open:
                self.end()

    def end(self) -> None:
        """End the process."""
        self._process.close()

    def _raised(self, answer: memoryview) -> BaseException:
        content = self.decode(answer[1:])
        is_four = type(content) is tuple and list(map(type, content)) == [int, str, str, str]
        if not is_four:
            return self._process.lose("sent an error that is none")
        kind, name, message, trace = content
        if kind == CONFIG:
            return GuestConfigError(message)
        if kind == ENCODING:
            return GuestEncodingError(message)
        if name in ("gymnasium.error.ResetNeeded", "gym.error.ResetNeeded"):
            return ResetNeeded(message)
        return GuestRaised(name, message, trace)


class GuestEnvironment(gym.Env[Any, Any], ExposesItself):
    """An environment in a guest.

    Args:
        guest: Hosts it.
        index: Its number there.
        description: What the guest answered when it was created.
    """

    def __init__(self, guest: Guest, index: int, description: Any) -> None:
        self._guest = guest
        self._index = index
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

    @property
    def exposed(self) -> tuple[str, ...]:
        """As `Guest.exposed`."""
        return tuple(self._kinds)

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
        """What an exposed method returns."""
        return self._guest.ask_value(CALL, self._index, (name, tuple(args), dict(kwargs)), name)

    def assign(self, name: str, value: Any) -> None:
        """Set an exposed attribute."""
        self._guest.ask_value(ASSIGN, self._index, (name, value), name)


def _text_or_none(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"a render mode of type {type(value).__name__}")


def start_guest(command: Sequence[str], folder: Path, limits: Limits) -> Guest:
    """Start a command that ends in a Python.

    Args:
        command: Its words.
        folder: The entrypoint's root, in which it starts.
        limits: Bounds on what the guest sends.

    Raises:
        ConfigError: If no Python runs, or one that can host nothing.
    """
    return Guest(GuestProcess(command, str(folder), limits, START_TIMEOUT), limits)


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
    """What a guest is told of an environment to create.

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
