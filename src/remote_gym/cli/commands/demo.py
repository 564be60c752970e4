"""``remote-gym demo``: see a remote environment at work."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import click

from remote_gym.cli.command import COUNT, INTEGER, Command, flag
from remote_gym.cli.options import progress, verbose_option
from remote_gym.demo import Demonstration, connect, running_server
from remote_gym.play import Summary, check_recordable, summarise

PLAYING = "Playing"


@click.command(cls=Command, short_help="Show a remote environment at work.")
@click.argument("environment_id", metavar="[ENVIRONMENT]", default="Acrobot-v1")
@flag(PLAYING, "--episodes", type=COUNT, default=20, help="How many episodes to play.")
@flag(
    PLAYING,
    "--import",
    "imports",
    metavar="MODULE",
    multiple=True,
    help="Module that registers environments. Repeatable.",
)
@flag(PLAYING, "--seed", type=INTEGER, help="Seed of the first reset, and of random actions.")
@flag(
    PLAYING,
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    default="remote-gym-demo.gif",
    help="File that the last episode is written to, .gif or .mp4.",
)
@verbose_option
def demo(environment_id: str, episodes: int, imports: tuple[str, ...], seed: int | None, record: Path) -> None:
    """Serve ENVIRONMENT, Acrobot-v1 unless named, from a process of its own, and play it over mutual TLS."""
    check_recordable(record)
    with contextlib.ExitStack() as stack:
        click.echo("Making certificates, and starting a server")
        server = stack.enter_context(running_server(environment_id, imports))
        environment, obstacle = connect(server, environment_id)
        stack.enter_context(contextlib.closing(environment))
        click.echo(f"Playing {environment_id} at localhost:{server.port} over mutual TLS")
        if not obstacle and importlib.util.find_spec("imageio") is None:
            obstacle = "Recording needs imageio. pip install 'remote-gym[demo]'"
        demonstration = Demonstration(environment, environment_id, None if obstacle else record)
        playing = demonstration.play(episodes, seed)
        with progress(playing, episodes, "Episodes") as bar:
            summary = summarise(list(bar))
        frame = environment.render()
    _print_table(summary, demonstration.bytes_per_step, None if frame is None else frame.shape)
    click.echo(f"No recording: {obstacle}" if obstacle else f"The last episode: {record.resolve()}")


def _print_table(summary: Summary, bytes_per_step: float, frame_shape: tuple[int, ...] | None) -> None:
    frames = f", a frame of {' x '.join(map(str, frame_shape))} included" if frame_shape else ""
    rows = [
        ("episodes", f"{summary.episodes:,} of {summary.steps:,} steps in all"),
        ("mean return", f"{summary.mean_return:,.1f}"),
        ("steps/s", f"{summary.steps_per_second:,.0f} of the time in reset and step"),
        ("step latency", f"p50 {summary.latency_p50 * 1e3:.2f} ms, p99 {summary.latency_p99 * 1e3:.2f} ms{frames}"),
        ("bytes per step", f"{bytes_per_step:,.0f} in request and response, as encoded"),
    ]
    for name, value in rows:
        click.echo(f"  {name:<16}{value}")
