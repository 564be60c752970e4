"""Environments of texts with asynchronous methods, as VAGEN has them, which look to the host like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from remote_gym.wire.spaces.text import AnyText
from remote_gym.wire.values.unencodable import short_repr
from remote_gym.worker.environment.exposure import ExposesItself, find, kind_of
from remote_gym.worker.environment.texts.events import EventLoop
from remote_gym.worker.environment.texts.observations import (
    MODALITIES,
    TEXT,
    InvalidTextObservation,
    observation_of,
    observation_space,
    without_pillow,
)

CLOSE_TIMEOUT = 60.0
"""Seconds that ``close`` may take. The server kills a worker's process sooner, by its own `close_timeout`."""

PROMPT = "system_prompt"

_TRUNCATED = ("truncated", "TimeLimit.truncated")
"""Entries of an info that say that an episode was cut off: the interface has but one flag."""


class TextEnvironment(ExposesItself, gym.Env[dict[str, Any], str]):
    """A text environment, driven by its worker's event loop.

    Args:
        environment: Has the methods ``reset(seed)``, which returns ``(obs, info)``, and ``step(text)``, which returns
            ``(obs, reward, done, info)``; perhaps ``system_prompt()``, and ``close()`` or ``aclose()``. Any of them may
            be asynchronous.
        close_timeout: Seconds that closing may take.

    Attributes:
        exposed: What clients may use though no entrypoint says so.
    """

    def __init__(self, environment: Any, close_timeout: float = CLOSE_TIMEOUT) -> None:
        self._environment = environment
        self._close_timeout = close_timeout
        self._events: EventLoop | None = EventLoop.acquire()
        self.observation_space = observation_space()
        self.action_space = AnyText()
        self.render_mode = getattr(environment, "render_mode", None)
        metadata = getattr(environment, "metadata", None)
        self.metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
        self.exposed = (PROMPT,) if callable(getattr(environment, PROMPT, None)) else ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset, by the seed alone where there are no options.

        Raises:
            InvalidObservation: If the environment returns no pair, or what is no observation.
        """
        more = {"options": options} if options else {}
        returned = self._call(self._environment.reset, seed, **more)
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise InvalidTextObservation(f"reset() returned {short_repr(returned)}; it has to be the pair (obs, info)")
        return observation_of(returned[0], "reset()"), without_pillow(returned[1])

    def step(self, action: str) -> Any:
        """Step once.

        Raises:
            InvalidObservation: If the environment returns no four values, or what is no observation.
        """
        returned = self._call(self._environment.step, action)
        if not isinstance(returned, (tuple, list)) or len(returned) not in (4, 5):
            wanted = "the four values (obs, reward, done, info)"
            raise InvalidTextObservation(f"step() returned {short_repr(returned)}; it has to be {wanted}")
        obs, reward, *flags, info = returned
        terminated, truncated = _flags(flags, info)
        return observation_of(obs, "step()"), reward, terminated, truncated, without_pillow(info)

    def render(self) -> Any:
        """Render, if the environment can."""
        return without_pillow(self._call(self._environment.render))

    def close(self) -> None:
        """Close the environment, and the event loop with the last one of this thread. Once is enough.

        Raises:
            TimeoutError: If that takes too long.
        """
        events, self._events = self._events, None
        if events is None:
            return
        try:
            for name in ("close", "aclose"):
                if callable(method := getattr(self._environment, name, None)):
                    events.call_within(self._close_timeout, method, f"{name}()")
                    break
        finally:
            events.release()

    def kind_of(self, name: str) -> bool | None:
        """Whether the attribute of that name is a method; None if there is no such attribute."""
        return kind_of(self._environment, name)

    def method(self, name: str) -> Callable[..., Any]:
        """A method, to be described."""
        return find(self._environment, name)  # type: ignore[no-any-return]

    def get(self, name: str) -> Any:
        """An attribute."""
        return without_pillow(find(self._environment, name))

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The value that a method returns in the end; of ``system_prompt`` an observation, if it is one."""
        returned = self._call(find(self._environment, name), *args, **kwargs)
        if name == PROMPT and isinstance(returned, Mapping) and returned.keys() & {TEXT, MODALITIES}:
            return observation_of(returned, f"{name}()")
        return without_pillow(returned)

    def assign(self, name: str, value: Any) -> None:
        """Set an attribute."""
        holder, _, last = name.rpartition(".")
        setattr(find(self._environment, holder) if holder else self._environment, last, value)

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        assert self._events is not None, "the environment is closed"
        return self._events.call(method, *args, **kwargs)


def _flags(flags: Sequence[Any], info: Any) -> tuple[bool, bool]:
    """Whether the episode has terminated, and whether it was truncated."""
    if len(flags) == 2:
        return bool(flags[0]), bool(flags[1])
    done = bool(flags[0])
    is_cut = done and isinstance(info, Mapping) and any(_is_true(info.get(name)) for name in _TRUNCATED)
    return done and not is_cut, is_cut


def _is_true(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) and bool(value)
