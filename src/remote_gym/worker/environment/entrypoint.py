"""Turn a `Launch` into an environment: run an entrypoint file, or make a registered environment by its id.

An entrypoint is a Python file that defines ``create_environment(**entrypoint_kwargs)``: below its root, or anywhere
if the server itself names it. This runs in a worker's main thread, or in a thread of the server, and so it imports no
grpc.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym

from remote_gym.errors import ConfigError, NotPermitted
from remote_gym.v1 import worker_pb2
from remote_gym.wire.autoreset import autoreset_mode
from remote_gym.worker.environment.entrypoint_modules import load, search
from remote_gym.worker.environment.exposure import ExposesItself, exposed_by_id
from remote_gym.worker.environment.registered_ids import as_sentence, check_client_id, id_needed, noting, parse_id
from remote_gym.worker.environment.texts.hosting import hosted
from remote_gym.worker.environment.user_code import user_code
from remote_gym.worker.environment.vector import batch, check_vector_environment

if TYPE_CHECKING:
    from remote_gym.worker.environment.guests.messages import Guest

NAME = "create_environment"
VECTOR_NAME = "create_vector_environment"
"""The function of an entrypoint that creates several environments at once; it need not have one."""


class Created(NamedTuple):
    """A new environment, and what may be called on it."""

    environment: gym.Env[Any, Any] | gym.vector.VectorEnv
    exposed: tuple[str, ...] = ()
    """Names of methods and attributes that clients may use: the entrypoint's ``EXPOSED``, or what an id comes with."""
    made_by_id: bool = False
    """Whether there is no entrypoint that could name more."""
    guest: Guest | None = None
    """The other Python that hosts it, if one does."""


def create_environment(
    launch: worker_pb2.Launch,
    entrypoint_kwargs: Mapping[str, Any],
    client_kwargs: Mapping[str, Any] | None = None,
    *,
    own_process: bool,
) -> Created:
    """Create the environment that a launch asks for.

    The root is ``launch.root``, or the checkout of ``launch.repo``. It and its ``src`` folder go to the front of
    ``sys.path``, the entrypoint's own folder to its end. Then ``launch.imports`` are imported and the entrypoint runs;
    without one, `gymnasium.make` gets the keyword arguments, ``id`` among them. ``env_id``, ``enable_rendering`` and
    ``render_mode`` go only to a ``create_environment`` that names them as parameters; keyword arguments of the same
    name win, but for ``env_id``.

    For several environments, ``create_vector_environment(num_envs, **entrypoint_kwargs)`` runs where the entrypoint has
    one, which may name ``autoreset_mode`` too, and gets the first environment's ``env_id``. Otherwise environments are
    created one by one, with an ``env_id`` of its own each, and stepped as a `gymnasium.vector.SyncVectorEnv`.

    Args:
        launch: What to create; the keyword arguments in it are not looked at.
        entrypoint_kwargs: The server's own, decoded.
        client_kwargs: The client's, merged over them.
        own_process: Whether the process is this environment's alone, so that its working directory becomes the root.

    Raises:
        ConfigError: The launch cannot work as given, or the entrypoint does not keep to its form.
        NotPermitted: A client named an environment id that the server does not offer, or that would run code.
        BaseException: Whatever the entrypoint, or the environment's constructor, raises.
    """
    # Which number an environment has is the server's to say, whatever takes keyword arguments of any name.
    client_kwargs = {name: value for name, value in (client_kwargs or {}).items() if name != "env_id"}
    kwargs = {**entrypoint_kwargs, **client_kwargs}
    root = _root(launch)
    if launch.HasField("guest"):
        return _create_in_guest(launch, root, kwargs, client_kwargs)
    file = entrypoint_file(root, launch.entrypoint, anywhere=launch.anywhere) if launch.entrypoint else None
    _enter(root, file, own_process=own_process)
    for name in launch.imports:
        with noting(name):
            _import(name)
    if file is None:
        if "id" in client_kwargs:
            check_client_id(client_kwargs["id"], entrypoint_kwargs.get("id"), launch.ids, launch.imports)
        made = _each(launch, lambda _: _make(launch, dict(kwargs)))
        return Created(made, exposed_by_id(made), made_by_id=True)
    with user_code:
        module = load(root, file, own_process=own_process)
    exposed = _exposed(module, file)
    injected: dict[str, Any] = {"enable_rendering": bool(launch.render_mode), "render_mode": launch.render_mode or None}
    if launch.num_envs and (vector_function := getattr(module, VECTOR_NAME, None)) is not None:
        injected |= {"autoreset_mode": autoreset_mode(launch.autoreset_mode), "env_id": launch.env_id}
        kwargs["num_envs"] = launch.num_envs
        arguments = _arguments(vector_function, file, kwargs, injected, VECTOR_NAME)
        with user_code:
            returned = vector_function(**arguments)
        where = f"{file}: {VECTOR_NAME}"
        return Created(check_vector_environment(returned, launch.num_envs, launch.autoreset_mode, where), exposed)

    function = _creator(module, file)

    def create(index: int) -> gym.Env[Any, Any]:
        arguments = _arguments(function, file, kwargs, injected | {"env_id": launch.env_id + index})
        with user_code:
            environment = hosted(function(**arguments))
        if isinstance(environment, gym.Env):
            return environment
        found = _qualified_name(type(environment))
        raise ConfigError(f"{file}: create_environment returned the type {found}; return a gymnasium.Env")

    made = _each(launch, create)
    return Created(made, tuple(dict.fromkeys((*exposed, *_exposed_anyway(made)))))


