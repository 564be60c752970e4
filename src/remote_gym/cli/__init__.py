"""The command ``remote-gym``: its modules parse, call and print, and leave everything else to the package."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from remote_gym.errors import RemoteGymError

_COMMANDS = ("demo", "serve", "play", "certs", "doctor")


class _Commands(click.Group):
    """Imports a command when it is asked for, and shows our own errors as messages, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        # Recording starts ffmpeg, for which Python forks, and gRPC, loaded by then, would write a remark about that.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            return super().invoke(ctx)
        except RemoteGymError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="remote-gym")
def main() -> None:
    """Host Gymnasium environments on one machine and use them from another as if they were local."""
