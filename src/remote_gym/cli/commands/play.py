"""``remote-gym play``: play episodes in a server's environment."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import click

from remote_gym.cli.command import COUNT, INTEGER, Command, flag
from remote_gym.cli.options import (
    address_argument,
    client_tls_options,
    connection_options,
    encoding_options,
    remote_args,
    session_options,
    verbose_option,
)
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.config import TlsFiles
from remote_gym.play import Episode, Recording, Step, check_recordable, load_policy, play_episodes, summarise

PLAYING = "Playing"

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class Display:
    """Shows the steps of an episode on a terminal as they come, and each episode's result as it ends.

    Args:
        episodes: How many are to be played.
    """

    INTERVAL = 0.1
    """Seconds between two looks of the line that is overwritten: drawing it may take longer than a step."""

    def __init__(self, episodes: int) -> None:
        self._episodes = episodes
        self._is_live = sys.stdout.isatty()
        self._ended = self._steps = self._width = 0
        self._total_reward = 0.0
        self._shown_at = 0.0

    def show(self, step: Step | None) -> None:
        """Count a step; None begins an episode."""
        if step is None:
            self._steps, self._total_reward = 0, 0.0
        else:
            self._steps += 1
            self._total_reward += float(step.reward)
        if self._is_live and time.monotonic() - self._shown_at >= self.INTERVAL:
            self._shown_at = time.monotonic()
            self._draw(
                f"Episode {self._ended + 1} of {self._episodes}: "
                f"step {self._steps:,}, return {self._total_reward:g} so far"
            )

    def end(self, episode: Episode) -> None:
        """Print what an episode has returned."""
        self.clear()
        self._ended += 1
        click.echo(f"Episode {self._ended}: return {episode.total_reward:g} in {len(episode.step_seconds)} steps")
        # At once, where what reads this is a file or another program, too.
        sys.stdout.flush()

    def clear(self) -> None:
        """Take away the line that is overwritten."""
        if self._width:
            self._draw("")

    def _draw(self, text: str) -> None:
        width, self._width = self._width, max(self._width, len(text))  # before: Ctrl-C may come amid the next line
        click.echo(f"\r{text:<{width}}" + ("" if text else "\r"), nl=False)
        self._width = len(text)


@click.command(cls=Command, short_help="Play episodes in a server's environment.")
@address_argument
@client_tls_options
@connection_options
@encoding_options
@session_options
@flag(
    PLAYING,
    "--policy",
    metavar="MODULE:CALLABLE",
    help="Chooses an action for an observation. Without it actions are random.",
)
@flag(PLAYING, "--episodes", type=COUNT, default=10, help="How many episodes to play.")
@flag(PLAYING, "--seed", type=INTEGER, help="Seed of the first reset, and of random actions.")
@flag(PLAYING, "--render-mode", help="One of rgb_array, human, or another that the environment knows.")
@flag(
    PLAYING, "--record", type=click.Path(dir_okay=False, path_type=Path), help="Write frames to this .gif or .mp4 file."
)
@verbose_option
def play(
    address: tuple[str, int],
    tls: TlsFiles | None,
    environment: str | None,
    kwargs: dict[str, Any],
    policy: str | None,
    episodes: int,
    seed: int | None,
    render_mode: str | None,
    record: Path | None,
    **options: Any,
) -> None:
    """Play episodes in the environment at HOST:PORT, and print what they returned."""
    if record and render_mode not in (None, "rgb_array"):
        raise click.UsageError("--record takes frames of --render-mode rgb_array.")
    if record:
        check_recordable(record)
    chosen = load_policy(policy) if policy else None
    results: list[Episode] = []
    display = Display(episodes)
    # Ctrl-C ends the playing, or the opening, and not the report of what was played.
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.callback(display.clear)
        played = stack.enter_context(
            contextlib.closing(
                RemoteEnvironment(
                    *address,
                    remote_args(environment, kwargs),
                    render_mode="rgb_array" if record else render_mode,
                    tls=tls,
                    frames="step" if record else "auto",
                    **options,
                )
            )
        )
        recording = None
        if record:
            recording = stack.enter_context(Recording(record, float(played.metadata.get("render_fps") or 30)))

        def watch(step: Step | None) -> None:
            if recording is not None:
                recording.add(played.render())
            display.show(step)

        for episode in play_episodes(played, episodes, policy=chosen, seed=seed, watch=watch):
            results.append(episode)
            display.end(episode)
    if results:
        summary = summarise(results)
        click.echo(f"Mean return {summary.mean_return:g}; {summary.steps_per_second:,.0f} steps/s")
    if record and record.exists():
        click.echo(f"Recorded to {record}")
    if len(results) < episodes:
        click.echo(f"Interrupted after {len(results)} of {episodes} episodes.")
        raise SystemExit(INTERRUPTED)
