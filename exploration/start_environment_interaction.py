"""Play 100 episodes at random in the environment that start_remote_environment.py serves.

For mutual TLS give all of ``--root_certificate``, ``--client_certificate`` and ``--client_private_key``, which
``remote-gym certs init`` makes.
"""

from __future__ import annotations

import argparse
import contextlib

import click

from remote_gym import RemoteEnvironment, TlsFiles
from remote_gym.play import play_episodes, summarise

EPISODES = 100


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-u", "--url", default="localhost", help="name or address of the server")
    parser.add_argument("-p", "--port", type=int, default=56789)
    parser.add_argument("--root_certificate", help="PEM file of the authority that the server's certificate is from")
    parser.add_argument("--client_certificate", help="PEM file")
    parser.add_argument("--client_private_key", help="PEM file")
    parser.add_argument("--render_mode", help="human or rgb_array")
    parser.add_argument("--episodes", type=int, default=EPISODES)
    return parser.parse_args()


def main() -> None:
    """Play, and say how it went."""
    arguments = parse_arguments()
    files = None
    if arguments.root_certificate is not None:
        files = TlsFiles(
            ca=arguments.root_certificate,
            certificate=arguments.client_certificate,
            private_key=arguments.client_private_key,
        )
    environment = RemoteEnvironment(
        url=arguments.url,
        port=arguments.port,
        tls=files,
        render_mode=arguments.render_mode,
    )
    with contextlib.closing(environment):
        playing = play_episodes(environment, arguments.episodes)
        with click.progressbar(playing, length=arguments.episodes, label="Episodes") as episodes:
            summary = summarise(list(episodes))
    print(
        f"{summary.episodes} episodes, {summary.steps} steps, mean return {summary.mean_return:g}, "
        f"{summary.steps_per_second:,.0f} steps/s"
    )


if __name__ == "__main__":
    main()
