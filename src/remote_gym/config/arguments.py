"""Which environment to create: the forms in which it can be named, and the one in which it travels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from remote_gym.errors import ConfigError


class EnvironmentKeys(TypedDict, total=False):
    """Keys of an environment that can be said beside it, as `launch` takes them."""

    entrypoint_kwargs: dict[str, Any]
    """Keyword arguments of ``create_environment``; without an entrypoint, those of `gymnasium.make`."""
    repo: str | None
    """Git repository to clone or update; only a server may name one."""
    reference: str | None
    """Branch, tag or commit of ``repo``."""
    python: str | os.PathLike[str] | None
    """Another Python for the environment to run in: its executable. Nothing of ours need be installed there; only a
    server may name one."""
    command: Sequence[str] | None
    """Words of any command that ends in such a Python, in place of ``python``; only a server may name one."""
    there: bool | None
    """Whether ``entrypoint`` is a path where that Python runs, as in a container, rather than one of a file of the
    server's that is sent along."""
    include: Sequence[str] | None
    """Files and folders of the server's that are sent along with ``entrypoint``, which can import and read them."""
    conda: str | None
    """Conda environment whose Python it is, by name or path; as all that follows, only a server may name one."""
    uv: str | Mapping[str, Any] | None
    """Python that uv provides: its version, or ``{"python": "3.8", "with": ["gym==0.26.2", "numpy<1.24"]}``."""
    image: str | None
    """Container image in which that Python is; a container for each session."""
    engine: str | None
    """Program that runs the image: ``"docker"``, which is the default, ``"podman"`` or ``"apptainer"``."""
    network: str | None
    """Network of the container, such as ``"bridge"`` or ``"host"``; None for no network at all."""
    mounts: Sequence[str] | None
    """Folders and files that the container sees: ``"/here:/there"``, or ``"/here:/there:ro"`` to read only."""
    engine_options: Sequence[str] | None
    """More words for the engine, in front of the image: ``["--shm-size", "8g", "--user", "1000"]``."""
    ssh: str | None
    """Host on which all of this runs, as OpenSSH's client takes it: ``"user@gpu-box"``."""
    gpus: Sequence[int | str] | None
    """Devices, of which each session gets the one that the fewest use."""
    cpus: Sequence[int] | None
    """Processors that its sessions may run on."""
    variables: Mapping[str, str] | None
    """Environment variables of the process that it runs in."""
    warm: int | None
    """Environments that are made ahead, so that sessions need not wait for their constructors."""
    reuse: bool | None
    """Whether an environment that its client has closed is kept for that client's next session with the same
    arguments, rather than closed."""


class RemoteArgs(EnvironmentKeys, total=False):
    """Which environment to create, and how.

    A client's are merged over the server's: ``entrypoint_kwargs`` one level deep, the client's winning.
    """

    entrypoint: str | None
    """Path of the Python file that defines ``create_environment``: below ``repo``, if there is one; else a server's, as
    its working directory has it, or a client's below `ServerOptions.client_entrypoints`."""
    max_sessions: int | None
    """Sessions of this environment at once, of all that the server holds."""
    environment: str | None
    """Name of one of the environments that the server offers; only a client names one."""


SERVERS_ALONE = frozenset(
    {"python", "command", "there", "include", "conda", "uv", "image", "engine", "network", "mounts", "ssh"}
    | {"engine_options"}
    | {"gpus", "cpus", "variables", "warm", "reuse", "max_sessions"}
)
"""Names of `RemoteArgs` that lead to a command or a place, and that no client has a way to say."""

EnvironmentLike = str | os.PathLike[str] | RemoteArgs | Mapping[str, Any]
"""Forms that name an environment: a Gymnasium id, the path of an entrypoint (``.py``), the keyword arguments of
`gymnasium.make` with the ``"id"`` among them, or `RemoteArgs`."""

_CLIENT_GUESSES = {
    "host": "url",
    "hostname": "url",
    "certs": "tls=TlsFiles.from_folder(FOLDER, 'client')",
    "certificates": "tls=TlsFiles.from_folder(FOLDER, 'client')",
    "id": "remote_args='CartPole-v1', or remote_args={'id': 'CartPole-v1', ...}",
    "env_id": "remote_args='CartPole-v1', or remote_args={'id': 'CartPole-v1', ...}",
    "environment": "remote_args={'environment': NAME}",
    "entrypoint": "remote_args='FILE.py'",
    "entrypoint_kwargs": "remote_args={'entrypoint_kwargs': {...}}",
    "kwargs": "remote_args={'entrypoint_kwargs': {...}}",
}
_SERVER_GUESSES = {
    "host": "url",
    "hostname": "url",
    "certs": "tls=TlsFiles.from_folder(FOLDER, 'server')",
    "certificates": "tls=TlsFiles.from_folder(FOLDER, 'server')",
    "id": "the first argument, such as 'CartPole-v1' or {'id': 'CartPole-v1', ...}",
    "env_id": "the first argument, such as 'CartPole-v1' or {'id': 'CartPole-v1', ...}",
    "environment": "the first argument, such as 'CartPole-v1', or environments={NAME: 'CartPole-v1'}",
    "entrypoint": "the first argument, such as 'FILE.py'",
    "entrypoint_kwargs": "the first argument, such as {'entrypoint': 'FILE.py', 'entrypoint_kwargs': {...}}",
    "kwargs": "the first argument, such as {'id': 'CartPole-v1', ...}",
    "remote_args": "the first argument, or default_args",
    "srun": "the environment's command, such as command=['srun', '--gres=gpu:1', 'python3']",
    "slurm": "the environment's command, such as command=['srun', '--gres=gpu:1', 'python3']",
    "kubectl": "the environment's command, such as command=['kubectl', 'exec', '-i', 'POD', '--', 'python3']",
}

GUESSES = {"ClientOptions": _CLIENT_GUESSES, "ServerOptions": _SERVER_GUESSES}
"""Spelling to use in place of arguments that one may look for, and that have another name or form, by whose options the
function takes."""

_FORMS = "use an id such as 'CartPole-v1', the path of an entrypoint, or a dict such as {'id': 'CartPole-v1'}"


def place_of(field: str, name: str | None) -> str:
    """How errors name one environment of an argument, such as ``"environments['easy']"``."""
    return field if name is None else f"{field}[{name!r}]"


def read_environment(field: str, given: object, name: str | None = None) -> Mapping[str, Any]:
    """Bring what names an environment into the form of `RemoteArgs`, whose own values are not looked at.

    Args:
        field: The argument that holds it, such as ``"default_args"``.
        given: One of the forms of `EnvironmentLike`.
        name: The environment's, where the argument holds several by their names.

    Raises:
        ConfigError: If it is none of them.
    """
    where = place_of(field, name)
    if isinstance(given, os.PathLike):
        return {"entrypoint": os.fspath(given)}
    if isinstance(given, str) and given:
        return {"entrypoint": given} if given.endswith(".py") else {"entrypoint_kwargs": {"id": given}}
    if not isinstance(given, Mapping):
        raise ConfigError(f"is {given!r}; {_FORMS}", field=field, where=where)
    if "id" not in given:
        return given
    beside = [name for name in RemoteArgs.__annotations__ if name in given]
    if beside:
        raise ConfigError(
            f"has {beside[0]!r} beside 'id'; either all is for gymnasium.make, as in {{'id': ..., ...}}, or "
            "the id stands in 'entrypoint_kwargs'",
            field=field,
            where=where,
        )
    return {"entrypoint_kwargs": dict(given)}
