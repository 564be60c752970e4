"""Which environment a client gets: its request beside what the server offers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from remote_gym.config import RemoteArgs, ServerOptions, check_names, place_of
from remote_gym.errors import ConfigError, DenialReason, NotPermitted, ProtocolMismatch
from remote_gym.logs.escaping import shortened
from remote_gym.protocol.constants import PROTOCOL_VERSION, package_versions
from remote_gym.server.access.policy import DEFAULT, Terms
from remote_gym.server.placement.place import read_place, runs_elsewhere
from remote_gym.server.placement.resources import RESOURCES, read_resources
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.values import encode_value

QUOTED = 200
"""Characters of what a client sent that an error repeats."""

ARGUMENTS = frozenset(RemoteArgs.__annotations__)


def check_arguments(field: str, arguments: Mapping[str, Any], environment: str | None = None) -> None:
    """Refuse a server's own arguments that cannot work.

    Args:
        field: The argument that holds them.
        arguments: As `RemoteArgs` has them.
        environment: Its name, where the argument holds several by their names.

    Raises:
        ConfigError: Naming the argument.
    """
    where = place_of(field, environment)
    if not isinstance(arguments, Mapping):
        raise ConfigError(
            f"is {arguments!r}; use a dict, such as {{'entrypoint': 'entrypoint.py'}}", field=field, where=where
        )
    check_names(where, arguments, ARGUMENTS - {"environment"}, field)
    for name in ("entrypoint", "repo", "reference"):
        value = arguments.get(name)
        if value is not None and not isinstance(value, str if name == "reference" else (str, os.PathLike)):
            raise ConfigError(f"has {name} {value!r}; use a text or None", field=field, where=where)
    place = read_place(arguments, field=field, where=where)
    read_resources(arguments, field=field, where=where, is_here=place.ssh is None)
    there = arguments.get("there")
    if there not in (None, True, False) or (there and not runs_elsewhere(arguments)):
        raise ConfigError(
            f"has there {there!r}; use True beside python or command, or what else names a Python, or leave it out",
            field=field,
            where=where,
        )
    include = arguments.get("include")
    if include is not None:
        is_list = isinstance(include, (list, tuple)) and all(isinstance(name, str) and name for name in include)
        if not is_list or there or not runs_elsewhere(arguments):
            raise ConfigError(
                f"has include {include!r}; use a list of files and folders, such as ['libero'], beside what names "
                "another Python and without there, or leave it out",
                field=field,
                where=where,
            )
    kwargs = arguments.get("entrypoint_kwargs") or {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigError(f"has entrypoint_kwargs {kwargs!r}; use a dict with str keys", field=field, where=where)
    if runs_elsewhere(arguments) and not arguments.get("entrypoint") and kwargs.get("id") is None:
        # Where the worker runs in that Python, since it has our release, an id would be the client's to name.
        raise ConfigError(
            "has neither an entrypoint nor an id; name one, since a client may not choose in another Python",
            field=field,
            where=where,
        )
    encode_value(dict(kwargs), pb.Value(), strict=True, limits=ServerOptions().message_limits, path="entrypoint_kwargs")


def check_thread(field: str, arguments: Mapping[str, Any], environment: str | None = None) -> None:
    """Refuse a server's own arguments that need a process of the environment's own, where it is to run in a thread.

    Raises:
        ConfigError: Naming the argument.
    """
    here = not runs_elsewhere(arguments)
    for name in RESOURCES:
        is_shared = here or (name == "cpus" and arguments.get("ssh") is None and arguments.get("image") is None)
        if arguments.get(name) is not None and is_shared:
            raise ConfigError(
                f"has {name} {arguments[name]!r}, but with use_thread=True all environments share one process; "
                "leave one of the two out",
                field=field,
                where=place_of(field, environment),
            )


def leaves_id_open(arguments: Mapping[str, Any]) -> bool:
    """Whether a client may choose among registered environments."""
    return (
        not runs_elsewhere(arguments)
        and not arguments.get("entrypoint")
        and (arguments.get("entrypoint_kwargs") or {}).get("id") is None
    )


def check_version(request: worker_pb2.Opening) -> None:
    """Refuse a client that speaks another version of the protocol.

    Raises:
        ProtocolMismatch: Naming both ends' versions.
    """
    if request.protocol_version != PROTOCOL_VERSION:
        raise ProtocolMismatch(
            f"the client speaks version {request.protocol_version} of the protocol "
            f"({shortened(str(dict(request.versions)), QUOTED)}), the server version {PROTOCOL_VERSION} "
            f"({package_versions()}); install the same release at both ends"
        )


def launch_message(
    request: worker_pb2.Opening, default_args: Mapping[str, Any] | None, options: ServerOptions
) -> worker_pb2.Launch:
    """Write the message to a worker, session and env_id aside.

    The client's keyword arguments are passed on as they came: the worker decodes them, in a process of its own.

    Raises:
        ConfigError: If no environment of that name is offered.
        NotPermitted: If the client names code to run where the server allows none.
    """
    offered = offered_arguments(request, default_args, options)
    limits = options.message_limits
    if request.num_envs > options.max_num_envs:
        raise ConfigError(
            f"{request.num_envs} environments were asked for in one session, and ServerOptions.max_num_envs allows "
            f"{options.max_num_envs}; use more workers, or raise it"
        )
    launch = worker_pb2.Launch(
        entrypoint=os.fspath(offered.get("entrypoint") or ""),
        repo=os.fspath(offered.get("repo") or ""),
        reference=offered.get("reference") or "",
        root=str(Path.cwd()),
        render_mode=request.render_mode,
        frames=request.frames,
        imports=options.imports,
        ids=options.ids,
        check_actions=options.check_actions,
        limits=asdict(limits),
        rlimits=options.rlimits,
        num_envs=request.num_envs,
        autoreset_mode=request.autoreset_mode,
        frame_encoding=request.frame_encoding,
        observation_encoding=request.observation_encoding,
    )
    launch.client_kwargs = request.entrypoint_kwargs
    own = dict(offered.get("entrypoint_kwargs") or {})
    encode_value(own, launch.entrypoint_kwargs, strict=True, limits=limits, path="entrypoint_kwargs")
    # What a repository holds is another's to say, and stays within.
    launch.anywhere = bool(launch.entrypoint) and not launch.repo
    _take_client_code(request, launch, options)
    return launch


def offered_arguments(
    request: worker_pb2.Opening, default_args: Mapping[str, Any] | None, options: ServerOptions
) -> Mapping[str, Any]:
    """The server's own arguments of the environment that a client asks for; none for an entrypoint of its own.

    Raises:
        ConfigError: If no environment of that name is offered.
    """
    if request.entrypoint and options.client_entrypoints is not None:
        return {}
    environments = cast("Mapping[str, Mapping[str, Any]]", options.environments)  # in one form by now
    return _choose(request.environment, default_args, environments)


def offered_name(request: worker_pb2.Opening, options: ServerOptions) -> str | None:
    """The name by which the server offers what is asked for: empty for the default one, None for a client's own."""
    if request.entrypoint:
        return None
    return request.environment if request.environment in options.environments else ""


