"""``remote-gym serve``: offer environments to clients."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import click

from remote_gym.cli import LOGS_ERRORS, TLS_1_3_ONLY
from remote_gym.cli.command import Command
from remote_gym.cli.config_file import as_file
from remote_gym.cli.greeting import greeting
from remote_gym.cli.report import report
from remote_gym.cli.serve_flags import serve_flags
from remote_gym.cli.settings import Settings, read_settings
from remote_gym.ipc.running import recorded
from remote_gym.logs import JsonFormatter, TextFormatter
from remote_gym.server.create import create_remote_environment_server
from remote_gym.server.offer import check_offer, names_offered
from remote_gym.server.serve import RemoteEnvironmentServer


@click.command(cls=Command, short_help="Serve environments to other machines.")
@serve_flags
@click.pass_context
def serve(ctx: click.Context, /, verbose: bool, log_format: str, print_config: bool, **params: Any) -> None:
    """Serve an environment, named by its Gymnasium ID or an entrypoint file, until Ctrl-C or SIGTERM.

    With --drain-timeout running episodes may end first, unless the signal comes again. SIGUSR1 has the server print
    what its sessions have done so far.
    """
    if print_config:
        settings = read_settings(ctx, params)
        shown = {**params, "verbose": verbose, "log_format": log_format}
        click.echo(as_file(ctx, shown, settings.offer, settings.unused))
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for talker in ("asyncio", "grpc"):  # which tell of each thread and call that they look at an event loop
        logging.getLogger(talker).setLevel(logging.INFO)
    if log_format == "json":
        ctx.meta[LOGS_ERRORS] = True
    settings = read_settings(ctx, params)
    signal.signal(signal.SIGTERM, _interrupt)
    asked = threading.Event()
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: asked.set())
    _check_offer(settings)
    try:
        with create_remote_environment_server(
            settings.default_args, settings.url, settings.port, tls=settings.tls, options=settings.options
        ) as server:
            # GRPC has read it by now; what environments do by gRPC, with whom, is theirs.
            if os.environ.get("GRPC_SSL_CIPHER_SUITES") == TLS_1_3_ONLY:
                del os.environ["GRPC_SSL_CIPHER_SUITES"]
            default = settings.offer.default or {}
            served = default.get("id") or default.get("entrypoint")
            with recorded("serve", server.address, names_offered(served, settings.options)):
                click.echo("\n".join(greeting(server, served, settings.tls)))
                _run(server, asked)
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _check_offer(settings: Settings) -> None:
    options = settings.options
    offered: list[tuple[str | None, object]] = [*options.environments.items()]
    if settings.default_args is not None:
        offered.insert(0, (None, settings.default_args))
    for name, arguments in offered:
        assert isinstance(arguments, Mapping)
        check_offer(arguments, name, imports=options.imports, own_interpreter=options.interpreter is None)


def _run(server: RemoteEnvironmentServer, asked: threading.Event) -> None:
    """Wait for the server's end, and report when asked; Ctrl-C stops it."""
    try:
        while server.wait_for_termination(1.0):
            if asked.is_set():
                asked.clear()
                click.echo(report(server.sessions()))
    except KeyboardInterrupt:
        # Begun before it is announced, so that one more signal, however soon, ends the drain.
        server.stop()
        try:
            if seconds := server.options.drain_timeout:
                click.echo(
                    f"Stopping: episodes of {server.session_count} sessions have {seconds:g} s to end; again stops at "
                    "once."
                )
            server.wait_for_termination()
        except KeyboardInterrupt:
            server.stop()
            raise
        raise


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
