"""Attributes that an entrypoint exposes, read, called and set as if the environment were here."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from remote_gym.errors import RemoteEnvironmentError
from remote_gym.wire.exposed import not_exposed
from remote_gym.wire.values.generators import generator_state, set_generator_state

RANDOM = "np_random"


class RemoteAttributes(gym.Env[Any, Any]):
    """An environment some of whose attributes are those of another, elsewhere.

    Reading, calling or setting an exposed name concerns that one. Everything else that can be set is the client's own:
    what `gymnasium.Env` and the class have, names that begin with an underscore, and whatever a subclass likes.
    """

    _exposed: dict[str, bool]
    """Names that the entrypoint exposes, and whether each is a method; absent until that is known."""

    _lacking: tuple[str, ...] = ()
    """Names that the entrypoint lists and the environment does not have."""

    _made_by_id = False
    """Whether the server has no entrypoint for it."""

    _lent: tuple[np.random.Generator, dict[str, Any] | None] | None = None
    """The generator that was read since the last request, and its state then; None if none was."""

    @property
    def np_random(self) -> np.random.Generator:
        """The environment's random generator, where it is exposed; else one of the client's own.

        It is a copy. What it has drawn by the next request the environment's has drawn, too; so read it anew each time,
        as Gymnasium's wrappers do.
        """
        if self._lent is None:
            try:
                if self.__dict__.get("_exposed", {}).get(RANDOM) is None:
                    return super().np_random
                state = self.call(RANDOM)
            except ResetNeeded:  # without a session there is no other
                return super().np_random
            generator = set_generator_state(None, state)
            self._lent = generator, dict(generator.bit_generator.state)
        return self._lent[0]

    @np_random.setter
    def np_random(self, generator: np.random.Generator) -> None:
        if self.__dict__.get("_exposed", {}).get(RANDOM) is None:
            self._np_random, self._np_random_seed = generator, -1
        else:
            self._lent = generator, None

    def _return_generator(self) -> None:
        """Have the environment's random generator go on from where the one that was read is."""
        assert self._lent is not None
        (generator, before), self._lent = self._lent, None
        state = generator_state(generator)
        # As texts, since the states of some kinds hold arrays.
        if before is None or repr(state) != repr(before):
            self._assign(RANDOM, state)

    @abstractmethod
    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call an exposed method, or read an exposed attribute."""

    @abstractmethod
    def _assign(self, name: str, value: Any) -> None:
        """Set an exposed attribute."""

    def set_wrapper_attr(self, name: str, value: Any, *, force: bool = True) -> bool:
        """Set an attribute that is exposed, or the client's own.

        Args:
            name: The attribute's.
            value: Has to have a wire form where the attribute is exposed.
            force: As in Gymnasium since 1.1, whose wrappers pass False and keep to themselves what an environment does
                not have. Here that would hide a mistake, so it makes no difference.

        Raises:
            AttributeError: If the name is neither, or is a method's.
        """
        setattr(self, name, value)
        return True

    def __getattr__(self, name: str) -> Any:
        """Read what the entrypoint exposes like an attribute of this environment."""
        exposed = self.__dict__.get("_exposed", {})
        is_callable = exposed.get(name)
        if is_callable is None:
            if any(each.startswith(f"{name}.") for each in exposed):
                return Part(self, name)
            raise AttributeError(f"{type(self).__name__!r} has no {name!r}: {self._why_not(name)}")
        if is_callable:
            return functools.partial(self.call, name)
        try:
            return self.call(name)
        except ResetNeeded as error:  # so that hasattr() says no, rather than raise
            raise AttributeError(str(error)) from error
        except RemoteEnvironmentError as error:
            raise _as_local(error) from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what the entrypoint exposes at the environment, which would never see a value that is set here."""
        is_callable = self.__dict__.get("_exposed", {}).get(name)
        if is_callable is None or name == RANDOM:
            if not self._is_own(name):
                raise AttributeError(
                    f"{type(self).__name__!r} has no {name!r}, and the environment would not see the value: "
                    f"{self._why_not(name)}"
                )
            super().__setattr__(name, value)
        elif is_callable:
            raise AttributeError(f"{name!r} is a method of the remote environment, and cannot be set")
        else:
            try:
                self._assign(name, value)
            except RemoteEnvironmentError as error:
                raise _as_local(error) from error

    def _why_not(self, name: str) -> str:
        exposed = self.__dict__.get("_exposed", {})
        return not_exposed(name, exposed=exposed, lacking=self._lacking, made_by_id=self._made_by_id)

    def _is_own(self, name: str) -> bool:
        """Whether setting an attribute concerns this end alone."""
        cls = type(self)
        if name.startswith("_") or "_exposed" not in self.__dict__ or name in self.__dict__ or hasattr(cls, name):
            return True
        return not cls.__module__.startswith("remote_gym.")  # a user's subclass, which keeps what it likes


class Part:
    """A part of a remote environment, some of whose methods and attributes are exposed by names with a dot.

    Args:
        environment: What has it.
        name: Of the part, such as ``"ale"``.
    """

    def __init__(self, environment: RemoteAttributes, name: str) -> None:
        self._environment = environment
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """Read, or get ready to call, what is exposed."""
        if name.startswith("__"):  # which copying and pickling look for
            raise AttributeError(name)
        found = getattr(self._environment, f"{self._name}.{name}")
        return functools.partial(_call_and_fill, found) if callable(found) and name in _FILLING else found


_FILLING = frozenset({"getScreenGrayscale", "getScreenRGB"})
"""Methods of Atari's `ale` that write what they return into an array, if they are given one."""


def _call_and_fill(method: Callable[[], Any], into: NDArray[Any] | None = None) -> Any:
    found = method()
    if into is None:
        return found
    into[...] = np.reshape(found, into.shape)
    return None


def _as_local(error: RemoteEnvironmentError) -> Exception:
    """The error of an attribute as a local environment would raise it."""
    return AttributeError(error.remote_message) if error.remote_type == "builtins.AttributeError" else error
