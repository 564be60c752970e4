"""Guests that host what a launch asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym

from remote_gym.config import Limits
from remote_gym.v1 import worker_pb2
from remote_gym.wire.autoreset import autoreset_mode
from remote_gym.worker.environment.guests.environment import GuestEnvironment
from remote_gym.worker.environment.guests.included import Inclusion
from remote_gym.worker.environment.guests.messages import Guest
from remote_gym.worker.environment.guests.process import GuestProcess
from remote_gym.worker.environment.guests.vectors import AskedAhead, GuestVectorEnvironment
from remote_gym.worker.environment.stacks import stacks
from remote_gym.worker.environment.vector import Together, batch, check_vector_environment

START_TIMEOUT = 100.0
"""Seconds until a guest's first message has to be there: less than a session has to open, so that its error arrives."""


def create_in_guest(
    launch: worker_pb2.Launch, root: Path, file: Path | None, kwargs: Mapping[str, Any]
) -> tuple[gym.Env[Any, Any] | gym.vector.VectorEnv, tuple[str, ...], Guest]:
    """Start a guest, and create in it what a launch asks for.

    Args:
        launch: What to create, and the guest's command.
        root: The entrypoint's root, in which the guest starts.
        file: The entrypoint, which is sent along; None where there is none, or where it is the guest's.
        kwargs: Keyword arguments.

    Returns:
        The environment, or the vector environment; what the entrypoint exposes of it; and its host.

    Raises:
        ConfigError: If no Python runs, or the environment cannot be created as configured.
        BaseException: Whatever its constructor raises.
    """
    limits = Limits(**launch.limits)
    entrypoint, source, inclusion = launch.entrypoint or None, None, None
    if launch.guest.include:
        inclusion = Inclusion(root, launch.guest.include, anywhere=not launch.repo)
        entrypoint = None if file is None else inclusion.add_entrypoint(file)
    elif file is not None:
        entrypoint, source = str(file), file.read_bytes()
    guest = start_guest(
        list(launch.guest.command) or [launch.guest.python],
        root,
        limits,
        variables=launch.guest.variables,
        first_line=launch.guest.first_line,
        ends_in_shell=launch.guest.ends_in_shell,
    )
    created: list[GuestEnvironment] = []

    def create(index: int) -> GuestEnvironment | GuestVectorEnvironment:
        order = creation_order(
            env_id=launch.env_id + index,
            entrypoint=entrypoint,
            source=source,
            root=root,
            imports=launch.imports,
            kwargs=kwargs,
            render_mode=launch.render_mode or None,
            limits=limits,
            num_envs=0 if index else launch.num_envs,
            autoreset=autoreset_mode(launch.autoreset_mode),
            included=inclusion is not None,
        )
        return create_environment(guest, index, order)

    def create_next(index: int) -> gym.Env[Any, Any]:
        environment = first if index == 0 else create(index)
        if isinstance(environment, GuestVectorEnvironment):
            raise guest.lose("made a vector environment where one environment was asked for")
        created.append(environment)
        return environment

    try:
        if inclusion is not None:
            guest.send_files(inclusion.read())
        first = create(0)
        if isinstance(first, GuestVectorEnvironment) and launch.num_envs:
            where = f"{entrypoint}: create_vector_environment"
            return check_vector_environment(first, launch.num_envs, launch.autoreset_mode, where), first.exposed, guest
        if not launch.num_envs:
            return create_next(0), first.exposed, guest
        made = batch(create_next, launch.num_envs, launch.autoreset_mode)
        if isinstance(made, Together):
            made.ahead = AskedAhead(guest, created)
        return made, first.exposed, guest
    except BaseException:
        guest.end()
        raise


def create_environment(guest: Guest, index: int, order: Mapping[str, Any]) -> GuestEnvironment | GuestVectorEnvironment:
    """Create an environment, or the vector environment of an entrypoint that makes one.

    Args:
        guest: Hosts it.
        index: Its number there.
        order: What to create, as `creation_order` has it.

    Raises:
        ConfigError: If it cannot be created as configured, or has a space that cannot travel.
        BaseException: Whatever its constructor raises.
    """
    description = guest.create(index, order)
    is_vector = isinstance(description, dict) and "num_envs" in description
    return (GuestVectorEnvironment if is_vector else GuestEnvironment)(guest, index, description)


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
    num_envs: int = 0,
    autoreset: Any = None,
    included: bool = False,
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
        num_envs: How many an entrypoint makes that can make several at once; 0 for one.
        included: Whether the entrypoint is among files that were sent, which it is named by the place of.
        autoreset: When these are to be reset, for an entrypoint that asks; None for its own way.
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
        "num_envs": num_envs,
        "included": included,
        "autoreset_mode": getattr(autoreset, "value", autoreset),
    }
