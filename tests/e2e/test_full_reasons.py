"""A full server says of what it is full, however it was asked."""

from __future__ import annotations

import contextlib
import socket

import pytest

from remote_gym import FullReason, RemoteEnvironment, RemoteVectorEnv, ServerFull, create_remote_environment_server


def reason(make) -> FullReason:
    with pytest.raises(ServerFull) as caught:
        make()
    return caught.value.reason


def test_every_kind_of_client_learns_which_limit_it_is():
    with socket.socket() as nobody:
        nobody.bind(("localhost", 0))
        with create_remote_environment_server("CartPole-v1", port=0, use_thread=True, max_sessions=1) as server:
            several = [("localhost", server.port), ("localhost", nobody.getsockname()[1])]
            with contextlib.closing(RemoteEnvironment(port=server.port)):
                assert reason(lambda: RemoteEnvironment(port=server.port)) is FullReason.SESSIONS
                assert reason(lambda: RemoteVectorEnv(port=server.port, num_envs=2)) is FullReason.SESSIONS
                assert reason(lambda: RemoteEnvironment(addresses=several)) is FullReason.SESSIONS


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"max_opens_per_second": 0.1}, FullReason.RATE), ({"max_sessions_per_identity": 1}, FullReason.IDENTITY)],
)
def test_a_limit_of_one_identity_is_told_from_the_servers(limits, expected):
    with create_remote_environment_server("CartPole-v1", port=0, use_thread=True, **limits) as server:
        with contextlib.closing(RemoteEnvironment(port=server.port)):
            assert reason(lambda: RemoteEnvironment(port=server.port)) is expected


def test_a_server_that_is_about_to_stop_says_so():
    with create_remote_environment_server("CartPole-v1", port=0, use_thread=True, drain_timeout=60) as server:
        with contextlib.closing(RemoteEnvironment(port=server.port)) as environment:
            environment.reset()
            server.stop()
            assert reason(lambda: RemoteEnvironment(port=server.port)) is FullReason.STOPPING