def _exposed_anyway(made: gym.Env[Any, Any] | gym.vector.VectorEnv) -> tuple[str, ...]:
    first = made.envs[0] if isinstance(made, gym.vector.SyncVectorEnv) else made
    return getattr(first, "exposed", ()) if isinstance(first, ExposesItself) else ()


def _each(
    launch: worker_pb2.Launch, create: Callable[[int], gym.Env[Any, Any]]
) -> gym.Env[Any, Any] | gym.vector.VectorEnv:
    return batch(create, launch.num_envs, launch.autoreset_mode) if launch.num_envs else create(0)


def _create_in_guest(
    launch: worker_pb2.Launch, root: Path, kwargs: Mapping[str, Any], client_kwargs: Mapping[str, Any]
) -> Created:
    # Here, since only environments of other Pythons need what that imports.
    from remote_gym.worker.environment.guests.creation import create_in_guest

    if not launch.entrypoint and "id" in client_kwargs:
        raise NotPermitted("which environment of another Python a client gets is the server's to say; leave out the id")
    is_sent = launch.entrypoint and not launch.guest.there
    file = entrypoint_file(root, launch.entrypoint, anywhere=launch.anywhere) if is_sent else None
    made, exposed, guest = create_in_guest(launch, root, file, kwargs)
    return Created(made, exposed, made_by_id=not launch.entrypoint, guest=guest)


# --------------------------------------------------------------------------------------------------------------
# Places


def _root(launch: worker_pb2.Launch) -> Path:
    root = Path(launch.root).resolve()
    if not root.is_dir():
        raise ConfigError(f"entrypoint root {str(root)!r} is not a folder; use one that the server can read")
    if not launch.repo:
        return root
    # Here, since only who names a repository needs fcntl, which not every system has.
    from remote_gym.worker.environment.repository import checkout, default_cache

    local = root / launch.repo
    repo = str(local) if local.exists() else launch.repo
    return checkout(repo, launch.reference or None, default_cache())


