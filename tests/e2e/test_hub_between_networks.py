"""A client and a server that cannot reach each other, and a hub that both can reach."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubs import RunningHub, running_hub
from network import Network, NoNetwork, network
from remote_gym.certs import create_all
from served import Served, served
from waiting import scaled

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs network namespaces")

NAME = "sim-home"

CLIENT = """
import socket, sys
import gymnasium as gym
import numpy as np
from remote_gym import RemoteEnvironment, TlsFiles

hub, port, server, server_port, folder = sys.argv[1:]
try:
    socket.create_connection((server, int(server_port)), timeout=1.0)
except OSError:
    pass
else:
    raise SystemExit("the server can be reached without a hub")
tls = TlsFiles.from_folder(folder, "client")
local = gym.make("CartPole-v1")
local.action_space.seed(1)
remotes = []
for connection in ("direct", "grpc"):
    remote = RemoteEnvironment(hub, int(port), tls=tls, server_name="sim-home", connection=connection)
    np.testing.assert_array_equal(local.reset(seed=2)[0], remote.reset(seed=2)[0])
    assert remote.connection_info.connected_over == connection
    remotes.append(remote)
for number in range(200):
    if number in (60, 120):  # where each connection has carried steps, and has to be made again
        print("ready", flush=True)
        sys.stdin.readline()
    action = int(local.action_space.sample())
    expected = local.step(action)
    for remote in remotes:
        found = remote.step(action)
        np.testing.assert_array_equal(expected[0], found[0])
        assert expected[1:4] == found[1:4]
    if expected[2] or expected[3]:
        expected = local.reset()
        for remote in remotes:
            np.testing.assert_array_equal(expected[0], remote.reset()[0])
for remote in remotes:
    remote.close()
print("the same", flush=True)
"""

STRANGER = """
import sys
from remote_gym import ConnectError, RemoteEnvironment, TlsFiles

hub, port, authority, folder = sys.argv[1:]
stranger = TlsFiles.from_folder(folder, "client")
tls = TlsFiles(ca=f"{authority}/ca.pem", certificate=stranger.certificate, private_key=stranger.private_key)
for connection in ("direct", "grpc"):
    try:
        RemoteEnvironment(hub, int(port), tls=tls, server_name="sim-home", connection=connection)
    except ConnectError as error:
        assert "certificate" in str(error), error
    else:
        raise SystemExit("a stranger was let in")
print("refused", flush=True)
"""
"""A client that knows the server, and whose own certificate is of another authority."""


@pytest.fixture
def net() -> Iterator[Network]:
    try:
        with network(forwards=False) as made:
            yield made
    except NoNetwork as error:
        pytest.skip(f"no network of our own here: {error}")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    create_all(tmp_path, [NAME, "localhost"], hub_hosts=["10.213.1.1"])
    return tmp_path


def hub_of(net: Network, files: Path, port: int = 0) -> contextlib.AbstractContextManager[RunningHub]:
    return running_hub(files, files / "hub.log", url="0.0.0.0", port=port, prefix=net.router)


def serving(net: Network, files: Path, port: int) -> contextlib.AbstractContextManager[Served]:
    flags = ("--certs", files, "--url", net.server_address, "--port", 0, "--hub", f"{net.router_addresses[0]}:{port}")
    return served("CartPole-v1", *flags, prefix=net.server)


def test_steps_are_those_of_a_local_environment_though_the_hub_dies_amid_them(net, files):
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(hub_of(net, files))
        server = stack.enter_context(serving(net, files, hub.port))
        hub.wait_for(f"server {NAME} has come")
        arguments = [net.router_addresses[1], str(hub.port), net.server_address, str(server.port)]
        client = subprocess.Popen(
            [*net.client, sys.executable, "-c", CLIENT, *arguments, str(files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(client)
        stack.callback(client.kill)
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        hub.process.kill()
        hub.process.wait()
        stack.enter_context(hub_of(net, files, hub.port))
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "ready\n"
        client.stdin.write("\n")
        client.stdin.close()
        assert client.stdout.readline() == "the same\n"
        assert client.wait(scaled(20.0)) == 0


def test_strangers_at_either_end_are_refused_between_networks(net, files, tmp_path_factory):
    strangers = tmp_path_factory.mktemp("strangers")
    create_all(strangers, [NAME, "localhost"])
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(hub_of(net, files))
        stack.enter_context(serving(net, strangers, hub.port))
        hub.wait_for("refused a server")
        assert "has come" not in hub.log.read_text()
        stack.enter_context(serving(net, files, hub.port))
        hub.wait_for(f"server {NAME} has come")
        arguments = [net.router_addresses[1], str(hub.port), str(files), str(strangers)]
        command = [*net.client, sys.executable, "-c", STRANGER, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60.0), check=False)
        assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr
