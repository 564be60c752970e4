"""Which registered environments a client may name, where the server leaves their id open."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id

from remote_gym.errors import ConfigError, NotPermitted

GYMNASIUM = "gymnasium.envs"
"""The package of Gymnasium's own environments."""

_BY_MODULE: dict[str, set[str]] = {}
"""Ids that a module registered when a worker of this process imported it first."""


@contextlib.contextmanager
def noting(module: str) -> Iterator[None]:
    """Note what is registered while one of the server's modules is imported."""
    before = set(gym.registry)
    try:
        yield
    finally:
        _BY_MODULE.setdefault(module, set()).update(gym.registry.keys() - before)


def parse_id(name: str, id_: str) -> tuple[str | None, str, int | None]:
    """Namespace, name and version of an id.

    Args:
        name: The id, without the module that it may begin with.
        id_: The whole, for the error.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return parse_env_id(name)
    except gym.error.Error as error:
        raise ConfigError(f"id {id_!r} is not a Gymnasium id, such as 'CartPole-v1': {error}") from error


def check_client_id(id_: object, offered: object, patterns: Sequence[str], imports: Sequence[str]) -> None:
    """Refuse an id that the client may not choose.

    Args:
        id_: The client's.
        offered: The server's own; None where it leaves the id open.
        patterns: `ServerOptions.ids`; without any, what Gymnasium and `imports` register may be chosen.
        imports: Modules that the server has workers import.

    Raises:
        NotPermitted: If it is not among those.
        ConfigError: If it is no id.
    """
    if offered is not None:
        if id_ != offered:
            raise NotPermitted(
                f"id {id_!r} is not what the server offers, which is {offered!r}; it can offer several environments by "
                "name, or leave the id open to clients"
            )
        return
    if not isinstance(id_, str):
        return  # which is no id at all, as whoever makes the environment says
    module, _, name = id_.rpartition(":")
    if module:
        raise NotPermitted(f"id {id_!r} would import {module!r}; only the server may, by --import {module}")
    namespace, base, version = parse_id(name, id_)
    if version is None:
        version = find_highest_version(namespace, base)  # as `gymnasium.make` does
    found = get_env_id(namespace, base, version)
    if patterns:
        if not any(fnmatch.fnmatchcase(found, pattern) for pattern in patterns):
            allowed = ", ".join(map(repr, patterns))
            raise NotPermitted(
                f"id {id_!r} is none that the server lets clients choose; ServerOptions.ids is {allowed}"
            )
        return
    spec = gym.registry.get(found)
    if spec is not None and not _is_offered(spec, imports):
        raise NotPermitted(
            f"id {id_!r} is registered by neither Gymnasium itself nor a module that the server imports, so clients "
            "may not choose it; ServerOptions.ids can allow it"
        )


def _is_offered(spec: EnvSpec, imports: Sequence[str]) -> bool:
    entry_point = spec.entry_point
    home = entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    if home == GYMNASIUM or home.startswith(f"{GYMNASIUM}."):
        return True
    # A plugin of Gymnasium's may have registered them before the import, so that is no sign by itself.
    packages = {module.partition(".")[0] for module in imports}
    return home.partition(".")[0] in packages or any(spec.id in _BY_MODULE.get(module, ()) for module in imports)
