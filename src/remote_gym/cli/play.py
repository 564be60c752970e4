"""``remote-gym play``: play episodes in a server's environment."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from remote_gym.cli.options import (
    address_argument,
    client_credentials,
    client_tls_options,
    connection_options,
    encoding_options,
    progress,
    remote_args,
    session_options,
    verbose_option,
)
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.play import Episode, Recording, Step, load_policy, play_episodes, summarise

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@click.command()
@address_argument
@client_tls_options
@connection_options
@encoding_options
@session_options
@click.option("--policy", metavar="MODULE:CALLABLE", help="Chooses an action for an observation; random without it.")
@click.option("--episodes", type=click.IntRange(1), default=10)
@click.option("--seed", type=int, help="Of the first reset, and of random actions.")
@click.option("--render-mode", help="rgb_array, human, or another that the environment knows.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Write frames to a .gif or .mp4 file.")
@verbose_option
def play(
    address: tuple[str, int],
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
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
    chosen = load_policy(policy) if policy else None
    results: list[Episode] = []
    with contextlib.ExitStack() as stack:
        played = stack.enter_context(
            contextlib.closing(
                RemoteEnvironment(
                    *address,
                    remote_args(environment, kwargs),
                    client_credentials(ca, certificate, key),
                    "rgb_array" if record else render_mode,
                    frames="step" if record else "auto",
                    **options,
                )
            )
        )
        recording = None
        if record:
            recording = stack.enter_context(Recording(record, float(played.metadata.get("render_fps") or 30)))

        def watch(_: Step | None) -> None:
            if recording is not None:
                recording.add(played.render())

        episodes_played = play_episodes(played, episodes, policy=chosen, seed=seed, watch=watch)
        # Ctrl-C ends the playing, and not the telling of what was played.
        with contextlib.suppress(KeyboardInterrupt), progress(episodes_played, episodes, "Episodes") as bar:
            results.extend(bar)
    for number, episode in enumerate(results, start=1):
        click.echo(f"Episode {number}: return {episode.total_reward:g} in {len(episode.step_seconds)} steps")
    if results:
        summary = summarise(results)
        click.echo(f"Mean return {summary.mean_return:g}; {summary.steps_per_second:,.0f} steps/s")
    if record and record.exists():
        click.echo(f"Recorded to {record}")
    if len(results) < episodes:
        click.echo(f"Interrupted after {len(results)} of {episodes} episodes.")
        raise SystemExit(INTERRUPTED)
