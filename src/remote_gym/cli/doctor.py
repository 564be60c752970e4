"""``remote-gym doctor``: say what works, what does not, and what would mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from remote_gym.cli.options import (
    address_argument,
    client_credentials,
    client_tls_options,
    remote_args,
    session_options,
)
from remote_gym.client.doctor import examine
from remote_gym.tls import client_files


@click.command()
@address_argument
@client_tls_options
@session_options
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=5.0, help="Seconds for each step.")
def doctor(
    address: tuple[str, int],
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    environment: str | None,
    kwargs: dict[str, Any],
    timeout: float,
) -> None:
    """Take the steps of using the server at HOST:PORT one by one, and name the likely mend of what fails."""
    files = client_files(client_credentials(ca, certificate, key))
    healthy = True
    for check in examine(*address, files, remote_args(environment, kwargs), timeout=timeout):
        healthy = healthy and check.works
        mark = click.style("✓", fg="green") if check.works else click.style("✗", fg="red")
        click.echo(f"{mark} {check.step}: {check.found}")
        if check.mend:
            click.echo(f"  → {check.mend}")
    if not healthy:
        raise SystemExit(1)
