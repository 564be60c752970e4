"""What an entrypoint exposes, read, called and set as if the environment were here."""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import Any

import gymnasium as gym
from gymnasium.error import ResetNeeded

from remote_gym.errors import RemoteEnvironmentError


class RemoteAttributes(gym.Env[Any, Any]):
    """An environment some of whose attributes are those of another, elsewhere.

    Reading, calling or setting an exposed name concerns that one. Everything else that can be set is the client's own:
    what `gymnasium.Env` and the class have, names that begin with an underscore, and whatever a subclass likes.
    """

    _exposed: dict[str, bool]
    """Names that the entrypoint exposes, and whether each is a method; absent until that is known."""

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
        is_callable = self.__dict__.get("_exposed", {}).get(name)
        if is_callable is None:
            raise AttributeError(f"{type(self).__name__!r} has no {name!r}, nor does its entrypoint expose it")
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
        if is_callable is None:
            if not self._is_own(name):
                raise AttributeError(
                    f"{type(self).__name__!r} has no {name!r}, nor does its entrypoint expose it: the environment "
                    f"would not see the value; list {name!r} in the entrypoint's EXPOSED"
                )
            super().__setattr__(name, value)
        elif is_callable:
            raise AttributeError(f"{name!r} is a method of the remote environment, and cannot be set")
        else:
            try:
                self._assign(name, value)
            except RemoteEnvironmentError as error:
                raise _as_local(error) from error

    def _is_own(self, name: str) -> bool:
        """Whether setting an attribute concerns this end alone."""
        cls = type(self)
        if name.startswith("_") or "_exposed" not in self.__dict__ or name in self.__dict__ or hasattr(cls, name):
            return True
        return not cls.__module__.startswith("remote_gym.")  # a user's subclass, which keeps what it likes


def _as_local(error: RemoteEnvironmentError) -> Exception:
    """The error of an attribute as a local environment would raise it."""
    return AttributeError(error.remote_message) if error.remote_type == "builtins.AttributeError" else error
