"""One client, several servers: it opens on the least loaded, and moves on from those that fail."""

from __future__ import annotations

import contextlib
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import gymnasium as gym
import numpy as np
import pytest

import remote_gym.client.servers as addresses_module
from environments import ACTION
from remote_gym import (
    ConfigError,
    ConnectError,
    NotPermitted,
    RemoteEnvironment,
    RemoteEnvironmentServer,
    RemoteVectorEnv,
    ServerFull,
    SessionLost,
    create_remote_environment_server,
)
from remote_gym.server.frontends.grpc import GrpcServer
from remote_gym.testing import loopback_server
from remote_gym.wire.autoreset import AutoresetMode
from waiting import scaled, wait_until

Serve = Callable[..., RemoteEnvironmentServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers of environments.py that only this machine can reach."""
    with contextlib.ExitStack() as stack:

        def start(max_sessions: int = 10, port: int = 0, **options: Any) -> RemoteEnvironmentServer:
            # In threads, which are there at once, unless one is to die: what is tested is where a client goes.
            options = {"max_sessions": max_sessions, "use_thread": True, **options}
            server = create_remote_environment_server({"entrypoint": "environments.py"}, "localhost", port, **options)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def opened() -> Iterator[Callable[..., RemoteEnvironment]]:
    """Opens environments at servers, or whatever else has an address, and closes them in the end."""
    with contextlib.ExitStack() as stack:

        def open_at(*servers: Any, **arguments: Any) -> RemoteEnvironment:
            environment = RemoteEnvironment(addresses=[getattr(each, "address", each) for each in servers], **arguments)
            stack.callback(environment.close)
            return environment

        yield open_at


@pytest.fixture
def dead() -> Iterator[str]:
    """An address that nobody listens at."""
    with socket.socket() as reserved:
        reserved.bind(("localhost", 0))
        yield f"localhost:{reserved.getsockname()[1]}"


def counts(*servers: RemoteEnvironmentServer) -> list[int]:
    return [server.session_count for server in servers]


def test_sessions_go_to_the_least_loaded_by_what_each_can_hold(serve, opened):
    small, large = serve(max_sessions=2), serve(max_sessions=8)
    for _ in range(5):
        opened(small, large)
    # Of the first two one goes to each, by lot in which order; then a small one's half is more than three eighths.
    assert counts(small, large) == [1, 4]


def test_an_address_where_nobody_is_is_passed_over_and_left_alone(serve, opened, dead):
    server = serve()
    environment = opened(dead, server)
    assert environment.port == server.port
    environment.reset()
    assert environment.step(ACTION["step"])[0]["count"] == 1
    circuits = environment._addresses._circuits
    assert [circuit._failures for circuit in circuits.values()] == [1, 0]


def test_one_that_takes_connections_and_never_answers_is_passed_over(serve, opened, monkeypatch):
    monkeypatch.setattr(addresses_module, "LOAD_TIMEOUT", 0.5)
    with socket.create_server(("localhost", 0)) as silent:
        server = serve()
        assert opened(f"localhost:{silent.getsockname()[1]}", server).port == server.port


def test_a_full_server_is_passed_over_even_where_it_does_not_tell(serve, opened, monkeypatch):
    load = GrpcServer._load

    async def load_of_old(self: GrpcServer, context: Any, client: Any) -> None:
        if self._service._options.max_sessions == 1:  # a release that knows no such call
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        await load(self, context, client)

    monkeypatch.setattr(GrpcServer, "_load", load_of_old)
    full, other = serve(max_sessions=1), serve(max_sessions=4)
    for _ in range(3):
        opened(other)
    assert opened(full, other).port == full.port  # which counts as half full
    assert opened(full, other).port == other.port
    with pytest.raises(ServerFull, match=r"max_sessions of 1 .*max_sessions of 4 "):
        opened(full, other)


def test_a_server_that_is_stopping_comes_last(serve, opened):
    stopping, other = serve(), serve()
    stopping._service._opening.stopping = True
    opened(other)
    assert opened(stopping, other).port == other.port
    other._service._opening.stopping = True
    with pytest.raises(ServerFull, match=r"is stopping.*is stopping"):
        opened(stopping, other)


def test_a_server_that_does_not_let_the_client_in_is_passed_over(serve, opened):
    nobody: dict[str, Any] = {"allow": ("DNS:nobody",), "check": False}
    closed, other, also = serve(**nobody), serve(), serve(**nobody)
    for _ in range(3):
        assert opened(closed, other).port == other.port
    with pytest.raises(NotPermitted, match=r"no rule for a client without an identity; localhost:.*no rule"):
        opened(closed, also)


def test_if_nobody_answers_the_error_names_all(dead, opened):
    with socket.socket() as another:
        another.bind(("localhost", 0))
        other = f"localhost:{another.getsockname()[1]}"
        with pytest.raises(ConnectError) as raised:
            opened(dead, other, connect_timeout=scaled(0.3))
    assert dead in str(raised.value)
    assert other in str(raised.value)


def test_an_address_that_loses_sessions_again_and_again_is_left_for_another(serve, opened):
    bad, good = serve(max_sessions=1000, use_thread=False), serve(use_thread=False)
    opened(good)
    environment = opened(bad, good)
    for port in (bad.port, bad.port, good.port):
        environment.reset()
        assert environment.port == port
        with pytest.raises(SessionLost):
            environment.step(ACTION["exit"])


def test_after_a_loss_the_next_reset_moves_on_and_a_server_that_is_back_is_used_again(serve, opened):
    first, spare = serve(use_thread=False), serve(max_sessions=2, use_thread=False)
    opened(spare)
    environment = opened(
        first, spare, on_session_lost="truncate", connect_timeout=scaled(2.0), reconnect_timeout=scaled(2.0)
    )
    environment.reset()
    assert environment.port == first.port
    first.stop(0).wait(scaled(10.0))
    assert environment.step(ACTION["step"])[3]
    environment.reset()
    assert environment.port == spare.port
    assert environment.step(ACTION["exit"])[3]
    back = serve(port=first.port, use_thread=False)
    spare._service._opening.stopping = True
    environment.reset()
    assert environment.port == back.port


def test_copies_and_specs_know_all_addresses(serve, opened, dead):
    server = serve()
    environment = opened(dead, server)
    copy = pickle.loads(pickle.dumps(environment))
    environment.close()
    copy.reset()
    assert copy.port == server.port
    copy.close()
    made = gym.make("remote_gym/Remote-v0", addresses=[dead, server.address])
    assert made.unwrapped.port == server.port
    made.close()


def test_a_spec_made_again_knows_all_addresses():
    options = {"secure": False, "use_thread": True}
    with loopback_server("CartPole-v1", **options) as server, loopback_server("CartPole-v1", **options) as other:
        addresses = [server.server.address, other.server.address]
        environment = other.environment(addresses=addresses)
        again = gym.make(environment.spec)
        assert again.spec.kwargs["addresses"] == [("localhost", server.server.port), ("localhost", other.server.port)]
        again.close()


def test_what_an_entrypoint_exposes_under_such_a_name_is_no_hindrance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entrypoint = "import gymnasium as gym\nEXPOSED = ('port', 'metadata', 'spec', 'observation_space', 'resumed')\n"
    entrypoint += "class Own(gym.Wrapper):\n    port, resumed = 3, 4\n"
    entrypoint += "def create_environment():\n    return Own(gym.make('CartPole-v1'))\n"
    (tmp_path / "entrypoint.py").write_text(entrypoint)
    with create_remote_environment_server({"entrypoint": "entrypoint.py"}, "localhost", 0, use_thread=True) as server:
        environment = RemoteEnvironment(addresses=[server.address])
        environment.close()
        environment.reset()
        assert environment.call("port") == 3
        assert environment.port == server.port
        assert environment.call("resumed") == 4
        assert environment.resumed is None
        assert environment.metadata["render_fps"] == 50
        environment.close()


@pytest.mark.parametrize("addresses", [[], ["nowhere"], [("localhost", 0)], [3], ["localhost:99999"]])
def test_addresses_that_are_none_are_refused(addresses):
    with pytest.raises(ConfigError, match=r"address|port"):
        RemoteEnvironment(addresses=addresses)


def test_a_single_address_is_not_taken_for_a_list():
    with pytest.raises(ConfigError, match="use a list of them, such as \\['localhost:1'\\]"):
        RemoteEnvironment(addresses="localhost:1")


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium < 1.1 resets by the step that ends an episode")
def test_workers_of_a_vector_environment_move_to_where_there_is_room(serve):
    servers = serve(), serve()
    environments = RemoteVectorEnv(
        addresses=[server.address for server in servers],
        num_envs=4,
        connect_timeout=scaled(2.0),
        reconnect_timeout=scaled(2.0),
        on_session_lost="truncate",
    )
    with contextlib.closing(environments):
        environments.reset()
        assert counts(*servers) == [1, 1]
        servers[0].stop(0).wait(scaled(10.0))
        actions = np.full(4, ACTION["step"])
        *_, truncated, infos = environments.step(actions)
        assert truncated.tolist() == [True, True, False, False]
        assert infos["_remote_gym"].tolist() == truncated.tolist()
        observations, *_ = environments.step(actions)
        assert observations["count"].tolist() == [0, 0, 2, 2]
        assert counts(servers[1]) == [2]


def test_the_load_counts_what_is_still_closing(serve, opened):
    server = serve(max_sessions=3)
    environment = opened(server)
    environment.reset()
    load = server._service.load()
    assert (load.open, load.capacity, load.waiting, load.draining) == (1, 3, 0, False)
    environment.close()
    wait_until(lambda: server._service.load().open == 0)