def restrict(launch: worker_pb2.Launch, terms: Terms) -> None:
    """Let the worker check the client's keyword arguments, which it alone decodes."""
    if terms.arguments is not None:
        launch.allowed_arguments.names.extend(terms.arguments)
        launch.allowed_arguments.SetInParent()  # an empty list allows none
    launch.arguments_schema = terms.schema


def _choose(
    name: str, default_args: Mapping[str, Any] | None, environments: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    if name in environments:
        return environments[name]
    if name in ("", DEFAULT) and default_args is not None:
        return default_args
    names = ", ".join(sorted({*environments, *([DEFAULT] if default_args is not None else [])})) or "none"
    if name:
        raise ConfigError(f"the server offers no environment {shortened(repr(name), QUOTED)}; it offers {names}")
    raise ConfigError(
        "the server has no default environment; choose one by its name, as remote_args={'environment': NAME} or "
        f"--environment NAME: {names}"
    )


def _take_client_code(request: worker_pb2.Opening, launch: worker_pb2.Launch, options: ServerOptions) -> None:
    for name in ("repo", "reference"):
        if getattr(request, name):
            raise NotPermitted(
                f"a client may not set {name!r}: which code runs is the server's to say", reason=DenialReason.CODE
            )
    if not request.entrypoint:
        return
    if options.client_entrypoints is None:
        raise NotPermitted(
            "a client may not set 'entrypoint': which code runs is the server's to say; it can offer several by "
            "ServerOptions.environments, or a folder by ServerOptions.client_entrypoints",
            reason=DenialReason.CODE,
        )
    launch.entrypoint, launch.anywhere = request.entrypoint, False
    launch.root = str(Path(options.client_entrypoints).resolve())
