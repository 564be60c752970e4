"""Errors and warnings of a session in trouble name the cause, once, and what comes next."""

from __future__ import annotations

import logging
import signal
import time
from datetime import timedelta

import psutil
import pytest

from certificates import sign
from remote_gym import RemoteEnvironment, create_remote_environment_server
from remote_gym.certs import create_all
from remote_gym.client.vector.gather import raise_failures
from remote_gym.errors import ConnectionLost, SessionError, SessionLost
from remote_gym.protocol.stream import within
from served import served
from waiting import scaled

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}


class Named:
    """What a failure tells of a slice."""

    def __init__(self, start: int, name: str) -> None:
        self.start, self.stop, self.name = start, start + 1, name

    def __str__(self) -> str:
        return self.name


def raised(*errors):
    with pytest.raises(SessionError) as caught:
        raise_failures([(Named(number, f"environment {number}"), error) for number, error in enumerate(errors)])
    return str(caught.value)


def test_what_is_the_same_of_several_is_told_once():
    assert raised(SessionError("gone"), SessionError("gone")) == "environment 0, environment 1: gone"


def test_kinds_are_named_of_all_or_of_none():
    assert raised(SessionError("a"), SessionError("b")) == "environment 0: a; environment 1: b"
    mixed = raised(SessionError("a"), ConnectionLost("b"))
    assert mixed == "environment 0: SessionError: a; environment 1: ConnectionLost: b"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-0.00321, ""), (0.00212, ""), (0.5, " within 0.5 s"), (2.0, " within 2 s")]
)
def test_times_that_are_next_to_nothing_are_not_told(seconds, text):
    assert within(seconds) == text


@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_the_first_error_of_a_lost_environment_says_that_reset_opens_another(connection):
    with create_remote_environment_server(CARTPOLE, port=0, check=False) as server:
        environment = RemoteEnvironment("localhost", server.port, connection=connection)
        environment.reset()
        kill_workers()
        for _ in range(2):
            with pytest.raises(SessionLost, match=r"; reset opens a new one$"):
                environment.step(0)
        environment.reset()
        environment.close()


def kill_workers():
    """Kill what the launcher of this process's server has forked."""
    for launcher in psutil.Process().children():
        for worker in launcher.children():
            worker.send_signal(signal.SIGKILL)


def test_the_first_warning_of_a_connection_that_is_not_made_again_names_the_cause(caplog):
    with served("CartPole-v1", "--port", "0") as server:
        environment = RemoteEnvironment("localhost", server.port, connection="grpc", reconnect_timeout=1.0)
        environment.reset()
        server.process.kill()
        server.process.wait()
        with caplog.at_level(logging.WARNING, "remote_gym"), pytest.raises(ConnectionLost):
            environment.step(0)
        environment.close()
    told = [record.getMessage() for record in caplog.records if "not resumed yet" in record.getMessage()]
    assert "Connection refused" in told[0]


@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_the_first_warning_names_a_certificate_that_expires_within_a_run(connection, tmp_path, caplog):
    files = create_all(tmp_path / "c", ["localhost"])
    valid = scaled(2)
    short = sign(tmp_path / "c", tmp_path, "short", ["me"], profile="client", end=timedelta(seconds=valid))
    paths = (files.server.certificate, files.server.private_key, files.ca.certificate)
    mine = (files.ca.certificate, short.certificate, short.private_key)
    # The first connection ends once the certificate has: on a busy machine another could take long to make before.
    options = {"use_thread": True, "certificate_lifetime": valid + 1, "server_credentials_paths": paths}
    with create_remote_environment_server(CARTPOLE, port=0, check=False, **options) as server:
        environment = RemoteEnvironment(
            "localhost", server.port, None, mine, connection=connection, reconnect_timeout=scaled(1)
        )
        environment.reset()
        with caplog.at_level(logging.WARNING, "remote_gym"), pytest.raises(ConnectionLost):
            step_for(environment, scaled(20))
        environment.close()
    told = [record.getMessage() for record in caplog.records if "not resumed yet" in record.getMessage()]
    assert f"{short.certificate} expired on" in told[0]


def step_for(environment, seconds):
    """Step now and then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        *_, terminated, truncated, _ = environment.step(0)
        if terminated or truncated:
            environment.reset()
        time.sleep(0.05)
