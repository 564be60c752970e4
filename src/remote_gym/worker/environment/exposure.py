"""Which methods and attributes of an environment its clients may use."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym

from remote_gym.logs import get_logger
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.exposed import not_exposed
from remote_gym.wire.values.generators import generator_state, set_generator_state
from remote_gym.worker.environment.tools import describe

logger = get_logger(__name__)

_WRAPPERS: Any = (gym.Wrapper, getattr(gym.vector, "VectorWrapper", gym.Wrapper))

RANDOM = "np_random"
"""Exposed under this name is the state of the environment's random generator."""

ATARI = ("get_action_meanings", "_frameskip", "ale.lives", "ale.getScreenGrayscale", "ale.getScreenRGB")


class ExposesItself(abc.ABC):
    """An environment that is somewhere else, where its attributes have to be found."""

    @abc.abstractmethod
    def kind_of(self, name: str) -> bool | None:
        """Whether the attribute of that name is a method; None if there is no such attribute."""

    def method(self, name: str) -> Callable[..., Any] | None:
        """A method, to be described; None where it is out of reach."""
        return None

    @abc.abstractmethod
    def get(self, name: str) -> Any:
        """An attribute."""

    @abc.abstractmethod
    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The value that a method returns."""

    @abc.abstractmethod
    def assign(self, name: str, value: Any) -> None:
        """Set an attribute."""


class Exposure:
    """Attributes that the entrypoint's ``EXPOSED`` names, found in the environment's own layers of wrappers.

    Args:
        environments: Have the names; of several, each is called and answers for itself.
        names: Of methods and attributes. Those that the first environment does not have are left out.
        made_by_id: Whether there is no entrypoint that could name more.

    Attributes:
        lacking: What was left out.
    """

    def __init__(self, environments: Sequence[Any], names: Iterable[str], *, made_by_id: bool = False) -> None:
        self._environments = environments
        self._made_by_id = made_by_id
        self._is_callable: dict[str, bool] = {}
        self.lacking: list[str] = []
        for name in names:
            # Not an error: an entrypoint may create several kinds of environment, and list the names of them all.
            if (found := kind_of(environments[0], name)) is None:
                self.lacking.append(name)
            else:
                self._is_callable[name] = found

    def describe(self) -> list[pb.ExposedName]:
        """The names, whether each is a method, and what these do, where an entrypoint exposes them."""
        found = [pb.ExposedName(name=name, callable=kind) for name, kind in self._is_callable.items()]
        for each in found:
            if each.callable and not self._made_by_id and (method := _method(self._environments[0], each.name)):
                each.description, each.parameters = describe(method)
        return found

    def call(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Call a method of each environment, or read its attribute.

        Raises:
            AttributeError: If the name is not exposed.
            TypeError: If an attribute was to be called.
            BaseException: Whatever the environment raises.
        """
        self._check(name)
        if self._is_callable[name]:
            return [_call(environment, name, args, kwargs) for environment in self._environments]
        if args or kwargs:
            raise TypeError(f"{name!r} is an attribute and takes no arguments")
        return [find(environment, name) for environment in self._environments]

    def assign(self, name: str, values: Sequence[Any]) -> None:
        """Set an attribute of each environment to its value.

        Raises:
            AttributeError: If the name is not exposed, or a method's.
            ValueError: If there are not as many values as environments.
        """
        self._check(name)
        if self._is_callable[name]:
            raise AttributeError(f"{name!r} is a method; only attributes can be set")
        for environment, value in zip(self._environments, values, strict=True):
            if isinstance(environment, ExposesItself):
                environment.assign(name, value)
                continue
            holder, _, last = name.rpartition(".")
            layer = find(environment, holder) if holder else _layer_with(environment, last)
            setattr(layer, last, set_generator_state(layer.np_random, value) if name == RANDOM else value)

    def _check(self, name: str) -> None:
        if name not in self._is_callable:
            raise AttributeError(
                not_exposed(name, exposed=self._is_callable, lacking=self.lacking, made_by_id=self._made_by_id)
            )


def _method(environment: Any, name: str) -> Callable[..., Any] | None:
    try:
        return environment.method(name) if isinstance(environment, ExposesItself) else find(environment, name)
    except Exception as error:  # noqa: BLE001 - code of the environment's, such as a part that is a property
        logger.debug("%s is not described: %r", name, error)
        return None


def _layers(environment: Any) -> list[Any]:
    layers = [environment]
    while isinstance(layers[-1], _WRAPPERS):
        layers.append(layers[-1].env)
    return layers


def exposed_by_id(environment: gym.Env[Any, Any] | gym.vector.VectorEnv) -> tuple[str, ...]:
    """Attributes that clients may use of an environment that is served by its id, and so has no ``EXPOSED``.

    That is what wrappers at the client read: the random generator, which a client determines by its seed anyway, and,
    of Atari's environments, what AtariPreprocessing and stable-baselines3's AtariWrapper do.
    """
    if not isinstance(environment, gym.Env):
        return ()
    return (RANDOM, *(ATARI if hasattr(environment.unwrapped, "ale") else ()))


def _layer_with(environment: Any, name: str) -> Any:
    if name == RANDOM:
        return environment.unwrapped
    for layer in _layers(environment):
        if _has(layer, name):
            return layer
    raise AttributeError(f"the environment has no {name!r}")


def _call(environment: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if isinstance(environment, ExposesItself):
        return environment.call(name, args, kwargs)
    return find(environment, name)(*args, **kwargs)


def find(environment: Any, name: str) -> Any:
    """An attribute of an environment, or of a part of it by a name with dots.

    Raises:
        AttributeError: If there is none.
    """
    if isinstance(environment, ExposesItself):
        return environment.get(name)
    first, *rest = name.split(".")
    found = getattr(_layer_with(environment, first), first)
    for part in rest:
        found = getattr(found, part)
    return generator_state(found) if name == RANDOM else found


def _has(layer: object, name: str) -> bool:
    # Statically: reading a property could compute something, or raise before the first reset. Wrappers of
    # gymnasium < 1 answer every name through __getattr__, which a static look passes over too.
    missing = object()
    return inspect.getattr_static(layer, name, missing) is not missing


def kind_of(environment: Any, name: str) -> bool | None:
    """Whether the attribute of that name is a method; None if there is no such attribute."""
    if isinstance(environment, ExposesItself):
        return environment.kind_of(name)
    if "." in name:
        try:
            return callable(find(environment, name))
        except AttributeError:
            return None
    for layer in _layers(environment):
        if _has(layer, name):
            static = inspect.getattr_static(layer, name)
            return isinstance(static, (staticmethod, classmethod)) or callable(static)
    return None
