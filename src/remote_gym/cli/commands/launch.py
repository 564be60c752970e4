"""``remote-gym launch``: a server for as long as a command runs, or until Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from remote_gym.cli.command import SECONDS, Command, Flag, flag
from remote_gym.cli.config_file import OFFER, SESSIONS, WORKERS
from remote_gym.cli.serve_flags import serve_flags
from remote_gym.cli.settings import read_settings
from remote_gym.client.launching import START_TIMEOUT, LaunchedServer
from remote_gym.client.launching import launch as launch_server
from remote_gym.config import SERVER_VARIABLE
from remote_gym.logs import printable

LAUNCHING = "Launching"

PROGRAM = f"{__name__}.program"
"""Key of a context's `meta`: the words after ``--``."""

NOT_STARTED, NOT_FOUND, SIGNALLED = 126, 127, 128
"""Exit statuses of what cannot be run, and what is added to the number of a signal that ended it, as shells have it."""

LOOK_INTERVAL = 0.5
"""Seconds between two looks whether the server, or the command, has ended."""

_GROUPS = (OFFER, SESSIONS, WORKERS, LAUNCHING)
_ELSEWHERE = {"url": "localhost", "port": 0, "certs": None, "certificate": None, "key": None, "ca": None}
"""Parameters of ``serve`` that launching decides."""


class _Launch(Command):
    """A command with those flags of ``serve`` that say what to serve and how, and another command behind ``--``."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params = [each for each in self.params if not isinstance(each, Flag) or each.group in _GROUPS]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Name the command at the end."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command off before the rest is parsed."""
        ctx.meta[PROGRAM] = []
        if "--" in args:
            split = args.index("--")
            args, ctx.meta[PROGRAM] = args[:split], args[split + 1 :]
            if not ctx.meta[PROGRAM]:
                raise click.UsageError("Say which command to run after '--', such as: -- python train.py", ctx)
            return super().parse_args(ctx, args)
        given = tuple(args)  # parsing takes them off
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            name = error.option_name if isinstance(error, click.NoSuchOption) else None
            end = next((at for at, word in enumerate(given) if name and word.startswith(name)), len(given))
            at = self._command_in(given[:end])
            if at is None or isinstance(error, click.BadParameter):
                raise
            meant = printable(shlex.join(given[at : at + 2]))
            raise click.UsageError(
                f"{error.format_message().rstrip('.')}. The command to run stands behind '--', as in: -- {meant} ...",
                ctx,
            ) from error

    def _command_in(self, given: Sequence[str]) -> int | None:
        """Where a program stands among the words, rather than a flag's value; None if none does."""
        switches = [each for each in self.params if isinstance(each, click.Option) and each.is_flag]
        alone = {name for each in switches for name in (*each.opts, *each.secondary_opts)}
        for at, (before, word) in enumerate(itertools.pairwise(given), start=1):
            is_value = before.startswith("-") and before not in alone
            if not is_value and not word.startswith("-") and shutil.which(word) is not None:
                return at
        return None


@click.command(cls=_Launch, short_help="Serve on this machine for as long as a command runs.")
@flag(
    LAUNCHING,
    "--start-timeout",
    type=SECONDS,
    default=START_TIMEOUT,
    help="Seconds until the server listens, and has tried its environment once.",
)
@flag(
    LAUNCHING,
    "--at",
    metavar="ssh:[USER@]HOST",
    help="Serve at a host that ssh reaches without questions, and that has remote-gym; paths are that host's.",
)
@flag(
    LAUNCHING,
    "--at-python",
    metavar="PYTHON",
    help="Python of that host that has remote-gym, if the command is not in its path.",
)
@serve_flags
@click.pass_context
def launch(ctx: click.Context, /, start_timeout: float, at: str | None, at_python: str | None, **params: Any) -> None:
    """Serve an environment on a Unix socket that only you reach, and end with the command behind --.

    The command finds the server in REMOTE_GYM_SERVER, where RemoteEnvironment() looks: remote-gym launch CartPole-v1 --
    python train.py. The exit status is the command's. Without a command it serves until Ctrl-C or SIGTERM.
    """
    settings = read_settings(ctx, {**_ELSEWHERE, **params})
    program: list[str] = ctx.meta[PROGRAM]
    if settings.default_args is None:
        raise click.UsageError("Say which environment: an ID such as CartPole-v1, or a FILE.py.")
    if program and shutil.which(program[0]) is None:  # before the server takes its time
        is_there = Path(program[0]).exists()
        click.echo(f"Error: {program[0]} {'cannot be executed' if is_there else 'is not there'}", err=True)
        ctx.exit(NOT_STARTED if is_there else NOT_FOUND)
    with (
        _signals() as received,
        launch_server(
            settings.default_args, at=at, at_python=at_python, start_timeout=start_timeout, options=settings.options
        ) as server,
    ):
        status = _run(program, server, received) if program else _serve(server, received)
    ctx.exit(status)


class _Received:
    """Signals that this process was sent: they end what it does, or, while a command runs, go on to that.

    Attributes:
        number: The first that came without a command; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._has_command = False
        self._command: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def run(self, program: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run a command, and return its exit status.

        Raises:
            OSError: If it cannot be started.
        """
        self._has_command = True
        try:
            self._command = subprocess.Popen(program, env=variables)
            for number in self._early:
                self._command.send_signal(number)
            while True:
                # In short waits: a signal that comes just before a long one, or to another thread, does not end it.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self._command.wait(LOOK_INTERVAL)
        finally:
            self._has_command, self._command = False, None

    def take(self, number: int, _frame: object) -> None:
        """Handle a signal."""
        if not self._has_command:
            self.number = self.number or number
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            return  # the terminal has sent it to both
        if self._command is None:
            self._early.append(number)
        else:
            self._command.send_signal(number)


@contextlib.contextmanager
def _signals() -> Iterator[_Received]:
    received = _Received()
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, received.take) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(program: Sequence[str], server: LaunchedServer, received: _Received) -> int:
    """Run a command beside the server, and return its exit status."""
    try:
        status = received.run(program, {**os.environ, SERVER_VARIABLE: server.url})
    except OSError as error:
        click.echo(f"Error: {program[0]} cannot be run: {error.strerror}", err=True)
        return NOT_STARTED
    return status if status >= 0 else SIGNALLED - status


def _serve(server: LaunchedServer, received: _Received) -> int:
    """Wait for Ctrl-C, or for the server's end."""
    click.echo(
        "Connect with:\n\n    from remote_gym import RemoteEnvironment\n\n"
        f'    environment = RemoteEnvironment("{server.url}")\n\n'
        f"or with {SERVER_VARIABLE}={server.url} in the environment variables of a program that names no server.\n"
        f"Its log{'' if server.at is None else ', on that host'}: remote-gym servers logs {server.pid}"
    )
    try:
        while server.is_running:
            time.sleep(LOOK_INTERVAL)
    except KeyboardInterrupt:
        click.echo("Stopped.")
        return 0 if received.number == signal.SIGINT else SIGNALLED + (received.number or 0)
    click.echo(f"The server has ended. The last that it logged:\n{server.log(20)}", err=True)
    return 1
