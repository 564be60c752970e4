"""Commands whose help is grouped, and whose errors name flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from remote_gym.cli.environment_errors import environment_error
from remote_gym.errors import ConfigError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PLACES = f"{__name__}.places"
"""Key of a context's `meta`: where a configuration file sets a parameter, by the parameter's name."""

OTHERS = "Other options"
"""The group that is shown last, with ``--help``."""

_PARAMETERS = {"tls": "certs", "private_key": "key", "entrypoint_kwargs": "kwargs", "default_args": "environment_id"}
"""Fields that a command has under another name."""

_OTHER_FLAGS = {"--host": "--url", "--hostname": "--url", "--address": "--url", "--tls": "--certs"}
"""Flags that other programs have for what one of ours does."""


class Flag(click.Option):
    """An option of a command, shown under a title with others of its kind.

    Args:
        group: The title.
    """

    def __init__(self, *args: Any, group: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class Command(click.Command):
    """A command of `Flag` options: help shows them by groups, and a `ConfigError` names the flag of its field."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group, in the order in which the groups first come."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                groups.setdefault(param.group if isinstance(param, Flag) else OTHERS, []).append(record)
        groups[OTHERS] = groups.pop(OTHERS, [])  # last
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and say where a file is at fault rather than which flag."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            meant = _OTHER_FLAGS.get(error.option_name)
            if any(meant in param.opts for param in self.params):
                raise click.UsageError(f"No such option {error.option_name!r}; did you mean {meant}?", ctx) from error
            raise
        except click.BadParameter as error:
            name = str(error.param.name) if error.param is not None else ""
            if not is_from_file(ctx, name):
                raise
            raise ConfigError(f"{places(ctx)[name]}: {name}: {error.message}", field=name) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and name the flag in errors that have a field."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            text = in_flags(error, ctx)
            if text == str(error):
                raise
            raise ConfigError(text, field=error.field) from error


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def flag(group: str, *names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Decorate a command with a `Flag`."""
    return click.option(*names, cls=Flag, group=group, **attributes)


def places(ctx: click.Context) -> Mapping[str, str]:
    """Where a configuration file sets each parameter of a command."""
    found: Mapping[str, str] = ctx.meta.get(PLACES, {})
    return found


def in_flags(error: ConfigError, ctx: click.Context) -> str:
    """Text of an error, with the flag that it is about, or the line of a configuration file.

    Args:
        error: Whose field is the name of a parameter; nothing changes if it is not.
        ctx: Of the command.
    """
    about_environment = environment_error(error, ctx)
    if about_environment is not None:
        return about_environment
    text = str(error)
    field = error.field or ""
    params = {str(param.name): param for param in ctx.command.params if isinstance(param, click.Option)}
    name = next((name for name in (field, _PARAMETERS.get(field, "")) if name in params), None)
    if name is None:
        return text
    shown = name if is_from_file(ctx, name) else max(params[name].opts, key=len)
    if error.where is None:
        told = f"{shown}: {text}"
    else:
        _, _, rest = error.where.partition(field)
        if rest.startswith("["):  # as in "environments['easy']"
            rest = f" {rest[1:-1]}"
        told = f"{shown}{rest} {error.problem}"
    return f"{places(ctx)[name]}: {told}" if is_from_file(ctx, name) else told


def is_from_file(ctx: click.Context, name: str) -> bool:
    """Whether the value of a parameter is a configuration file's."""
    return name in places(ctx) and ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP


class Number(click.ParamType):  # type: ignore[type-arg]  # generic, but in older releases of click
    """A whole number, or any; what is out of bounds is refused in a sentence, not by a formula.

    Args:
        kind: `int` or `float`.
        lowest: The least that will do; None leaves that to the options.
        name: Of what is counted, for the help.
    """

    def __init__(self, kind: type[int] | type[float], lowest: float | None = None, name: str = "") -> None:
        self.name = name or ("integer" if kind is int else "number")
        self.is_integer = kind is int
        self._kind = kind
        self._lowest = lowest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it from a text, or take it from a configuration file."""
        try:
            number = self._kind(value)
        except ValueError:
            self.fail(f"{value!r} is no {'integer' if self.is_integer else 'number'}.", param, ctx)
        if self._lowest is not None and not number >= self._lowest:
            self.fail(f"{value} is too small; use {self._lowest:g} or more.", param, ctx)
        return number


INTEGER = Number(int)
COUNT = Number(int, 1)
NUMBER = Number(float)
SECONDS = Number(float, name="seconds")
