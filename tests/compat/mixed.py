"""Let two installations of remote_gym play with each other: mixed.py OTHER_PYTHON.

In both directions, a server of one and a client of the other have to see what the server's own versions see locally.
The nox session ``mixed`` makes the installations.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROLLOUT = Path(__file__).with_name("rollout.py")
ENVIRONMENTS = ("CartPole-v1", "MountainCarContinuous-v0", "FrozenLake-v1", "Blackjack-v1")
TIMEOUT = 120.0
VERSIONS = (
    "import gymnasium, numpy, google.protobuf as p; print(gymnasium.__version__, numpy.__version__, p.__version__)"
)
# Serves until its standard input ends, so that it also ends when we do.
SERVE = """
import sys
from remote_gym import create_remote_environment_server
server = create_remote_environment_server({"entrypoint_kwargs": {"id": sys.argv[1]}}, url="localhost", port=0)
print(server.port, flush=True)
sys.stdin.read()
server.stop().wait(30)
"""


def output(python: str, *arguments: str | Path) -> list[str]:
    """The lines that a Python program prints."""
    # Isolated from this folder and from this installation: each shall find its own.
    command = [python, "-I", *arguments]
    done = subprocess.run(command, check=True, timeout=TIMEOUT, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


@contextlib.contextmanager
def serving(python: str, environment_id: str) -> Iterator[str]:
    """The port of a server of that installation."""
    command = [python, "-I", "-c", SERVE, environment_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            if not port:
                raise SystemExit(f"FAILED: the server of {python} did not start; it says above why")
            yield port
            server.stdin.close()
            if server.wait(TIMEOUT):
                raise SystemExit(f"FAILED: the server of {python} ended with {server.returncode}")
        finally:
            server.kill()


def compare(server: str, client: str, environment_id: str) -> None:
    """Exit with a message if what the client sees is not what the server's versions see locally."""
    local = output(server, ROLLOUT, environment_id)
    with serving(server, environment_id) as port:
        remote = output(client, ROLLOUT, environment_id, port)
    for number, (here, there) in enumerate(zip(local, remote, strict=True)):
        if here != there:
            raise SystemExit(f"FAILED: {environment_id}, answer {number}:\n  local  {here}\n  remote {there}")
    print(f"  {environment_id}: {len(local)} answers are equal", flush=True)


def main(other: str) -> None:
    """Compare in both directions."""
    installations = {python: output(python, "-c", VERSIONS)[0] for python in (sys.executable, other)}
    for server, client in ((sys.executable, other), (other, sys.executable)):
        print(f"gymnasium, numpy, protobuf: server {installations[server]}; client {installations[client]}", flush=True)
        for environment_id in ENVIRONMENTS:
            compare(server, client, environment_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
