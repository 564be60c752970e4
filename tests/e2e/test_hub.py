"""Servers that dial out to a hub, and clients that reach them through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import gymnasium as gym
import numpy as np
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import sign
from hubs import RunningHub, running_hub
from remote_gym import (
    AsyncRemoteEnvironment,
    ClientOptions,
    ConfigError,
    ConnectError,
    NotPermitted,
    RemoteEnvironment,
    RemoteVectorEnv,
    TlsFiles,
    create_remote_environment_server,
)
from remote_gym.certs import create_all
from remote_gym.cli import main
from remote_gym.config.tls import HUB
from remote_gym.protocol.hub import REGISTER
from remote_gym.server.serve import RemoteEnvironmentServer
from remote_gym.transport.preamble import write_preamble
from served import served
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers behind a hub need one port")

NAME = "sim-home"
LARGE = """
import gymnasium as gym
import numpy as np

class Large(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (2**24,), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.repeat((np.arange(2**12) % 251).astype(np.uint8), 4096), {}

def create_environment(**kwargs):
    return Large()
"""

BY_EITHER = pytest.mark.parametrize("connection", ["direct", "grpc"])
REGISTERED = f"server {NAME} has come"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    create_all(folder, [NAME, "localhost"], hub_hosts=["127.0.0.1"])
    return folder


@pytest.fixture(scope="module")
def hub(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(files, tmp_path_factory.mktemp("hub") / "log") as running:
        yield running


@contextlib.contextmanager
def serving(files: Path, port: int, **options: Any) -> Iterator[RemoteEnvironmentServer]:
    tls = options.pop("tls", None) or TlsFiles.from_folder(files, "server")
    with create_remote_environment_server(
        "CartPole-v1", port=0, tls=tls, hub=f"127.0.0.1:{port}", check=False, **options
    ) as server:
        yield server


@pytest.fixture(scope="module")
def server(files: Path, hub: RunningHub) -> Iterator[RemoteEnvironmentServer]:
    with serving(files, hub.port) as running:
        hub.wait_for(REGISTERED)
        yield running


def arguments(files: Path, hub: RunningHub, **options: Any) -> dict[str, Any]:
    return {
        "url": "127.0.0.1",
        "port": hub.port,
        "tls": TlsFiles.from_folder(files, "client"),
        "server_name": NAME,
        **options,
    }


def assert_steps_are_those_of(local: gym.Env[Any, Any], remotes: Sequence[gym.Env[Any, Any]], steps: int) -> None:
    """Step all, with the same actions; a step that was doubled, or lost, would set them apart for good."""
    for number in range(steps):
        action = int(local.action_space.sample())
        expected = local.step(action)
        begins_anew = local.reset()[0] if expected[2] or expected[3] else None
        for remote in remotes:
            found = remote.step(action)
            np.testing.assert_array_equal(expected[0], found[0], err_msg=f"step {number}")
            assert expected[1:4] == found[1:4]
            if begins_anew is not None:
                np.testing.assert_array_equal(begins_anew, remote.reset()[0])


@pytest.fixture
def local() -> Iterator[gym.Env[Any, Any]]:
    with contextlib.closing(gym.make("CartPole-v1")) as made:
        made.action_space.seed(3)
        yield made


@BY_EITHER
def test_steps_are_those_of_a_local_environment(files, hub, server, local, connection):
    with contextlib.closing(RemoteEnvironment(**arguments(files, hub, connection=connection))) as remote:
        np.testing.assert_array_equal(local.reset(seed=5)[0], remote.reset(seed=5)[0])
        assert remote.connection_info.connected_over == connection
        assert_steps_are_those_of(local, [remote], 100)


@BY_EITHER
def test_steps_can_be_awaited_through_a_hub(files, hub, server, local, connection):
    async def play() -> None:
        async with AsyncRemoteEnvironment(**arguments(files, hub, connection=connection)) as remote:
            np.testing.assert_array_equal(local.reset(seed=5)[0], (await remote.reset(seed=5))[0])
            for number in range(15):
                action = number % 2
                np.testing.assert_array_equal(local.step(action)[0], (await remote.step(action))[0])
            assert remote.connection_info.connected_over == connection

    asyncio.run(play())


def test_many_environments_come_through_a_hub(files, hub, server):
    with contextlib.closing(RemoteVectorEnv(**arguments(files, hub), num_envs=4, workers=2)) as remote:
        assert remote.reset(seed=1)[0].shape == (4, 4)
        assert remote.step(np.array([0, 1, 0, 1]))[0].shape == (4, 4)
        assert {info.connected_over for info in remote.connection_info} == {"direct"}


@pytest.mark.parametrize("line", ["doctor", "play --episodes 1", "conformance --check changing-connections"])
def test_commands_work_through_a_hub(files, hub, server, line):
    command, *flags = line.split()
    place = [f"127.0.0.1:{hub.port}", "--certs", str(files), "--server-name", NAME]
    result = CliRunner().invoke(main, [command, *place, *flags])
    assert result.exit_code == 0, result.output


def test_health_checks_are_answered_through_a_hub(files, hub, server):
    credentials = grpc.ssl_channel_credentials(
        *((files / name).read_bytes() for name in ("ca.pem", "client-key.pem", "client.pem"))
    )
    named = [("grpc.ssl_target_name_override", NAME)]
    with grpc.secure_channel(f"127.0.0.1:{hub.port}", credentials, options=named) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = check(health_pb2.HealthCheckRequest(), timeout=scaled(10.0), wait_for_ready=True)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.long
def test_large_observations_wait_for_whoever_reads_slowly(files, tmp_path, own_folder):
    """16 MiB, of which a hub holds 64 KiB; and at a rate that has it pause at every turn."""
    (own_folder / "large.py").write_text(LARGE)
    with running_hub(files, tmp_path / "log", "--max-rate", "24MiB") as hub:
        tls = TlsFiles.from_folder(files, "server")
        with create_remote_environment_server("large.py", port=0, tls=tls, hub=f"127.0.0.1:{hub.port}", check=False):
            hub.wait_for(REGISTERED)
            for connection in ("direct", "grpc"):
                remote = RemoteEnvironment(**arguments(files, hub, connection=connection, observation_encoding="raw"))
                with contextlib.closing(remote):
                    observation, _ = remote.reset()
                    assert observation.shape == (2**24,)
                    assert observation[::4096].tolist() == (np.arange(2**12) % 251).tolist()
            status = Path(f"/proc/{hub.process.pid}/status").read_text()
            assert int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) < 120_000


def test_the_server_has_its_own_port_as_well(files, server):
    tls = TlsFiles.from_folder(files, "client")
    with contextlib.closing(RemoteEnvironment("localhost", server.port, tls=tls)) as near:
        near.reset()
    with contextlib.closing(RemoteEnvironment("127.0.0.1", server.port, tls=tls, server_name=NAME)) as near:
        near.reset()  # as through a tunnel, whose host no certificate names
        assert near.connection_info.connected_over == "direct"


def test_the_server_knows_the_address_of_a_client_rather_than_the_hub_s(files, hub, server, caplog):
    with caplog.at_level("INFO"), socket.socket() as stranger:
        stranger.bind(("127.0.0.7", 0))
        stranger.connect(("127.0.0.1", hub.port))
        stranger.sendall(write_preamble(bytes(16), NAME))
        stranger.settimeout(scaled(10.0))
        assert stranger.recv(1) == b""
        # It is told when the connection has been ended.
        wait_until(lambda: "refused a direct" in caplog.text)
    [line] = [record.getMessage() for record in caplog.records if "refused a direct" in record.getMessage()]
    assert "ipv4:127.0.0.7" in line


def test_sessions_survive_the_hub_and_no_step_is_doubled(files, tmp_path, local):
    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running_hub(files, log))
        stack.enter_context(serving(files, first.port))
        first.wait_for(REGISTERED)
        remotes = []
        for connection in ("direct", "grpc"):
            options = {"connection": connection, "reconnect_timeout": scaled(30.0)}
            remotes.append(RemoteEnvironment(**arguments(files, first, **options)))
            stack.enter_context(contextlib.closing(remotes[-1]))
        sessions = [remote.connection_info.session for remote in remotes]
        for environment in (local, *remotes):
            environment.reset(seed=7)
        assert_steps_are_those_of(local, remotes, 30)
        first.process.kill()
        first.process.wait()
        stack.enter_context(running_hub(files, log, port=first.port))
        assert_steps_are_those_of(local, remotes, 30)
        assert [remote.connection_info.session for remote in remotes] == sessions


@pytest.mark.parametrize("kind", ["another authority", "another's name", "a client's", "no name"])
def test_a_stranger_s_server_is_refused(files, hub, server, tmp_path, caplog, kind):
    known = hub.log.read_text().count("has come")
    if kind == "another authority":
        create_all(tmp_path, [NAME, "localhost"])
        (tmp_path / "ca.pem").write_bytes((files / "ca.pem").read_bytes())  # it would trust the hub
        tls = TlsFiles.from_folder(tmp_path, "server")
    else:
        names = {"another's name": [NAME], "a client's": ["sim-other"], "no name": ["localhost"]}[kind]
        made = sign(files, tmp_path, "made", names, profile="client" if kind == "a client's" else "server")
        tls = TlsFiles(ca=files / "ca.pem", certificate=made.certificate, private_key=made.private_key)
    if kind in ("a client's", "no name"):  # which the server says itself, before it dials
        with (
            pytest.raises(ConfigError, match=r"certificate with a name|not made for a server"),
            serving(files, hub.port, tls=tls),
        ):
            pass
    else:
        refused = hub.log.read_text().count("refused a server")
        with caplog.at_level("WARNING"), serving(files, hub.port, tls=tls):
            wait_until(lambda: "not registered at the hub" in caplog.text)
            if kind == "another authority":
                wait_until(lambda: "see that its authority is this server's" in caplog.text)
            hub.wait_for("refused a server", refused + 1)
    assert hub.log.read_text().count("has come") == known
    with contextlib.closing(RemoteEnvironment(**arguments(files, hub))) as remote:
        remote.reset()  # the right one's, which its certificate shows


def test_who_registers_by_a_client_s_certificate_is_refused(files, hub, server, tmp_path):
    """As a server of another make would, which does not look at its own certificate."""
    made = sign(files, tmp_path, "made", ["sim-other"], profile="client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.private_key)
    context.set_alpn_protocols(["remote-gym-hub/1"])
    with socket.create_connection(("127.0.0.1", hub.port), timeout=scaled(10.0)) as sock:
        sock.sendall(REGISTER)
        with pytest.raises(ssl.SSLError), context.wrap_socket(sock, server_side=True) as secure:
            secure.recv(1)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["alice", HUB], "its certificate names alice, and not 127.0.0.1"),
        (["127.0.0.1"], "its certificate is a client's, and no hub's"),
    ],
    ids=["another hub", "a client"],
)
def test_an_impostor_of_the_hub_is_refused(files, tmp_path, caplog, names, said):
    """One with a good certificate of the authority's."""
    made = sign(files, tmp_path, "hub", names, profile="client")
    (tmp_path / "ca.pem").write_bytes((files / "ca.pem").read_bytes())
    assert made.certificate == tmp_path / "hub.pem"
    with running_hub(tmp_path, tmp_path / "log") as impostor, caplog.at_level("INFO"), serving(files, impostor.port):
        wait_until(lambda: said in caplog.text)
        assert REGISTERED not in impostor.log.read_text()


@pytest.mark.parametrize("connection", ["grpc", "direct"])
def test_a_hub_that_was_taken_over_opens_no_session(files, server, connection):
    with pytest.raises(NotPermitted, match="certificate is a hub's"):
        RemoteEnvironment(
            "localhost", server.port, tls=TlsFiles.from_folder(files, "hub"), connection=connection, server_name=NAME
        )


@BY_EITHER
def test_a_stranger_s_client_is_refused_by_the_server(files, hub, server, tmp_path, connection):
    create_all(tmp_path, ["localhost"])
    (tmp_path / "ca.pem").write_bytes((files / "ca.pem").read_bytes())
    tls = TlsFiles.from_folder(tmp_path, "client")
    with pytest.raises(ConnectError, match="certificate"):
        RemoteEnvironment(**arguments(files, hub, tls=tls, connection=connection))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sim-other", "'sim-other' is there now; check server_name, a name of the server's certificate"),
        (None, "'127.0.0.1', the url's since no server_name (--server-name) was given, is there now; give server_name"),
    ],
)
def test_a_server_that_is_not_there_is_named(files, hub, server, name, said):
    with pytest.raises(ConnectError, match=re.escape(f"no server of the name {said}")):
        RemoteEnvironment(**arguments(files, hub, server_name=name, connect_timeout=0.5))


