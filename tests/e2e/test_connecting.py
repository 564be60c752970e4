"""Whoever cannot connect is told why within the connect deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import remote_gym.client.connect.connection as connection_module
from remote_gym import (
    ConfigError,
    ConnectError,
    NotPermitted,
    ProtocolMismatch,
    RemoteEnvironment,
    RemoteEnvironmentServer,
    ServerFull,
    create_remote_environment_server,
)
from remote_gym.client.connect.diagnosis import Check, diagnose
from remote_gym.protocol.constants import SERVICE_NAME
from remote_gym.testing import loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from tls.conftest import bad_certificates  # noqa: F401 - a fixture
from waiting import scaled

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}


@pytest.fixture(scope="module")
def secure_server(certificates) -> Iterator[RemoteEnvironmentServer]:
    paths = (certificates.server, certificates.server_key, certificates.ca)
    with create_remote_environment_server(CARTPOLE, "localhost", 0, paths, use_thread=True) as server:
        yield server


def connect(server: RemoteEnvironmentServer, paths, **options) -> None:
    before = time.monotonic()
    try:
        RemoteEnvironment("localhost", server.port, client_credentials_paths=paths, **options).close()
    finally:
        assert time.monotonic() - before < scaled(10.5)


def test_certificates_of_the_servers_authority_are_accepted(secure_server, certificates):
    connect(secure_server, (certificates.ca, certificates.client, certificates.client_key))


def test_nobody_listening():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectError, match="nobody listens there"):
            RemoteEnvironment("127.0.0.1", reserved.getsockname()[1], connect_timeout=scaled(1.0))


def test_a_server_that_starts_a_little_later_is_waited_for(monkeypatch):
    refused = threading.Event()

    def note(*arguments: Any, **options: Any) -> list[Check]:
        checks = diagnose(*arguments, **options)
        refused.set()
        return checks

    monkeypatch.setattr(connection_module, "diagnose", note)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    found = []

    def client() -> None:
        environment = RemoteEnvironment("127.0.0.1", port)
        found.append(environment.reset(seed=1))
        environment.close()

    thread = threading.Thread(target=client)
    thread.start()
    assert refused.wait(scaled(10.0))
    with create_remote_environment_server(CARTPOLE, "127.0.0.1", port, use_thread=True):
        thread.join(scaled(30.0))
    assert found


def test_a_silent_server(certificates):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectError, match="does not answer"):
        RemoteEnvironment("127.0.0.1", silent.getsockname()[1], connect_timeout=scaled(2.0))


def test_an_unknown_host():
    with pytest.raises(ConnectError, match="name resolution"):
        RemoteEnvironment("no-such-host.invalid", 1, connect_timeout=scaled(1.0), allow_insecure=True)


def test_a_wrong_authority(secure_server, certificates, bad_certificates):  # noqa: F811
    with pytest.raises(ConnectError, match="certificate authority"):
        connect(secure_server, (bad_certificates.other_ca, certificates.client, certificates.client_key))


def test_no_client_certificate(secure_server, certificates):
    with pytest.raises(ConnectError, match="requires a client certificate, and none is given"):
        connect(secure_server, (certificates.ca, None, None))


@pytest.mark.parametrize("name", ["wrong_ca", "self_signed"])
def test_a_client_certificate_that_the_server_refuses(secure_server, certificates, bad_certificates, name):  # noqa: F811
    files = getattr(bad_certificates, name)
    with pytest.raises(ConnectError, match=r"likely refuses .*from the authority that the server trusts"):
        connect(secure_server, (certificates.ca, files.certificate, files.private_key))


@pytest.mark.parametrize("name", ["expired", "not_yet_valid"])
def test_an_expired_client_certificate(
    secure_server,
    certificates,
    bad_certificates,  # noqa: F811
    name,
):
    files = getattr(bad_certificates, name)
    with pytest.raises(ConnectError, match=r"expired on|is not valid before"):
        connect(secure_server, (certificates.ca, files.certificate, files.private_key))


def test_plaintext_against_tls(secure_server):
    with pytest.raises(ConnectError, match="wants a client certificate, too: give ca, certificate and private key"):
        connect(secure_server, None)


def test_tls_against_plaintext(certificates):
    with create_remote_environment_server(CARTPOLE, "localhost", 0, use_thread=True) as server:
        with pytest.raises(ConnectError, match="does not speak TLS"):
            connect(server, (certificates.ca, certificates.client, certificates.client_key))


def test_a_server_certificate_for_another_name(certificates, tmp_path):
    from remote_gym.certs import create_all

    files = create_all(tmp_path, ["elsewhere.example"])
    paths = (files.server.certificate, files.server.private_key, files.ca.certificate)
    with create_remote_environment_server(CARTPOLE, "localhost", 0, paths, use_thread=True) as server:
        with pytest.raises(ConnectError, match="'localhost' among its hosts"):
            connect(server, (files.ca.certificate, files.client.certificate, files.client.private_key))


def test_another_grpc_server():
    other = grpc.server(_pool())
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with pytest.raises(ConnectError, match="no remote_gym server"):
            RemoteEnvironment("127.0.0.1", port)
    finally:
        other.stop(None).wait(scaled(5.0))


def _pool():
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1)


def test_another_machine_without_certificates_needs_consent():
    with pytest.raises(ConfigError, match="allow_insecure"):
        RemoteEnvironment("192.0.2.1", 56789)
    with pytest.raises(ConfigError, match="allow_insecure"):
        create_remote_environment_server(CARTPOLE, "0.0.0.0", 0)


def test_with_consent_plaintext_works_on_every_address():
    with create_remote_environment_server(CARTPOLE, "0.0.0.0", 0, use_thread=True, allow_insecure=True) as server:
        environment = RemoteEnvironment("127.0.0.1", server.port, allow_insecure=True)
        environment.reset(seed=1)
        environment.close()


def test_a_unix_socket(tmp_path):
    url = f"unix:{tmp_path}/socket"
    with create_remote_environment_server(CARTPOLE, url, use_thread=True) as server:
        assert server.port == 0
        environment = RemoteEnvironment(url)
        environment.reset(seed=1)
        environment.close()


@pytest.mark.parametrize("url", ["::1", "[::1]"])
def test_ipv6(url):
    with create_remote_environment_server(CARTPOLE, url, 0, use_thread=True) as server:
        environment = RemoteEnvironment(url, server.port)
        environment.reset(seed=1)
        environment.close()


def test_a_port_in_use_is_an_error_and_never_shared():
    with create_remote_environment_server(CARTPOLE, "localhost", 0, use_thread=True) as server:
        with pytest.raises(ConfigError, match=f"{server.port}.*in use"):
            create_remote_environment_server(CARTPOLE, "localhost", server.port, use_thread=True)


def test_one_more_than_max_sessions_is_refused_at_once():
    with loopback_server("CartPole-v1", use_thread=True, max_sessions=1) as server:
        first = server.environment()
        with pytest.raises(ServerFull, match="max_sessions of 1"):
            server.environment()
        first.reset()


@pytest.mark.parametrize("argument", ["entrypoint", "repo", "reference"])
def test_a_client_may_not_name_code_to_run(argument):
    with loopback_server("CartPole-v1", use_thread=True) as server:
        with pytest.raises(NotPermitted, match=argument):
            server.environment(remote_args={argument: "x"})
        assert server.server.session_count == 0


def test_a_client_may_not_import_a_module_by_an_id():
    with loopback_server("CartPole-v1", use_thread=True) as server:
        with pytest.raises(NotPermitted, match="antigravity"):
            server.environment(remote_args={"entrypoint_kwargs": {"id": "antigravity:CartPole-v1"}})


def test_an_entrypoint_of_a_client_comes_from_the_folder_that_the_server_names(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "import gymnasium\ndef create_environment(id):\n    return gymnasium.make(id)\n"
    )
    with loopback_server("CartPole-v1", client_entrypoints=tmp_path) as server:
        arguments = {"entrypoint": "theirs.py", "entrypoint_kwargs": {"id": "Acrobot-v1"}}
        assert server.environment(remote_args=arguments).observation_space.shape == (6,)
        for outside in ("../theirs.py", "/etc/passwd"):
            with pytest.raises(ConfigError, match="outside its root"):
                server.environment(remote_args={"entrypoint": outside})


def test_named_environments():
    named = {"pole": CARTPOLE, "robot": {"entrypoint_kwargs": {"id": "Acrobot-v1"}}}
    with loopback_server(None, use_thread=True, environments=named) as server:
        assert server.environment(remote_args={"environment": "robot"}).observation_space.shape == (6,)
        with pytest.raises(ConfigError, match="pole, robot"):
            server.environment(remote_args={"environment": "car"})
        with pytest.raises(ConfigError, match="no default environment"):
            server.environment()


def test_keyword_arguments_of_a_client_are_merged_over_the_servers():
    arguments = {"entrypoint_kwargs": {"id": "FrozenLake-v1", "is_slippery": False, "map_name": "4x4"}}
    with loopback_server(arguments, use_thread=True) as server:
        environment = server.environment(remote_args={"entrypoint_kwargs": {"map_name": "8x8"}})
        assert environment.observation_space.n == 64
        environment.reset(seed=1)
        assert environment.step(2)[4]["prob"] == 1.0


def test_frames_of_an_environment_without_a_render_mode_are_refused_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blind.py").write_text(
        "import gymnasium\ndef create_environment():\n    return gymnasium.make('CartPole-v1')\n"
    )
    with loopback_server({"entrypoint": "blind.py"}) as server:
        with pytest.raises(ConfigError, match="let create_environment take `render_mode`"):
            server.environment(render_mode="rgb_array")
        server.environment().reset()


def test_another_version_of_the_protocol_is_refused_with_both_named(secure_server, certificates):
    with open_channel(secure_server, certificates) as channel:
        request = pb.OpenRequest(protocol_version=99, versions={"remote-gym": "99.0"})
        response = pb.OpenResponse.FromString(
            channel.unary_unary(f"/{SERVICE_NAME}/Open")(request.SerializeToString(), timeout=scaled(5.0))
        )
    assert response.error.kind == pb.ErrorDetail.PROTOCOL_MISMATCH
    assert "99" in response.error.message
    assert "version 1" in response.error.message


def test_a_client_of_another_version_is_told_so(secure_server, certificates, monkeypatch):
    from remote_gym.protocol import open_request

    monkeypatch.setattr(open_request, "PROTOCOL_VERSION", 99)
    with pytest.raises(ProtocolMismatch, match=r"client speaks version 99 .*remote-gym.*server version 1 .*remote-gym"):
        connect(secure_server, (certificates.ca, certificates.client, certificates.client_key))
    assert secure_server.session_count == 0


def test_health_is_served(secure_server, certificates):
    with open_channel(secure_server, certificates) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=scaled(5.0))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_is_off_unless_asked_for():
    pytest.importorskip("grpc_reflection")
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    for reflection in (False, True):
        with (
            create_remote_environment_server(
                CARTPOLE, "localhost", 0, use_thread=True, reflection=reflection
            ) as server,
            grpc.insecure_channel(f"localhost:{server.port}") as channel,
        ):
            call = channel.stream_stream(method)(iter([b":\x00"]), timeout=scaled(5.0))
            if reflection:
                assert SERVICE_NAME.encode() in next(iter(call))
            else:
                with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                    next(iter(call))


def open_channel(server: RemoteEnvironmentServer, certificates) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        certificates.ca.read_bytes(), certificates.client_key.read_bytes(), certificates.client.read_bytes()
    )
    return grpc.secure_channel(f"localhost:{server.port}", credentials)
