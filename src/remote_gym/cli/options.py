"""What several commands take."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import click

from remote_gym.address import parse_address
from remote_gym.config import TOKEN_VARIABLE

Command = TypeVar("Command", bound=Callable[..., Any])

T = TypeVar("T")

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


def size_or_none(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, for an option that need not be given."""
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def parse_limits(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """``NAME=NUMBER`` of each, where a number may be a size."""
    limits = {}
    for text in values:
        name, _, number = text.partition("=")
        try:
            limits[name] = parse_size(number)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, such as nofile=256 or as=4GiB: {error}") from error
    return limits


def _parse_json_object(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise click.BadParameter(f'{value!r} is not a JSON object; use one such as {{"difficulty": 2}}')
    return parsed


def address_argument(command: Command) -> Command:
    """``ADDRESS``, as a url and a port."""
    return click.argument("address", metavar="HOST:PORT", callback=_parse_address)(command)


def kwargs_option(command: Command) -> Command:
    """``--kwargs``, as a dict; empty without it."""
    return click.option(
        "--kwargs", metavar="JSON", callback=_parse_json_object, help="Keyword arguments for the environment."
    )(command)


def client_tls_options(command: Command) -> Command:
    """``--ca``, ``--certificate`` and ``--key`` of a client."""
    for option in (
        click.option("--key", type=FILE, help="This client's private key."),
        click.option(
            "--certificate",
            type=FILE,
            help=f"This client's certificate. A server with tokens needs none: set {TOKEN_VARIABLE} to one.",
        ),
        click.option("--ca", type=FILE, help="The certificate authority that the server's certificate comes from."),
    ):
        command = option(command)
    return command


def connection_options(command: Command) -> Command:
    """``--connection`` and ``--allow-insecure`` of a client."""
    for option in (
        click.option("--allow-insecure", is_flag=True, help="Connect to another machine without certificates."),
        click.option(
            "--connection",
            type=click.Choice(["auto", "direct", "grpc"]),
            default="auto",
            help="Whether to connect to the environment's worker directly: if it can be had, in any case, or never.",
        ),
    ):
        command = option(command)
    return command


def encoding_options(command: Command) -> Command:
    """``--frame-encoding`` and ``--observation-encoding`` of a client."""
    for option in (
        click.option(
            "--observation-encoding",
            type=click.Choice(["auto", "raw", "zstd"]),
            default="auto",
            help="How large observations travel.",
        ),
        click.option(
            "--frame-encoding",
            type=click.Choice(["auto", "raw", "zstd", "jpeg"]),
            default="auto",
            help="How images travel.",
        ),
    ):
        command = option(command)
    return command


def verbose_option(command: Command) -> Command:
    """``--verbose``, for `is_verbose`."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.meta[__name__] = value

    option = click.option(
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


def session_options(command: Command) -> Command:
    """``--environment`` and ``--kwargs``: what to open at a server."""
    named = click.option("--environment", metavar="NAME", help="Which of the environments that the server offers.")
    return named(kwargs_option(command))


def remote_args(environment: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What `session_options` gave, as ``remote_args`` of a client."""
    return {"environment": environment, "entrypoint_kwargs": kwargs}


def client_credentials(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> tuple[Path | None, Path | None, Path | None] | None:
    """What `client_tls_options` gave, as ``client_credentials_paths``; None for none of them."""
    check_pair(certificate, key)
    return (ca, certificate, key) if ca or certificate or key else None


def check_pair(certificate: Path | None, key: Path | None) -> None:
    """Refuse ``--certificate`` without ``--key``, and the other way round.

    Raises:
        click.UsageError: Naming the flag that is missing.
    """
    if certificate and not key:
        raise click.UsageError(f"--certificate {certificate} needs --key, the private key that belongs to it.")
    if key and not certificate:
        raise click.UsageError(f"--key {key} needs --certificate, the certificate that it belongs to.")
