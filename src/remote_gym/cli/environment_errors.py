"""Errors about an environment, by what the user has written: a flag, or a line of a configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable

import click
from click.core import ParameterSource

from remote_gym.config import RemoteArgs
from remote_gym.errors import ConfigError

ENVIRONMENT_PLACES = f"{__name__}.places"
"""Key of a context's `meta`: an `EnvironmentPlace`."""

EnvironmentPlace = Callable[[str | None, str | None], str]
"""Returns file and line of an environment's table, or of one of its keys; empty if the file has none. The default
environment has no name."""

_DEFAULTS = ("default_args", "environment")
"""Fields that hold the default environment: those of a server, and of `launch`."""
_KEYS = frozenset(RemoteArgs.__annotations__)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_VALUE = re.compile(r"has (\w+)(?: |, which is )(?=['\"\[{(\d-])(.*)", re.DOTALL)
"""A problem that is a key and its value."""
_NAMED = re.compile(r"environments\['(.*)'\]")
_TRIED = re.compile(r"environment '(.*?)' ")


def environment_error(error: ConfigError, ctx: click.Context) -> str | None:
    """Text of an error about an environment; None if it is about none, or nothing more can be said of where.

    Args:
        error: As checks raise it, whose problem names the key first: ``"has python 'x'; use ..."``.
        ctx: Of the command.
    """
    if error.field in _DEFAULTS:
        name = None
    elif error.field == "environments" and (
        found := _NAMED.fullmatch(error.where or "") or (None if error.where else _TRIED.match(error.problem))
    ):
        name = found[1]
    else:
        return None
    key = _key(error.problem) if error.where else None
    given = _VALUE.fullmatch(error.problem)
    flag = _flag(ctx, key) if name is None else None
    if flag is not None:
        return f"{flag} is {given[2]}" if given else f"{flag}: the environment {error.problem}"
    place: EnvironmentPlace = ctx.meta.get(ENVIRONMENT_PLACES, lambda *_: "")
    title = "[environment]" if name is None else f"[environments.{name}]"
    if key is not None and (where := place(name, key)):
        return f"{where}: {key} is {given[2]}" if given else f"{where}: {title} {error.problem}"
    if where := place(name, None):
        return f"{where}: {title} {error.problem}" if error.where else f"{where}: {error.problem}"
    return None


def _key(problem: str) -> str | None:
    """The first key that a problem names outside of quotes, before it says what would be right."""
    words = re.findall(r"\w+", _QUOTED.sub("", problem).partition(";")[0])
    return next((key for word in words for key in (word, f"{word}s") if key in _KEYS), None)


def _flag(ctx: click.Context, key: str | None) -> str | None:
    """The flag by which the default environment's key was given; None if by none."""
    if key == "max_sessions":  # whose flag is for all environments together
        return None
    for param in ctx.command.params:
        is_given = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if isinstance(param, click.Option) and is_given and param.name in (key, f"{key}_with"):
            return max(param.opts, key=len)
    return None
