"""``remote-gym hub``: let clients reach servers that can only dial out."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from remote_gym.cli import LOGS_ERRORS
from remote_gym.cli.command import INTEGER, OTHERS, SECONDS, Command, flag
from remote_gym.cli.options import FILE, Size, certs_option
from remote_gym.cli.tls import tls_files
from remote_gym.cli.wording import LISTENS_ON
from remote_gym.config import HubOptions
from remote_gym.errors import ConfigError
from remote_gym.logs import JsonFormatter, TextFormatter

LISTEN, FILES, BOUNDS = "Where to listen", "Who may register", "Bounds"

_DEFAULTS = HubOptions()


@click.command(cls=Command, short_help="Let clients reach servers that can only dial out.")
@flag(LISTEN, "--url", default="localhost", help="Name or address to listen on.")
@flag(LISTEN, "--port", type=INTEGER, default=56780, help="TCP port; 0 picks a free one.")
@certs_option(FILES, "hub.pem, hub-key.pem and ca.pem")
@flag(FILES, "--certificate", type=FILE, help="Certificate of this hub, which names its host, of a client's usage.")
@flag(FILES, "--key", type=FILE, help="Private key of this hub.")
@flag(FILES, "--ca", type=FILE, help="Authority whose servers may register.")
@flag(BOUNDS, "--max-servers", type=INTEGER, default=_DEFAULTS.max_servers, help="Servers registered at once.")
@flag(
    BOUNDS,
    "--max-connections",
    type=INTEGER,
    default=_DEFAULTS.max_connections,
    help="Connections of clients to one server at once; half of them from one address.",
)
@flag(BOUNDS, "--max-rate", type=Size(), help="Bytes a second of one server's connections together, such as 100MiB.")
@flag(
    BOUNDS,
    "--max-pending",
    type=INTEGER,
    default=_DEFAULTS.max_pending,
    help="Connections at once that have not shown yet what they come for, or wait for one server to dial back.",
)
@flag(
    BOUNDS,
    "--dial-timeout",
    type=SECONDS,
    default=_DEFAULTS.dial_timeout,
    help="Seconds that a server has to dial back for a client.",
)
@flag(OTHERS, "-v", "--verbose", is_flag=True, help="Log more.")
@flag(
    OTHERS,
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Log lines of text, or one JSON object a line.",
)
@click.pass_context
def hub(
    ctx: click.Context, /, url: str, port: int, verbose: bool, log_format: str, max_rate: int | None, **params: Any
) -> None:
    """Carry connections between servers that dial out to here and their clients, until Ctrl-C or SIGTERM.

    Servers are started with serve --hub; clients connect to here, with the server's name as server_name. What they say
    to each other stays encrypted from end to end.
    """
    if sys.platform == "win32":
        raise click.UsageError("A hub does not run on Windows.")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.INFO)
    if log_format == "json":
        ctx.meta[LOGS_ERRORS] = True
    files = tls_files(ctx, {name: params.pop(name) for name in ("certs", "certificate", "key", "ca")}, "hub")
    if files is None:
        raise ConfigError(
            "is missing, and a hub knows servers by their certificates; give the folder that "
            "'remote-gym certs init --hub HOST' made",
            field="tls",
            where="tls",
        )
    from remote_gym.hub.run import Hub, run  # which needs more than Windows has

    def greet(hub: Hub) -> None:
        click.echo(f"{LISTENS_ON}{hub.address}")
        click.echo(f"Open to: servers with a certificate from {files.ca}, and to their clients")
        sys.stdout.flush()

    run(url, port, files, HubOptions(max_rate=max_rate, **params), greet)
    click.echo("Stopped.")
