"""``remote-gym doctor``: say what works, what does not, and what would mend it."""

from __future__ import annotations

import logging
from typing import Any

import click

from remote_gym.cli.command import OTHERS, Command, Number, flag
from remote_gym.cli.options import (
    address_argument,
    client_tls_options,
    connection_options,
    is_verbose,
    remote_args,
    session_options,
    verbose_option,
)
from remote_gym.cli.wording import with_flags
from remote_gym.client.doctor import examine
from remote_gym.config import TlsFiles
from remote_gym.logs import printable


@click.command(cls=Command, short_help="Say what works, what does not, and what would mend it.")
@address_argument
@client_tls_options
@connection_options
@session_options
@flag(OTHERS, "--timeout", type=Number(float, 0.001, "seconds"), default=5.0, help="Seconds that each step may take.")
@verbose_option
def doctor(
    address: tuple[str, int],
    tls: TlsFiles | None,
    environment: str | None,
    kwargs: dict[str, Any],
    **options: Any,
) -> None:
    """Take the steps of using the server at HOST:PORT one by one, and name the likely mend of what fails."""
    # Its own log of what it tries would say the same as the checks, in other words.
    logging.getLogger("remote_gym").setLevel(
        logging.DEBUG if is_verbose(click.get_current_context()) else logging.ERROR
    )
    healthy = True
    for check in examine(*address, tls, remote_args(environment, kwargs), **options):
        healthy = healthy and (check.works or not check.needed)
        mark = click.style("✓", fg="green") if check.works else click.style("✗" if check.needed else "!", fg="red")
        click.echo(f"{mark} {check.step}: {_printable(with_flags(check.found))}")
        if check.mend:
            click.echo(f"  → {with_flags(check.mend)}")
        if check.details and is_verbose(click.get_current_context()):
            click.echo(_printable(check.details))
    if not healthy:
        raise SystemExit(1)


def _printable(text: str) -> str:
    """Text that the server chose part of, safe for a terminal."""
    return "\n".join(map(printable, text.split("\n")))
