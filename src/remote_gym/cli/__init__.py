"""The command ``remote-gym``: its modules parse, call and print, and leave everything else to the package."""

from __future__ import annotations

from typing import Any

import click

from remote_gym.cli.certs import certs
from remote_gym.cli.demo import demo
from remote_gym.cli.doctor import doctor
from remote_gym.cli.play import play
from remote_gym.cli.serve import serve
from remote_gym.errors import RemoteGymError


class _Commands(click.Group):
    """Shows our own errors as messages, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RemoteGymError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="remote-gym")
def main() -> None:
    """Host Gymnasium environments on one machine and use them from another as if they were local."""


for _command in (demo, serve, play, certs, doctor):
    main.add_command(_command)
