"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from remote_gym.address import parse_address
from remote_gym.cli.command import OTHERS, Decorated, flag
from remote_gym.cli.tls import tls_files
from remote_gym.config import CERTS_VARIABLE, TOKEN_VARIABLE

_LONGEST_RANGE = 4096

T = TypeVar("T")

CONNECTION = "Connection"
ENVIRONMENT = "Environment"

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def _parse_address(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, int]:
    return parse_address(value)


_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{unit}": factor**power
    for unit, factor in (("b", 1000), ("ib", 1024))
    for power, prefix in enumerate("kmgt", start=1)
}


def parse_size(text: str) -> int:
    """A number of bytes, as people write it: ``1500``, ``2GiB``, ``1.5 GB``.

    Raises:
        ValueError: If it is none, saying what would be one.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{text!r} is no size; use a number of bytes, or one such as 512MiB or 2GiB")
    return int(Decimal(found[1]) * _UNITS[found[2]])


class Size(click.ParamType):  # type: ignore[type-arg]  # generic, but in older releases of click
    """A number of bytes, as `parse_size` reads it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it from a text, or take it from a configuration file."""
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def show_size(size: int) -> str:
    """The shortest text that `parse_size` reads as that many bytes: ``512MiB``."""
    power = next(power for power in (4, 3, 2, 1, 0) if size % 1024**power == 0) if size else 0
    return f"{size // 1024**power}{('', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def parse_limits(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """``NAME=NUMBER`` of each, where a number may be a size."""
    limits = {}
    for text in values:
        name, equals, number = text.partition("=")
        if not equals:
            example = "depth=16" if param.name == "message_limits" else "nofile=256"
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, such as {example}.")
        try:
            limits[name] = parse_size(number)
        except ValueError as error:
            raise click.BadParameter(f"{name}: {error}") from error
    return limits


def _parse_json_object(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dict[str, Any]:
    return {} if value is None else _json_object(value)


def parse_kwargs(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, dict[str, Any]]:
    """``JSON`` or ``NAME=JSON`` of each, by name; the default environment's by None."""
    found: dict[str | None, dict[str, Any]] = {}
    for text in values:
        name, equals, value = (None, "", text) if text.lstrip().startswith("{") else text.partition("=")
        if name is not None and not equals:
            name, value = None, text
        if name in found:
            raise click.BadParameter(f"{text!r} is the second of {'the same' if name is None else repr(name)}.")
        found[name] = _json_object(value)
    return found


def _json_object(value: str) -> dict[str, Any]:
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise click.BadParameter(f'{value!r} is not a JSON object; use one such as {{"difficulty": 2}}')
    return dict(parsed)


def address_argument(command: Decorated) -> Decorated:
    """``ADDRESS``, as a url and a port."""
    return click.argument("address", metavar="HOST:PORT", callback=_parse_address)(command)


def kwargs_option(command: Decorated) -> Decorated:
    """``--kwargs``, as a dict; empty without it."""
    text = "Keyword arguments for the environment."
    return flag(ENVIRONMENT, "--kwargs", metavar="JSON", callback=_parse_json_object, help=text)(command)


def certs_option(group: str, files: str) -> Callable[[Decorated], Decorated]:
    """``--certs``, or the environment variable for it."""
    return flag(
        group,
        "--certs",
        metavar="FOLDER",
        envvar=CERTS_VARIABLE,
        help=f"Folder that 'remote-gym certs init' made, with {files}. It stands for the three flags below. Without "
        f"any of them the environment variable {CERTS_VARIABLE} counts.",
    )


def client_tls_options(command: Decorated) -> Decorated:
    """``--certs``, ``--ca``, ``--certificate`` and ``--key`` of a client, given to the command as ``tls``."""

    @functools.wraps(command)
    def with_tls(*args: Any, **params: Any) -> Any:
        files = {name: params.pop(name) for name in ("certs", "certificate", "key", "ca")}
        return command(*args, tls=tls_files(click.get_current_context(), files, "client"), **params)

    decorated: Any = with_tls
    for option in (
        flag(CONNECTION, "--key", type=FILE, help="Private key of this client."),
        flag(
            CONNECTION,
            "--certificate",
            type=FILE,
            help=f"Certificate of this client. A server with tokens needs none: set {TOKEN_VARIABLE} to one.",
        ),
        flag(CONNECTION, "--ca", type=FILE, help="Certificate authority that the server's certificate comes from."),
        certs_option(CONNECTION, "ca.pem and, where the server asks for them, client.pem and client-key.pem"),
    ):
        decorated = option(decorated)
    return cast("Decorated", decorated)


