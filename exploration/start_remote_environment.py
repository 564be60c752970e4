"""Serve the environment of remote_environment_entrypoint.py; stopped by Ctrl-C.

For mutual TLS give all of ``--server_certificate``, ``--server_private_key`` and ``--root_certificate``, which
``remote-gym certs init`` makes; without them it serves this machine only.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from pathlib import Path

from remote_gym import TlsFiles, create_remote_environment_server

FOLDER = Path(__file__).resolve().parent


def resolved(path: str) -> Path:
    """The absolute path, which stays right when the working directory changes."""
    return Path(path).resolve()


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-u", "--url", default="localhost", help="name or address to listen on")
    parser.add_argument("-p", "--port", type=int, default=56789, help="port; 0 picks a free one")
    parser.add_argument("--use_thread", action="store_true", help="run environments in threads, not in processes")
    parser.add_argument("--server_certificate", type=resolved, help="PEM file")
    parser.add_argument("--server_private_key", type=resolved, help="PEM file")
    parser.add_argument("--root_certificate", type=resolved, help="PEM file; only its clients may connect")
    return parser.parse_args()


def main() -> None:
    """Serve until interrupted."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO)
    os.chdir(FOLDER)  # where the server looks for the entrypoint
    files = None
    if arguments.server_certificate is not None:
        files = TlsFiles(
            certificate=arguments.server_certificate,
            private_key=arguments.server_private_key,
            ca=arguments.root_certificate,
        )
    server = create_remote_environment_server(
        default_args={
            "entrypoint": "remote_environment_entrypoint.py",
            "entrypoint_kwargs": {"env": "Acrobot-v1"},
        },
        url=arguments.url,
        port=arguments.port,
        tls=files,
        use_thread=arguments.use_thread,
    )
    print(f"Serving at {server.address}", flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.wait_for_termination()


if __name__ == "__main__":
    main()
