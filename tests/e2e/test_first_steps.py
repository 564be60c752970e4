"""What somebody new does first: modes that there are not, calls in the wrong order, and a look at what one has."""

from __future__ import annotations

import socket

import pytest
from gymnasium.error import ResetNeeded

from remote_gym import (
    ConfigError,
    ConnectError,
    RemoteEnvironment,
    RemoteVectorEnv,
    ServerOptions,
    TlsFiles,
    create_remote_environment_server,
)
from remote_gym.cli.greeting import _reachable_name


@pytest.fixture(scope="module")
def server():
    with create_remote_environment_server("CartPole-v1", port=0, check=False) as server:
        yield server


@pytest.mark.parametrize("cls", [RemoteEnvironment, RemoteVectorEnv])
@pytest.mark.parametrize("mode", ["rgb", "ansi"])
def test_a_render_mode_that_the_environment_does_not_know_is_refused_at_once(server, cls, mode):
    with pytest.raises(ConfigError, match=f"^render_mode is '{mode}', .*; use human or rgb_array$") as caught:
        cls(port=server.port, render_mode=mode)
    assert caught.value.field == "render_mode"
    assert server.session_count == 0


@pytest.mark.parametrize("mode", ["rgb_array", "rgb_array_list"])
def test_a_render_mode_that_gymnasium_makes_of_another_is_known(server, mode):
    RemoteEnvironment(port=server.port, render_mode=mode).close()


def test_a_call_after_closing_says_that_it_was_closed(server):
    environment = RemoteEnvironment(port=server.port)
    with pytest.raises(ResetNeeded, match=r"^Cannot call env.step\(\) before calling env.reset\(\)"):
        environment.step(0)
    environment.reset()
    environment.close()
    for call, argument in ((environment.step, 0), (environment.step_many, [0])):
        with pytest.raises(ResetNeeded, match=rf"^Cannot call env.{call.__name__}\(\): the environment was closed"):
            call(argument)
    environment.reset()
    environment.step(0)
    environment.close()


def test_a_server_shows_where_it_is_and_what_it_does():
    with create_remote_environment_server("CartPole-v1", port=0, use_thread=True, check=False) as server:
        environment = RemoteEnvironment(port=server.port)
        shown = f"<RemoteEnvironmentServer: at localhost:{server.port}, without TLS"
        assert repr(server) == f"{shown}, 1 session>"
        environment.close()
    assert repr(server) == f"{shown}, stopped>"


def test_a_vector_shows_which_environment_it_is_of_where_it_named_none(server):
    environment = RemoteVectorEnv(port=server.port, num_envs=2)
    assert [info.environment for info in environment.connection_info] == ["CartPole-v1"]
    assert "CartPole-v1 at localhost" in repr(environment)
    environment.close()


def test_a_script_learns_that_python_does_not_read_the_commands_variable(certificates, monkeypatch):
    monkeypatch.setenv("REMOTE_GYM_CERTS", "certificates")
    files = TlsFiles(ca=certificates.ca, certificate=certificates.server, private_key=certificates.server_key)
    with create_remote_environment_server("CartPole-v1", port=0, tls=files, check=False) as server:
        with pytest.raises(ConnectError, match=r"REMOTE_GYM_CERTS: use tls=TlsFiles.from_folder\('certificates', 'c"):
            RemoteEnvironment(port=server.port)


@pytest.mark.parametrize("name", ["memory_limit", "receive_bytes"])
def test_a_size_is_a_number_of_bytes(name):
    with pytest.raises(ConfigError, match=f"^ServerOptions.{name} is '2GiB'; use a number of bytes, an integer from"):
        ServerOptions(**{name: "2GiB"})


def test_the_greeting_of_every_address_names_one_that_others_can_reach():
    assert _reachable_name("0.0.0.0", ()) == socket.gethostname()
    assert _reachable_name("0.0.0.0", ("localhost", "127.0.0.1")) == "localhost"  # which alone the certificate holds
    assert _reachable_name("0.0.0.0", ("localhost", "*.lab", "gpu.lab")) == "gpu.lab"
    assert _reachable_name("localhost", ("localhost", "gpu.lab")) == "localhost"
