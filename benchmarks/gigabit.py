"""Images of 640 by 480 pixels through a link of 1 Gbit/s: two network namespaces, joined by devices of that rate.

    sudo python benchmarks/gigabit.py

Needs root, and Linux's ``ip`` and ``tc``. The pictures are noise, which nothing compresses.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from remote_gym import RemoteEnvironment
from remote_gym.certs import create_all

PEERS = Path(__file__).with_name("peers")
SERVER, CLIENT = "10.213.77.1", "10.213.77.2"
RATE = "1gbit"
FRAME_BYTES = 640 * 480 * 3
FRAMES_A_SECOND = 30
SECONDS = 6.0


def main() -> None:
    """Lay the link, serve at one end, and run this script again at the other."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        create_all(Path(folder), ["localhost", SERVER], force=True)
        server, client = stack.enter_context(link())
        job = {
            "credentials": [f"{folder}/{name}.pem" for name in ("server", "server-key", "ca")],
            "options": {},
            "host": SERVER,
        }
        command = ["ip", "netns", "exec", server, sys.executable, str(PEERS / "ours.py"), "serve", json.dumps(job)]
        serving = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert serving.stdout is not None
        port = json.loads(serving.stdout.readline())["port"]
        subprocess.run(["ip", "netns", "exec", client, sys.executable, __file__, folder, str(port)], check=True)
        assert serving.stdin is not None
        serving.stdin.close()


@contextlib.contextmanager
def link() -> Iterator[tuple[str, str]]:
    """The names of two namespaces between which every byte waits its turn."""
    names = tuple(f"remote-gym-{end}-{os.getpid()}" for end in ("server", "client"))
    devices = "rg-server", "rg-client"
    with contextlib.ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
        run("ip", "link", "add", devices[0], "netns", names[0], "type", "veth", "peer", devices[1], "netns", names[1])
        for name, device, address in zip(names, devices, (SERVER, CLIENT), strict=True):
            inside = ("ip", "netns", "exec", name)
            run(*inside, "ip", "address", "add", f"{address}/24", "dev", device)
            for each in (device, "lo"):
                run(*inside, "ip", "link", "set", each, "up")
            shaping = ("tbf", "rate", RATE, "burst", "256kb", "latency", "50ms")
            run(*inside, "tc", "qdisc", "add", "dev", device, "root", *shaping)
        yield names[0], names[1]


def run(*command: str) -> None:
    """Run a command of the system's."""
    subprocess.run(command, check=True)


def measure(folder: str, port: int) -> None:
    """Step at full speed, then 30 times a second."""
    files = f"{folder}/ca.pem", f"{folder}/client.pem", f"{folder}/client-key.pem"
    for connection, encoding in (("direct", "raw"), ("direct", "auto"), ("grpc", "raw")):
        options: dict[str, Any] = {"connection": connection, "observation_encoding": encoding}
        arguments = {"entrypoint_kwargs": {"workload": "vga"}}
        with contextlib.closing(RemoteEnvironment(SERVER, port, arguments, files, **options)) as environment:
            environment.reset(seed=1)
            rate, _ = step_for(environment, 0.0)
            _, times = step_for(environment, 1 / FRAMES_A_SECOND)
        late = sum(seconds > 1 / FRAMES_A_SECOND for seconds in times)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        print(
            f"{connection}, {encoding}: at most {rate:.0f} a second, {rate * FRAME_BYTES * 8 / 1e6:.0f} Mbit/s; "
            f"at {FRAMES_A_SECOND} a second {p50:.1f} ms each, p99 {p99:.1f} ms, {late} of {len(times)} too late",
            flush=True,
        )


def step_for(environment: Any, every: float) -> tuple[float, list[float]]:
    """Steps in a second, and the seconds that each took, where one begins `every` so many seconds."""
    begin = time.perf_counter()
    times: list[float] = []
    while (now := time.perf_counter()) < begin + SECONDS:
        environment.step(0)
        times.append(time.perf_counter() - now)
        time.sleep(max(0.0, now + every - time.perf_counter()))
    return len(times) / (time.perf_counter() - begin), times


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        measure(sys.argv[1], int(sys.argv[2]))