def insecure_option(command: Decorated) -> Decorated:
    """``--allow-insecure`` of a client."""
    text = "Connect to another machine without certificates."
    return flag(CONNECTION, "--allow-insecure", is_flag=True, help=text)(command)


def server_name_option(command: Decorated) -> Decorated:
    """``--server-name`` of a client."""
    text = "The server's, where HOST:PORT is a hub's or a tunnel's; its certificate has to hold it."
    return flag(CONNECTION, "--server-name", metavar="NAME", help=text)(command)


def connection_options(command: Decorated) -> Decorated:
    """``--connection``, ``--server-name`` and ``--allow-insecure`` of a client."""
    return flag(
        CONNECTION,
        "--connection",
        type=click.Choice(["auto", "direct", "grpc"]),
        default="auto",
        help="Whether to connect to the environment's worker directly: where possible (auto), always (direct), or "
        "never (grpc).",
    )(server_name_option(insecure_option(command)))


def encoding_options(command: Decorated) -> Decorated:
    """``--frame-encoding`` and ``--observation-encoding`` of a client."""
    for option in (
        flag(
            CONNECTION,
            "--observation-encoding",
            type=click.Choice(["auto", "raw", "zstd"]),
            default="auto",
            help="How large observations travel.",
        ),
        flag(
            CONNECTION,
            "--frame-encoding",
            type=click.Choice(["auto", "raw", "zstd", "jpeg"]),
            default="auto",
            help="How images travel.",
        ),
    ):
        command = option(command)
    return command


def verbose_option(command: Decorated) -> Decorated:
    """``--verbose``, for `is_verbose`."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.meta[__name__] = value

    option = flag(
        OTHERS,
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show whole tracebacks, those of the remote environment too.",
    )
    return option(command)


def is_verbose(ctx: click.Context) -> bool:
    """Whether the command that ran was given ``--verbose``."""
    return bool(ctx.meta.get(__name__))


@contextlib.contextmanager
def progress(iterable: Iterable[T], length: int, label: str) -> Iterator[Iterable[T]]:
    """Show a bar while something is iterated; nothing where nobody looks."""
    if not sys.stdout.isatty():
        yield iterable
        return
    with click.progressbar(iterable, length=length, label=label) as bar:
        yield bar


def session_options(command: Decorated) -> Decorated:
    """``--environment`` and ``--kwargs``: what to open at a server."""
    text = "Which of the environments that the server offers by name."
    return flag(ENVIRONMENT, "--environment", metavar="NAME", help=text)(kwargs_option(command))


def remote_args(environment: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Values of `session_options`, as ``remote_args`` of a client."""
    return {"environment": environment, "entrypoint_kwargs": kwargs}


def parse_numbers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> list[int | str] | None:
    """Numbers such as ``0-3,8`` as a list; what is no number, as a device's UUID, is left as it is.

    Raises:
        click.BadParameter: If a range is none.
    """
    if text is None:
        return None
    found: list[int | str] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            if int(first) > int(last) or int(last) - int(first) > _LONGEST_RANGE:
                raise click.BadParameter(f"{part!r} is no range; use two numbers, the lower first, such as 0-3")
            found += range(int(first), int(last) + 1)
        else:
            found.append(int(part) if part.strip().isdecimal() else part.strip())
    return found


def parse_variables(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Environment variables by name. One without a value has that of this process, as with ``docker run --env``.

    Raises:
        click.BadParameter: If this process has none of that name.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and name not in os.environ:
            raise click.BadParameter(f"{name!r} is not set here; set it, or use NAME=VALUE")
        found[name] = value if equals else os.environ[name]
    return found
