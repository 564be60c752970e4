"""``remote-gym servers``: the servers of this user on this machine."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict
from pathlib import Path

import click

from remote_gym.cli.command import COUNT, OTHERS, Group, Number, flag
from remote_gym.errors import ConfigError
from remote_gym.ipc.running import RunningServer, running_servers, unbelieved_folders
from remote_gym.logs import printable
from remote_gym.logs.tail import last_lines

INTERVAL = 0.05
"""Seconds between two looks whether a server has ended."""

STOPPING = "Stopping"


@click.group(cls=Group, invoke_without_command=True, short_help="List, stop and read the logs of your servers here.")
@flag(OTHERS, "--json", "as_json", is_flag=True, help="List them as JSON.")
@click.pass_context
def servers(ctx: click.Context, /, as_json: bool) -> None:
    """List the servers that you run on this machine, by serve or by launch."""
    if ctx.invoked_subcommand is not None:
        return
    found = running_servers()
    for folder in unbelieved_folders():
        click.echo(printable(f"Note: servers may run that are not listed: {folder}."), err=True)
    if as_json:
        listed = [{"pid": each.owner.pid, **{**asdict(each), "owner": str(each.owner)}} for each in found]
        click.echo(json.dumps(listed, indent=2))
        return
    if not found:
        click.echo("None of yours runs on this machine.")
    for each in found:
        click.echo(_line(each))


@servers.command(short_help="Stop one of them, or all.")
@click.argument("which", metavar="[PID|all]", required=False)
@flag(
    STOPPING,
    "--timeout",
    type=Number(float, 0.0, "seconds"),
    default=30.0,
    help="Seconds to wait for their end.",
)
def stop(which: str | None, timeout: float) -> None:
    """Stop a server in order, as Ctrl-C does where it was started, and wait for its end.

    With a drain timeout running episodes may end first, unless it is stopped again. PID may be left out where only one
    runs.
    """
    chosen = running_servers() if which == "all" else [_one(which)]
    asked = [each for each in chosen if each.owner.signal(signal.SIGTERM)]
    deadline = time.monotonic() + timeout
    while (left := [each for each in asked if not each.owner.is_dead()]) and time.monotonic() < deadline:
        time.sleep(INTERVAL)
    for each in asked:
        if each not in left:
            click.echo(f"Stopped {each.owner.pid}.")
    if not asked:
        click.echo("None of yours runs on this machine.")
    if left:
        pids = ", ".join(str(each.owner.pid) for each in left)
        raise click.ClickException(
            f"{pids} has not ended within {timeout:g} s: environments are closing, or episodes may yet end. Stopped "
            "again it hurries."
        )


@servers.command(short_help="Print the last lines of a server's log.")
@click.argument("pid", required=False)
@flag(OTHERS, "-n", "--lines", type=COUNT, default=100, help="How many.")
def logs(pid: str | None, lines: int) -> None:
    """Print the last lines that a server has logged. PID may be left out where only one runs."""
    server = _one(pid)
    if server.log is None:
        raise ConfigError(
            f"server {server.owner.pid} logs to no file, but to the terminal or program that started it; start it as "
            "in 'remote-gym serve ... 2> FILE'"
        )
    if not Path(server.log).exists():
        raise ConfigError(f"{printable(server.log)}, the log of server {server.owner.pid}, has been removed")
    click.echo(last_lines(Path(server.log), lines))


def _one(pid: str | None) -> RunningServer:
    """The server of that process id, or the only one.

    Raises:
        ConfigError: If there is none, or not one alone.
    """
    found = running_servers()
    chosen = [each for each in found if pid in (None, str(each.owner.pid))]
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        raise ConfigError("none of your servers runs on this machine")
    pids = ", ".join(str(each.owner.pid) for each in found)
    if pid is None:
        raise ConfigError(f"{len(found)} servers run here; say which: {pids}")
    raise ConfigError(f"no server of yours has the process id {pid!r}; there is {pids}")


def _line(server: RunningServer) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(server.since))
    offered = ", ".join(server.environments) or "nothing"
    return printable(f"{server.owner.pid}  {server.command}  {server.address}  since {began}  {offered}")
