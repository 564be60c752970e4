"""What a remote environment says of where it is."""

from __future__ import annotations

import contextlib
import copy

import pytest

from remote_gym import ConnectionInfo, RemoteEnvironment, RemoteVectorEnv, create_remote_environment_server


@pytest.fixture(scope="module")
def server():
    with create_remote_environment_server("CartPole-v1", port=0, environments={"car": "MountainCar-v0"}) as running:
        yield running


@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_it_names_server_environment_session_and_connection(server, connection):
    address = f"localhost:{server.port}"
    with contextlib.closing(RemoteEnvironment(port=server.port, connection=connection)) as environment:
        environment.reset()
        session = environment._session.id
        expected = ConnectionInfo(server=address, environment="CartPole-v1", session=session, connected_over=connection)
        assert environment.connection_info == expected
        assert repr(environment) == f"<RemoteEnvironment: CartPole-v1 at {address}, session {session}, {connection}>"
        assert environment._session._session.token not in repr(environment)
        # A copy opens its own at its next reset.
        assert copy.deepcopy(environment).connection_info.session is None
        environment._session._carrier.detach()
        assert environment.connection_info.connected_over is None
    assert environment.connection_info.session is None
    assert "no session" in repr(environment)


def test_it_names_what_was_asked_for_by_name(server):
    with contextlib.closing(RemoteEnvironment(port=server.port, remote_args={"environment": "car"})) as environment:
        assert environment.connection_info.environment == "car"


def test_a_vector_environment_says_it_of_each_worker(server):
    environments = RemoteVectorEnv(port=server.port, num_envs=4, workers=2)
    with contextlib.closing(environments):
        environments.reset()
        infos = environments.connection_info
        assert [info.session for info in infos] == [each.session.id for each in environments._shards]
        assert {info.connected_over for info in infos} == {"direct"}
        assert repr(environments).startswith("<RemoteVectorEnv of 4: CartPole-v1 at localhost:")
    assert [info.connected_over for info in environments.connection_info] == [None, None]
