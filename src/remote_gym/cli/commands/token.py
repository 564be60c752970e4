"""``remote-gym token``: let a client be known by a token instead of a certificate."""

from __future__ import annotations

from pathlib import Path

import click

from remote_gym.auth.tokens import add_token
from remote_gym.cli.command import Command, flag


@click.command(cls=Command, short_help="Make a token that a client is known by.")
@click.argument("name")
@flag(
    "Files",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File that the digest is written to, which is the --token-file of a server.",
)
def token(name: str, file: Path) -> None:
    """Make a token for the client NAME, and print it. It is shown only now: the file holds its digest alone.

    Running servers notice the change. A NAME may have several tokens; to end one, delete its line from the file.
    """
    click.echo(add_token(file, name))
    click.echo(
        f"Its client is 'token:{name}' to servers with --token-file {file}, and sets REMOTE_GYM_TOKEN to it.", err=True
    )