@pytest.mark.long
def test_a_second_server_of_a_name_is_refused_until_the_first_is_dead(files, tmp_path):
    flags = ("--certs", files, "--port", 0, "CartPole-v1", "--hub")
    with running_hub(files, tmp_path / "log") as hub, served(*flags, f"127.0.0.1:{hub.port}") as first:
        hub.wait_for(REGISTERED)
        with served(*flags, f"127.0.0.1:{hub.port}"):
            hub.wait_for(f"it is registered as '{NAME}' already")
            assert hub.log.read_text().count(REGISTERED) == 1
            os.kill(first.process.pid, signal.SIGSTOP)  # as if its network were gone: no system says that it is dead
            hub.wait_for(REGISTERED, 2)
            with contextlib.closing(RemoteEnvironment(**arguments(files, hub))) as remote:
                remote.reset()


def test_a_hub_stops_when_asked_and_says_why_each_is_gone(files, tmp_path):
    with running_hub(files, tmp_path / "log") as hub, serving(files, hub.port):
        hub.wait_for(REGISTERED)
        with contextlib.closing(RemoteEnvironment(**arguments(files, hub))) as remote:
            remote.reset()
            hub.process.terminate()
            assert hub.process.wait(scaled(10.0)) == 0
            assert f"server {NAME} is gone: the hub stops" in hub.log.read_text()
            with running_hub(files, tmp_path / "log", port=hub.port):
                remote.step(0)


