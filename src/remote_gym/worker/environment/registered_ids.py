"""Which registered environments a client may name, where the server leaves their id open."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
from collections.abc import Iterator, Sequence

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id

from remote_gym.errors import ConfigError, DenialReason, NotPermitted

GYMNASIUM = "gymnasium.envs"
"""The package of Gymnasium's own environments."""

_BY_MODULE: dict[str, set[str]] = {}
"""Ids that a module registered when a worker of this process imported it first."""


MOST_EXAMPLES = 3


class IdNeeded(ConfigError):
    """No id was named where clients choose one.

    Attributes:
        examples: Some that they may choose.
        fault: What is wrong with the server's patterns; empty for nothing.
    """

    def __init__(self, message: str, examples: Sequence[str] = (), fault: str = "") -> None:
        super().__init__(message)
        self.examples = tuple(examples)
        self.fault = fault


@contextlib.contextmanager
def noting(module: str) -> Iterator[None]:
    """Note what is registered while one of the server's modules is imported."""
    before = set(gym.registry)
    try:
        yield
    finally:
        _BY_MODULE.setdefault(module, set()).update(gym.registry.keys() - before)


def as_sentence(error: Exception) -> str:
    """Gymnasium's message, which may end in a question, as what another sentence can follow."""
    text = str(error).rstrip()
    return text if text.endswith(("?", "!", ".")) else f"{text}."


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
                "name, or leave the id open to clients",
                reason=DenialReason.ENVIRONMENT,
            )
        return
    if not isinstance(id_, str):
        return  # which is no id at all, as whoever makes the environment says
    module, _, name = id_.rpartition(":")
    if module:
        raise NotPermitted(
            f"id {id_!r} would import {module!r}; only the server may, by imports=({module!r},)",
            reason=DenialReason.CODE,
        )
    namespace, base, version = parse_id(name, id_)
    if version is None:
        version = find_highest_version(namespace, base)  # as `gymnasium.make` does
    found = get_env_id(namespace, base, version)
    if patterns:
        if not any(fnmatch.fnmatchcase(found, pattern) for pattern in patterns):
            allowed = ", ".join(map(repr, patterns))
            raise NotPermitted(
                f"id {id_!r} is none that the server lets clients choose; ServerOptions.ids is {allowed}",
                reason=DenialReason.ENVIRONMENT,
            )
        return
    spec = gym.registry.get(found)
    if spec is not None and not _is_offered(spec, imports):
        raise NotPermitted(
            f"id {id_!r} is registered by neither Gymnasium itself nor a module that the server imports, so clients "
            "may not choose it; ServerOptions.ids can allow it",
            reason=DenialReason.ENVIRONMENT,
        )


def _is_offered(spec: EnvSpec, imports: Sequence[str]) -> bool:
    entry_point = spec.entry_point
    home = entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    if home == GYMNASIUM or home.startswith(f"{GYMNASIUM}."):
        return True
    # A plugin of Gymnasium's may have registered them before the import, so that is no sign by itself.
    packages = {module.partition(".")[0] for module in imports}
    return home.partition(".")[0] in packages or any(spec.id in _BY_MODULE.get(module, ()) for module in imports)


def id_needed(patterns: Sequence[str], imports: Sequence[str]) -> IdNeeded:
    """The error for a client that names no id, with ids that it may choose.

    Args:
        patterns: `ServerOptions.ids`.
        imports: Modules that the server has workers import, which is done.
    """
    examples = _examples(patterns, imports)
    which = f" that matches {' or '.join(map(repr, patterns))}" if patterns else ""
    # In double quotes, which are JSON's as well.
    example = f'{{"id": "{(examples or ["CartPole-v1"])[0]}"}}'
    arguments = f"remote_args={example}, or --kwargs '{example}' on the command line"
    others = f" (or {', '.join(examples[1:])})" if examples[1:] else ""
    fault = "; ".join(map(_unmatched, filter(lambda pattern: not _matching(pattern), patterns)))
    return IdNeeded(
        f"no id is named, and the server leaves it to its clients; choose one{which}, such as {arguments}{others}",
        examples,
        fault,
    )


def _matching(pattern: str) -> list[str]:
    """Registered ids that a pattern fits, the newest version of each name where there are several."""
    found = [id_ for id_ in gym.registry if fnmatch.fnmatchcase(id_, pattern)]
    return [id_ for id_ in found if _is_newest(id_)] or found


def _is_newest(id_: str) -> bool:
    namespace, name, version = parse_env_id(id_)
    return version == find_highest_version(namespace, name)


def _examples(patterns: Sequence[str], imports: Sequence[str]) -> list[str]:
    if patterns:
        found = [id_ for pattern in patterns for id_ in _matching(pattern)]
    else:
        found = [id_ for id_, spec in gym.registry.items() if _is_offered(spec, imports) and _is_newest(id_)]
    return list(dict.fromkeys(found))[:MOST_EXAMPLES]


def _unmatched(pattern: str) -> str:
    near = difflib.get_close_matches(pattern, gym.registry, 1, 0.5)
    return (
        f"ServerOptions.ids holds {pattern!r}, which no registered environment matches; use an id or a pattern of ids"
        f"{f', such as {near[0]!r}' if near else ''}, and have workers import a package that registers some, by "
        "the option imports"
    )