def entrypoint_file(root: Path, entrypoint: str, *, anywhere: bool = False) -> Path:
    """The entrypoint's path, with its symbolic links resolved, so that what was checked is what is loaded.

    Args:
        root: What a path that is not absolute begins at; resolved.
        entrypoint: The path.
        anywhere: Whether it may lead out of the root, as one that the server itself names may.

    Raises:
        ConfigError: If there is no such ``.py`` file, or it is where it may not be.
    """
    try:
        file = (root / entrypoint).resolve()
        # Before anything is said about the file: what is outside is none of a client's business.
        if not anywhere and not file.is_relative_to(root):
            raise ConfigError(f"entrypoint {entrypoint!r} is outside its root {str(root)!r}; use a file below it")
        if file.is_dir():
            raise ConfigError(f"entrypoint {entrypoint!r} is a folder; name the .py file in it")
        if not file.is_file():
            where = "" if Path(entrypoint).is_absolute() else f" below its root {str(root)!r}"
            raise ConfigError(f"entrypoint {entrypoint!r} does not exist{where}")
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"entrypoint {entrypoint!r} cannot be read: {error}") from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"entrypoint {entrypoint!r} is not a path: {error}") from error
    if file.suffix != ".py":
        raise ConfigError(f"entrypoint {entrypoint!r} is not a .py file")
    return file


def _enter(root: Path, file: Path | None, *, own_process: bool) -> None:
    search(root, file)
    if own_process:
        try:
            os.chdir(root)
        except OSError as error:
            raise ConfigError(f"cannot change to the entrypoint's root {str(root)!r}: {error.strerror}") from error


# --------------------------------------------------------------------------------------------------------------
# Modules


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"cannot import {name!r}; use a module's full name, such as 'ale_py'")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {name!r}: {error}; is it installed for {sys.executable}, or below the entrypoint's root?"
        ) from error


# --------------------------------------------------------------------------------------------------------------
# Entrypoint files


def _creator(module: ModuleType, file: Path) -> Callable[..., object]:
    function = getattr(module, "create_environment", None)
    if function is None:
        raise ConfigError(f"{file} does not define create_environment; write 'def create_environment(**kwargs): ...'")
    if not callable(function):
        raise ConfigError(f"{file}: create_environment is of type {_qualified_name(type(function))}; use a function")
    return function  # type: ignore[no-any-return]


def _exposed(module: ModuleType, file: Path) -> tuple[str, ...]:
    names = getattr(module, "EXPOSED", ())
    if not isinstance(names, (tuple, list)):
        raise ConfigError(f"{file}: EXPOSED is {names!r}; use a tuple of names, such as ('action_masks',)")
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"{file}: EXPOSED holds {name!r}; use names of methods and attributes")
    return tuple(dict.fromkeys(names))


def _arguments(
    function: Callable[..., object], file: Path, kwargs: dict[str, Any], injected: dict[str, Any], name: str = NAME
) -> dict[str, Any]:
    """Arguments for the function: `kwargs`, and those of `injected` that its signature names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # callables written in C may have none
        return kwargs
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = {name for name, parameter in signature.parameters.items() if parameter.kind in by_name}
    arguments = {name: value for name, value in injected.items() if name in taken} | kwargs
    if "env_id" in taken:  # not the client's to choose: it is to be no other environment's
        arguments["env_id"] = injected["env_id"]
    try:
        # Before the call: a TypeError out of the call itself is the entrypoint's own.
        signature.bind(**arguments)
    except TypeError as error:
        passed = ", ".join(sorted(arguments)) or "no arguments"
        raise ConfigError(f"{file}: {name}{signature} was to be called with {passed}: {error}") from error
    return arguments


# --------------------------------------------------------------------------------------------------------------
# Registered environments


def _make(launch: worker_pb2.Launch, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    id_ = kwargs.pop("id", None)
    if id_ is None:
        raise id_needed(launch.ids, launch.imports)
    if not isinstance(id_, str):
        raise ConfigError(f'entrypoint_kwargs has the id {id_!r}; use a text, such as {{"id": "CartPole-v1"}}')
    module, _, name = id_.rpartition(":")
    if module:
        _import(module)
    parse_id(name, id_)
    if launch.render_mode:
        kwargs.setdefault("render_mode", launch.render_mode)
    try:
        with user_code:
            return gym.make(name, **kwargs)
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise ConfigError(
            f"{as_sentence(error)} If a package registers {id_!r}, the server has to import it first: "
            "imports=('MODULE',)"
        ) from error


def _qualified_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
