"""Play episodes at random in an environment that lives in another Python of this machine.

``python launch_and_play.py entrypoint.py --python /opt/sim/bin/python`` starts a server of this script's own,
which ends with it. That Python needs NumPy and what the environment itself needs.
"""

from __future__ import annotations

import argparse
import json

import remote_gym
from remote_gym.play import play_episodes, summarise


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("environment", help="id, or path of an entrypoint")
    parser.add_argument("--python", help="executable; without, this script's own")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="keyword arguments of the environment, as JSON")
    parser.add_argument("--episodes", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    """Launch, play, and say how it went."""
    arguments = parse_arguments()
    with remote_gym.launch(
        arguments.environment, python=arguments.python, entrypoint_kwargs=arguments.kwargs
    ) as server:
        summary = summarise(list(play_episodes(server.environment(), arguments.episodes)))
    print(f"{summary.episodes} episodes, {summary.steps} steps, mean return {summary.mean_return:g}")


if __name__ == "__main__":
    main()
