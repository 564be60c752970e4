"""Ends that vanish: killed, or behind a network that drops everything without a word."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from network import Network, NoNetwork, network
from processes import descendants, family, is_alive
from remote_gym.certs import create_all
from served import Served, served
from waiting import scaled, wait_until

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

LEASE = 4.0
"""Seconds: long enough for a silence to be noticed within it, so that both count."""

BY_EITHER = pytest.mark.parametrize("connection", ["direct", "grpc"])

CLIENT = """
import logging, sys, time
from environments import ACTION
from remote_gym import RemoteEnvironment
logging.basicConfig(stream=sys.stdout, format="%(message)s")
url, port, connection, certificates, what = sys.argv[1:]
files = tuple(f"{certificates}/{name}" for name in ("ca.pem", "client.pem", "client-key.pem"))
environment = RemoteEnvironment(url, int(port), connection=connection, client_credentials_paths=files)
environment.reset()
environment.step(ACTION["step"])
print("ready", flush=True)
while what == "step":
    environment.step(ACTION["step"])
if what == "hang":
    environment.step(ACTION["hang"])
time.sleep(600)
"""

AWAITING = """
import asyncio, logging, sys
from environments import ACTION
from remote_gym import AsyncRemoteEnvironment
logging.basicConfig(stream=sys.stdout, format="%(message)s")
url, port, connection, certificates, what = sys.argv[1:]
files = tuple(f"{certificates}/{name}" for name in ("ca.pem", "client.pem", "client-key.pem"))
async def main():
    environment = AsyncRemoteEnvironment(url, int(port), connection=connection, client_credentials_paths=files)
    await environment.reset()
    await environment.step(ACTION["step"])
    print("ready", flush=True)
    while what == "step":
        await environment.step(ACTION["step"])
    if what == "hang":
        await environment.step(ACTION["hang"])
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def net() -> Iterator[Network]:
    try:
        with network() as made:
            yield made
    except NoNetwork as error:
        pytest.skip(f"no network of our own here: {error}")


@pytest.fixture
def files(tmp_path) -> Path:
    create_all(tmp_path, ["10.213.1.2", "localhost"])
    return tmp_path


def serve(files: Path, url: str, prefix: Sequence[str] = ()):
    certificates = ("--certificate", files / "server.pem", "--key", files / "server-key.pem", "--ca", files / "ca.pem")
    arguments = ("--entrypoint", "environments.py", "--url", url, "--port", 0, "--lease", LEASE, "--close-timeout", 0.5)
    return served(*arguments, *certificates, prefix=prefix)


def start_client(
    files: Path,
    server: Served,
    url: str,
    connection: str,
    what: str,
    prefix: Sequence[str] = (),
    script: str = CLIENT,
) -> subprocess.Popen[str]:
    arguments = [url, str(server.port), connection, str(files), what]
    process = subprocess.Popen([*prefix, sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for_its_worker_to_go(server: Served) -> float:
    """Seconds that it took; at first there are a forkserver and a worker."""
    before = time.monotonic()
    assert len(family(server.process.pid)) == 2
    wait_until(lambda: len(family(server.process.pid)) == 1, timeout=LEASE + 30.0)
    return time.monotonic() - before


@BY_EITHER
@pytest.mark.parametrize("what", ["idle", "step", "hang"])
def test_a_killed_clients_worker_is_gone_with_its_lease(files, connection, what):
    with serve(files, "localhost") as server, start_client(files, server, "localhost", connection, what) as client:
        client.kill()
        seconds = wait_for_its_worker_to_go(server)
    print(f"client killed while it was to {what}, {connection}: worker gone after {seconds:.2f} s, lease {LEASE:g} s")
    assert LEASE <= seconds < LEASE + scaled(5.0)


@BY_EITHER
@pytest.mark.parametrize(
    ("what", "script"),
    [("idle", CLIENT), ("step", CLIENT), ("hang", CLIENT), ("idle", AWAITING), ("step", AWAITING)],
)
def test_a_silent_clients_worker_is_gone_five_seconds_after_its_lease_at_most(net, files, connection, what, script):
    with (
        serve(files, net.server_address, net.server) as server,
        start_client(files, server, net.server_address, connection, what, net.client, script) as client,
    ):
        net.fall_silent()
        seconds = wait_for_its_worker_to_go(server)
        client.kill()
    print(f"client silent while it was to {what}, {connection}: worker gone after {seconds:.2f} s, lease {LEASE:g} s")
    assert LEASE - 0.5 <= seconds < LEASE + scaled(5.0)


@BY_EITHER
@pytest.mark.parametrize("script", [CLIENT, AWAITING], ids=["blocking", "awaiting"])
@pytest.mark.parametrize("what", ["step", "hang"])
def test_a_client_notices_a_silent_server_within_ten_seconds_amid_a_step(net, files, connection, what, script):
    with (
        serve(files, net.server_address, net.server) as server,
        start_client(files, server, net.server_address, connection, what, net.client, script) as client,
    ):
        if what == "hang":
            time.sleep(1.0)  # so that its step is under way, and nothing on the way
        net.fall_silent()
        before = time.monotonic()
        assert client.stdout is not None
        assert "trying to resume" in client.stdout.readline()
        seconds = time.monotonic() - before
        workers = descendants(server.process.pid)
        client.kill()
    print(f"server silent amid a {what}, {connection}: the client noticed after {seconds:.2f} s")
    assert seconds < scaled(10.0)
    wait_until(lambda: not any(map(is_alive, workers)))
