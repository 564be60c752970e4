"""``remote-gym conformance``: see whether a server keeps to the protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import gymnasium as gym

from remote_gym.cli.command import COUNT, OTHERS, Command, Number, flag
from remote_gym.cli.options import (
    address_argument,
    client_tls_options,
    insecure_option,
    is_verbose,
    remote_args,
    server_name_option,
    session_options,
    verbose_option,
)
from remote_gym.config import TlsFiles
from remote_gym.testing.conformance import CHECKS, Verdict, examine_server
from remote_gym.v1 import worker_pb2
from remote_gym.worker.environment.entrypoint import create_environment

COMPARING = "Comparing with an environment here"

_MARKS = {Verdict.PASSED: ("✓", "green"), Verdict.FAILED: ("✗", "red"), Verdict.NOT_APPLICABLE: ("-", "yellow")}


@click.command(cls=Command, short_help="Check that a server keeps to the protocol.")
@address_argument
@client_tls_options
@session_options
@flag(
    COMPARING,
    "--local",
    metavar="FILE|ID",
    help="The same environment here, an entrypoint or a Gymnasium id: the server's is compared with it, bit for bit.",
)
@flag(COMPARING, "--steps", type=COUNT, default=200, help="How many steps to compare then.")
@flag(
    OTHERS,
    "--check",
    "checks",
    multiple=True,
    metavar="NAME",
    type=click.Choice([check.name for check in CHECKS]),
    help="Do this check only. Repeatable; all are done without it.",
)
@flag(
    OTHERS, "--timeout", type=Number(float, 0.001, "seconds"), default=30.0, help="Seconds that each answer may take."
)
@server_name_option
@insecure_option
@verbose_option
def conformance(
    address: tuple[str, int],
    tls: TlsFiles | None,
    environment: str | None,
    kwargs: dict[str, Any],
    local: str | None,
    steps: int,
    checks: tuple[str, ...],
    timeout: float,
    allow_insecure: bool,
    server_name: str | None,
) -> None:
    """Check that the server at HOST:PORT keeps to the protocol: requests run once, errors arrive, strangers do not."""
    # Much is done wrong on purpose, and the client's own log would tell of it.
    logging.getLogger("remote_gym").setLevel(
        logging.DEBUG if is_verbose(click.get_current_context()) else logging.CRITICAL
    )
    outcomes = examine_server(
        *address,
        remote_args(environment, kwargs),
        tls=tls,
        local=None if local is None else _creator(local, kwargs),
        steps=steps,
        checks=checks or None,
        step_timeout=timeout,
        allow_insecure=allow_insecure,
        server_name=server_name,
    )
    counts = dict.fromkeys(Verdict, 0)
    for outcome in outcomes:
        counts[outcome.verdict] += 1
        mark, colour = _MARKS[outcome.verdict]
        click.echo(f"{click.style(mark, fg=colour)} {outcome.check}: {outcome.found}")
    click.echo(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count))
    if counts[Verdict.FAILED]:
        raise SystemExit(1)


def _creator(local: str, kwargs: dict[str, Any]) -> Callable[[], gym.Env[Any, Any]]:
    """Creates the environment as a server does that is given the same name."""
    if not local.endswith(".py"):
        return partial(gym.make, local, **{name: value for name, value in kwargs.items() if name != "id"})
    path = Path(local).resolve()
    launch = worker_pb2.Launch(entrypoint=path.name, root=str(path.parent))

    def create() -> gym.Env[Any, Any]:
        created = create_environment(launch, kwargs, own_process=False).environment
        assert isinstance(created, gym.Env)
        return created

    return create
