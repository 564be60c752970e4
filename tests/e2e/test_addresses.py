"""No address is shared, and none is taken away from whoever has it, for either kind of connection."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from remote_gym import ConfigError, RemoteEnvironment, create_remote_environment_server

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def serve(url: str, port: int = 0, **options):
    return create_remote_environment_server(CARTPOLE, url, port, use_thread=True, **options)


def play(url: str, port: int = 0) -> None:
    for connection in ("direct", "grpc"):
        environment = RemoteEnvironment(url, port, connection=connection)
        environment.reset(seed=1)
        environment.step(0)
        environment.close()


ADDRESSES = ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"))]


@pytest.mark.parametrize(("first", "second"), [(one, "localhost") for one in ("127.0.0.1", "localhost")])
def test_a_port_of_another_server_of_ours_is_refused_and_that_one_goes_on(first, second):
    with serve(first) as server:
        with pytest.raises(ConfigError, match=rf"cannot listen on .*{server.port}.* in use"):
            serve(second, server.port)
        play(first, server.port)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_name_is_not_shared_with_a_server_that_has_one_of_its_addresses(monkeypatch):
    """As where the system knows localhost by both of its addresses."""
    look_up = socket.getaddrinfo

    def by_both(host: str, *rest, **options):
        names = ("::1", "127.0.0.1") if host == "localhost" else (host,)
        return [found for name in names for found in look_up(name, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", by_both)
    for first in ("::1", "127.0.0.1"):
        with serve(first) as server:
            with pytest.raises(ConfigError, match=rf"cannot listen on {first} port {server.port}.* in use"):
                serve("localhost", server.port)
            play(first, server.port)
    with serve("localhost") as server:
        for first in ("::1", "127.0.0.1"):
            play(first, server.port)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_port_of_a_foreign_program_is_refused(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as foreign:
        port = foreign.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port}.*in use"):
            serve(address, port)
        with pytest.raises(ConfigError, match=f"{port}.*in use"):
            serve(address, grpc_port=port)


def test_a_port_of_grpc_alone_is_not_shared_either():
    with serve("localhost", grpc_port=0) as server:
        for taken in (server.port, server.grpc_port):
            with pytest.raises(ConfigError, match=rf"{taken}.*in use"):
                serve("localhost", grpc_port=taken)
            with pytest.raises(ConfigError, match=rf"{taken}.*in use"):
                serve("localhost", taken)
        play("localhost", server.port)


def test_a_server_that_could_not_start_leaves_its_port_free():
    with serve("localhost") as server:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        with pytest.raises(ConfigError, match="in use"):
            serve("localhost", port, grpc_port=server.port)
        with serve("localhost", port):
            play("localhost", port)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        serve("192.0.2.1", allow_insecure=True)


def test_a_name_without_an_address_is_refused():
    with pytest.raises(ConfigError, match="has no address"):
        serve("no-such-host.invalid", allow_insecure=True)


def test_a_unix_socket_of_a_living_server_is_refused_and_that_one_goes_on(tmp_path):
    url = f"unix:{tmp_path}/socket"
    with serve(url):
        with pytest.raises(ConfigError, match="in use by another server"):
            serve(url)
        play(url)


def test_a_unix_socket_that_a_killed_server_left_is_taken_over(tmp_path):
    url = f"unix:{tmp_path}/socket"
    script = (
        "from remote_gym import create_remote_environment_server\n"
        f"server = create_remote_environment_server({CARTPOLE!r}, {url!r}, use_thread=True)\n"
        "print('ready', flush=True)\n"
        "server.wait_for_termination()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert (tmp_path / "socket").is_socket()
    with serve(url):
        play(url)


def test_a_file_in_the_place_of_a_unix_socket_stays(tmp_path):
    file = tmp_path / "socket"
    file.write_text("precious")
    with pytest.raises(ConfigError, match="a file, which is no socket"):
        serve(f"unix:{file}")
    assert file.read_text() == "precious"
