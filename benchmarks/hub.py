"""The cost of a hub: steps through one beside steps of the same server without, in turn, on this machine.

``PYTHONPATH=ci .venv/bin/python benchmarks/hub.py`` runs it. Rounds take a few hundred steps of each kind of
connection with and without the hub, so that what changes on the machine meanwhile changes for both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from remote_gym import RemoteEnvironment, TlsFiles, create_remote_environment_server
from remote_gym.certs import create_all

NAME = "bench-server"
PEERS = Path(__file__).with_name("peers")
WORKLOADS = ("cartpole", "pixels")
CONNECTIONS: tuple[Literal["direct", "grpc"], ...] = ("direct", "grpc")


@contextlib.contextmanager
def hub(folder: str) -> Iterator[int]:
    """A hub in a process of its own; gives its port."""
    command = [sys.executable, "-m", "remote_gym", "hub", "--port", "0", "--certs", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.terminate()


def block(environment: RemoteEnvironment, steps: int) -> float:
    """Median seconds of a step, of those in a block."""
    action, taken = environment.action_space.sample(), []
    for _ in range(steps):
        begin = time.perf_counter()
        _, _, terminated, truncated, _ = environment.step(action)
        taken.append(time.perf_counter() - begin)
        if terminated or truncated:
            environment.reset()
    return statistics.median(taken)


def measure(environments: dict[bool, RemoteEnvironment], rounds: int, steps: int) -> tuple[float, float, list[float]]:
    """Medians without and with the hub, in microseconds, and the ratio of each round."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for through in (False, True) if number % 2 else (True, False):
            found[through].append(block(environments[through], steps))
    ratios = [with_hub / without for without, with_hub in zip(found[False], found[True], strict=True)]
    return statistics.median(found[False]) * 1e6, statistics.median(found[True]) * 1e6, ratios


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    os.chdir(PEERS)  # an entrypoint has to be below where its server runs
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        create_all(Path(folder), [NAME, "localhost"], hub_hosts=["localhost"])
        port = stack.enter_context(hub(folder))
        server = stack.enter_context(
            create_remote_environment_server(
                "workloads.py", port=0, tls=TlsFiles.from_folder(folder, "server"), hub=f"localhost:{port}"
            )
        )
        client = TlsFiles.from_folder(folder, "client")
        print("| | without, µs | with a hub, µs | times, median | times, quartiles |")
        print("|---|---|---|---|---|")
        for workload in WORKLOADS:
            for connection in CONNECTIONS:
                environments = {}
                for through in (False, True):
                    environment = environments[through] = stack.enter_context(
                        contextlib.closing(
                            RemoteEnvironment(
                                "localhost",
                                port if through else server.port,
                                {"entrypoint_kwargs": {"workload": workload}},
                                tls=client,
                                connection=connection,
                                server_name=NAME if through else None,
                                observation_encoding="raw",
                                connect_timeout=30.0,
                            )
                        )
                    )
                    environment.reset()
                without, through_hub, ratios = measure(environments, asked.rounds, asked.steps)
                low, middle, high = statistics.quantiles(ratios, n=4)
                print(
                    f"| {workload}, {connection} | {without:.0f} | {through_hub:.0f} | {middle:.2f} "
                    f"| {low:.2f} to {high:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
