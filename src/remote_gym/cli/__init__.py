"""The command ``remote-gym``: its modules parse, call and print, and leave everything else to the package."""

from __future__ import annotations

import importlib
import os
import signal
import traceback
from typing import Any

import click

from remote_gym.cli.options import is_verbose
from remote_gym.cli.wording import with_flags
from remote_gym.config import nearest
from remote_gym.errors import RemoteEnvironmentError, RemoteGymError
from remote_gym.logs import get_logger, printable

logger = get_logger(__name__)

TLS_1_3_ONLY = "ECDHE-PSK-CHACHA20-POLY1305"
"""As gRPC's list of ciphers: the list is of TLS 1.2, of which it leaves one that needs a shared secret, and nobody has
one; those of TLS 1.3 are always there. gRPC has no other way to refuse TLS 1.2 before the handshake is over."""

LOGS_ERRORS = f"{__name__}.logs_errors"
"""In a context's ``meta``: errors go to the log, which a program reads, rather than to a terminal."""

LAST_RESORT = 30
"""Seconds that a program has to end once its command has done its work. Closing what was left open may take 10."""

_COMMANDS = ("demo", "serve", "launch", "servers", "hub", "play", "certs", "token", "doctor", "conformance")


HELD = "held"
"""Command that ``launch(at="ssh:HOST")`` runs at that host; people have no use for it."""


class _Commands(click.Group):
    """Imports a command when it is asked for, and shows our own errors as messages, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in (*_COMMANDS, HELD) and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}; {nearest(args[0], _COMMANDS)}")
        if args[0] == "serve" and {"-v", "--verbose"} & set(args):
            # Only gRPC's own log says why it refuses a handshake. Not by default: nobody counts those lines.
            os.environ.setdefault("GRPC_VERBOSITY", "INFO")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == HELD:
            return held
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name != "launch":  # which hands on what it has to a command that may use gRPC, too, and uses none itself
            # What gRPC itself logs of a connection that fails is no help beside our own words; it reads this when
            # loaded. A server's strangers could fill its log by that, and not in the log's format.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE" if cmd_name == "serve" else "ERROR")
            os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", TLS_1_3_ONLY)
            # Recording starts ffmpeg, for which Python forks, and gRPC, loaded by then, would remark on that.
            os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.commands.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (RemoteGymError, click.ClickException) as error:
            if isinstance(error, click.ClickException):
                shown = error
            else:
                shown = click.ClickException(_message(error, verbose=is_verbose(ctx)))
            if LOGS_ERRORS not in ctx.meta:
                raise shown from (None if shown is error else error)
            logger.error("%s", shown.format_message(), event="failed")
            raise SystemExit(shown.exit_code) from error


def _message(error: RemoteGymError, *, verbose: bool) -> str:
    # Line by line: the other end chose part of it, and a terminal may do what control characters say.
    if verbose:
        return "\n".join(map(printable, "".join(traceback.format_exception(error)).rstrip().split("\n")))
    if isinstance(error, RemoteEnvironmentError):
        text = f"the environment raised {error.remote_type}: {error.remote_message} (--verbose shows its traceback)"
    else:
        text = with_flags(str(error))
    return "\n".join(map(printable, text.split("\n")))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="remote-gym")
def main() -> None:
    """Host Gymnasium environments on one machine and use them from another as if they were local."""


@click.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def held(arguments: tuple[str, ...]) -> None:
    """Start or hold a server for a program at another host, which speaks with this command by its standard streams."""
    importlib.import_module("remote_gym.launched.holder").main(list(arguments))


def program() -> None:
    """Run the command as a program, which ends within `LAST_RESORT` seconds after its work, by SIGALRM if need be."""
    try:
        main(prog_name="remote-gym")
    finally:
        if hasattr(signal, "alarm"):
            # gRPC 1.62 has been seen to spin while the interpreter was torn down, when no Python code runs any more.
            # So it is the system that keeps the time.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LAST_RESORT)