def test_a_line_of_the_log_cannot_be_made_up(files, hub, server):
    hello = write_preamble(bytes(16), "x").replace(b"\x01x", b"\x09x\nINFO: y")
    with socket.create_connection(("127.0.0.1", hub.port), timeout=scaled(10.0)) as stranger:
        stranger.sendall(hello)
        assert stranger.recv(1) == b""
    assert "\nINFO: y" not in hub.log.read_text()


def test_what_cannot_be_served_through_a_hub_is_said(files):
    tls = TlsFiles.from_folder(files, "server")
    without_ca = TlsFiles(certificate=files / "server.pem", private_key=files / "server-key.pem")
    for given, options, message in (
        (None, {"hub": "trainer:56780"}, "needs certificates"),
        (without_ca, {"hub": "trainer:56780"}, "with the authority"),
        (tls, {"hub": "trainer"}, "HOST:PORT"),
        (tls, {"hub": "unix:/x"}, "HOST:PORT"),
        (tls, {"hub": 3}, "HOST:PORT"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            create_remote_environment_server("CartPole-v1", port=0, tls=given, check=False, **options)
        assert caught.value.field == "hub"


@pytest.mark.parametrize("name", ["", "Sim", "127.0.0.1", "a b", "a\n", "x" * 300, 3])
def test_what_is_no_server_s_name_is_refused(name):
    with pytest.raises(ConfigError, match=r"ClientOptions\.server_name"):
        ClientOptions(server_name=name)


def test_a_server_s_name_needs_tls():
    with pytest.raises(ConfigError, match="needs TLS"):
        RemoteEnvironment("localhost", 1, server_name=NAME)


def test_silent_strangers_are_ended_and_counted(files, tmp_path):
    with running_hub(files, tmp_path / "log", "--max-pending", 4) as hub:
        strangers = [socket.create_connection(("127.0.0.1", hub.port)) for _ in range(6)]
        begun = time.monotonic()
        for stranger in strangers:
            stranger.settimeout(scaled(20.0))
            assert stranger.recv(1) == b""
            stranger.close()
        assert time.monotonic() - begun < scaled(10.0)
        assert "dropping the oldest" in hub.log.read_text()
        hub.wait_for("it has not said within 5 s", 4)
