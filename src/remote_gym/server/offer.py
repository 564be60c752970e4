"""Checks an offer before any client asks for it, without running any of its code."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import find_highest_version, parse_env_id

from remote_gym.config import ServerOptions, place_of
from remote_gym.errors import ConfigError
from remote_gym.server.placement.place import runs_elsewhere
from remote_gym.worker.environment.entrypoint import entrypoint_file
from remote_gym.worker.environment.registered_ids import as_sentence


def check_offer(
    arguments: Mapping[str, Any],
    name: str | None = None,
    *,
    imports: Sequence[str] = (),
    own_interpreter: bool = True,
) -> None:
    """Refuse what no client could ever open.

    Args:
        arguments: A server's, as `RemoteArgs` has them. What a repository holds is not looked at.
        name: The environment's; None for the default one.
        imports: Modules that workers import first; with any, every id may be registered by them.
        own_interpreter: Whether workers run under this interpreter, so that what it knows is what they know.

    Raises:
        ConfigError: If the entrypoint is no Python file, or the id is not registered.
    """
    try:
        _check(arguments, imports, own_interpreter)
    except ConfigError as error:
        if name is None:
            raise ConfigError(str(error), field="default_args") from error
        where = place_of("environments", name)
        raise ConfigError(f"cannot be served: {error}", field="environments", where=where) from error


def _check(arguments: Mapping[str, Any], imports: Sequence[str], own_interpreter: bool) -> None:
    if runs_elsewhere(arguments):
        own_interpreter = False
    if arguments.get("there"):
        return
    if arguments.get("entrypoint"):
        if not arguments.get("repo"):
            _check_entrypoint(_entrypoint(arguments), own_interpreter)
    elif own_interpreter and not imports:
        id_ = (arguments.get("entrypoint_kwargs") or {}).get("id")
        if isinstance(id_, str) and ":" not in id_:  # what stands before a colon is imported first
            _check_id(id_)


def _entrypoint(arguments: Mapping[str, Any]) -> Path:
    return entrypoint_file(Path.cwd(), os.fspath(arguments["entrypoint"]), anywhere=True)


def _check_entrypoint(file: Path, own_interpreter: bool) -> None:
    try:
        ast.parse(file.read_bytes(), file)
    except OSError as error:
        raise ConfigError(f"entrypoint {file} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        if own_interpreter:  # another's Python may have another syntax
            raise ConfigError(f"entrypoint {file} is not Python: {error}") from error


def _check_id(id_: str) -> None:
    try:
        namespace, name, version = parse_env_id(id_)
        if version is None and find_highest_version(namespace, name) is not None:
            return  # `gymnasium.make` takes the newest
        gym.spec(id_)
    except gym.error.Error as error:
        raise ConfigError(
            f"{as_sentence(error)} If a package registers {id_!r}, have workers import it first, by the option imports"
        ) from error


def names_offered(served: str | None, options: ServerOptions) -> list[str]:
    """All that a server offers, by names.

    Args:
        served: The default environment's id or entrypoint, if it has one.
        options: The server's.
    """
    patterns = ", ".join(options.ids)
    offered = [*([served] if served else []), *options.environments]
    offered += [f"ids that match {patterns}"] if patterns else []
    return offered + ([f"any entrypoint below {options.client_entrypoints}"] if options.client_entrypoints else [])
