"""Certificates and tokens that change, expire or are revoked while sessions use them."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from breaking import fresh_address
from certificates import sign
from environments import ACTION
from raw_client import RawSession
from raw_client import step as raw_step
from remote_gym import ClientOptions, NotPermitted, RemoteEnvironment, create_remote_environment_server
from remote_gym.auth.tokens import SETTLE, add_token
from remote_gym.certs import CLIENT_IDENTITY, create_all
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.config import TlsFiles
from remote_gym.server.serve import RemoteEnvironmentServer
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled, wait_until


@dataclass
class Place:
    """A server, and each end's own copy of the certificates, which a test may change."""

    authority: Path
    server_files: Path
    client_files: Path
    log: Path
    kind: str
    server: RemoteEnvironmentServer
    environments: list[RemoteEnvironment]

    def open(self, folder: Path | None = None, **arguments: Any) -> RemoteEnvironment:
        """A new environment, reset."""
        folder = folder or self.client_files
        paths = (folder / "ca.pem", folder / "client.pem", folder / "client-key.pem")
        arguments = {
            "client_credentials_paths": paths,
            "connection": self.kind,
            "connect_timeout": 5.0,
            "reconnect_timeout": 5.0,
            **arguments,
        }
        environment = RemoteEnvironment("localhost", self.server.port, **arguments)
        self.environments.append(environment)
        environment.reset()
        return environment

    @property
    def steps(self) -> int:
        """How many steps all environments took."""
        return self.log.read_text().count("step ")


@pytest.fixture(params=["direct", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def options() -> dict[str, Any]:
    """The server's."""
    return {}


@pytest.fixture
def place(tmp_path: Path, kind: str, options: dict[str, Any]) -> Iterator[Place]:
    authority, server_files, client_files = (tmp_path / name for name in ("authority", "server", "client"))
    create_all(authority, ["localhost"])
    for folder in (server_files, client_files):
        shutil.copytree(authority, folder)
    ca = None if "token_file" in options else server_files / "ca.pem"
    paths = (server_files / "server.pem", server_files / "server-key.pem", ca)
    log = tmp_path / "log"
    arguments = {"entrypoint": "environments.py", "entrypoint_kwargs": {"log": str(log)}}
    # A worker process is given what it needs for its direct connections; of calls to the server it knows nothing.
    options = {"use_thread": kind == "grpc", **options}
    with create_remote_environment_server(arguments, "localhost", 0, paths, **options) as server:
        found = Place(authority, server_files, client_files, log, kind, server, [])
        try:
            yield found
        finally:
            for environment in found.environments:
                environment.close()


def step(environment: RemoteEnvironment) -> int:
    """How many steps the environment has taken since its reset, this one included."""
    return int(environment.step(ACTION["step"])[0]["count"])


def connect_anew(environment: RemoteEnvironment) -> None:
    """Let the next step make a new connection, as after the network has failed."""
    environment._session._carrier.detach()
    environment._session._connection.renew()


# Files that change


def test_new_certificates_from_a_new_authority_are_used_without_a_restart(place, tmp_path):
    environment = place.open()
    assert step(environment) == 1
    create_all(tmp_path / "new", ["localhost"])
    for folder in (place.server_files, place.client_files):
        shutil.copytree(tmp_path / "new", folder, dirs_exist_ok=True)
    assert step(place.open()) == 1
    assert step(environment) == 2  # what was connected before stays so
    connect_anew(environment)
    assert step(environment) == 3
    assert place.steps == 4


@pytest.mark.parametrize("broken", ["server.pem", "ca.pem"])
def test_a_file_that_does_not_fit_leaves_the_old_in_use_and_is_told_once(place, broken, caplog):
    environment = place.open()
    (place.server_files / broken).write_bytes(b"half of a file")

    def told() -> list[str]:
        """Lines of the server's log, in which a worker's are marked as its session's: each reads the files itself."""
        messages = [record.getMessage() for record in caplog.records]
        return [message for message in messages if "what was loaded before stays in use" in message]

    with caplog.at_level(logging.INFO, logger="remote_gym"):
        for count in (1, 2):
            connect_anew(environment)
            assert step(environment) == count
        readers = 2 if place.kind == "direct" else 1
        wait_until(lambda: len(told()) >= readers)
    assert len(told()) == readers
    assert all(broken in line for line in told())


def test_a_client_whose_files_are_being_replaced_goes_on(place):
    environment = place.open()
    (place.client_files / "client.pem").write_text("half of a file")
    connect_anew(environment)
    assert step(environment) == 1
    environment.close()
    environment.reset()  # in a new session
    assert step(environment) == 1
    sign(place.authority, place.client_files, "client", [CLIENT_IDENTITY])
    connect_anew(environment)
    assert step(environment) == 2


# Age


short_lived = pytest.mark.parametrize("options", [{"certificate_lifetime": scaled(0.4)}])


@short_lived
def test_an_old_connection_is_made_again_and_no_step_is_lost_or_doubled(place):
    environment = place.open()
    used = []
    end = time.monotonic() + scaled(30.0)
    count = 0
    while len(used) < 4 and time.monotonic() < end:
        count += 1
        assert step(environment) == count
        if environment._session._carrier.stream not in used:
            used.append(environment._session._carrier.stream)
        time.sleep(0.005)  # a connection is old after a time, however much it is used
    assert len(used) == 4
    assert place.steps == count


@pytest.mark.long
@pytest.mark.parametrize("options", [{"certificate_lifetime": 0.4, "lease": 0.5}])
def test_a_step_longer_than_the_age_is_answered_and_an_idle_client_keeps_its_session(place):
    environment = place.open()
    assert environment.step(ACTION["slow"])[0]["count"] == 1  # takes a second
    time.sleep(0.8)  # longer than age and lease: what is tested is that nothing happens
    assert place.server.session_count == 1
    assert step(environment) == 2
    assert place.steps == 2


@short_lived
def test_a_client_that_is_trusted_no_more_is_out_when_its_connection_is_old(place, tmp_path):
    environment = place.open(connect_timeout=scaled(1.0), reconnect_timeout=scaled(1.0))
    create_all(tmp_path / "new", ["localhost"])
    # The server's own certificate stays: it is the client that is not let in.
    shutil.copy(tmp_path / "new" / "ca.pem", place.server_files / "ca.pem")
    with pytest.raises(ConnectionError, match="refuses"):
        wait_until(lambda: step(environment) < 0, timeout=30.0)


# Expiry


@pytest.mark.long
def test_no_connection_outlives_its_certificate_and_a_new_one_goes_on_with_the_session(place):
    careful, careless = place.open(), place.open(connect_timeout=scaled(1.0), reconnect_timeout=scaled(1.0))
    expires = time.time() + 10.0
    sign(place.authority, place.client_files, "client", [CLIENT_IDENTITY], end=timedelta(seconds=10.0))
    for environment in (careful, careless):
        connect_anew(environment)
        assert step(environment) == 1
    wait_until(lambda: time.time() > expires)
    with pytest.raises(ConnectionError, match="expired"):
        step(careless)
    sign(place.authority, place.client_files, "client", [CLIENT_IDENTITY])
    assert step(careful) == 2
    assert place.steps == 3


def test_nothing_is_answered_on_a_connection_that_outlived_its_certificate(place):
    session = place.open()._session._session
    # Brief ones may be over before they have been used, on a machine with much else to do.
    for seconds in (2.0, 10.0, 40.0):
        expires = time.time() + seconds
        made = sign(place.authority, place.client_files, "brief", [CLIENT_IDENTITY], end=timedelta(seconds=seconds))
        files = TlsFiles(ca=place.client_files / "ca.pem", certificate=made.certificate, private_key=made.private_key)
        connection = GrpcConnection("localhost", place.server.port, files, ClientOptions())
        with ExitStack() as stack:
            stack.callback(connection.close)
            try:
                ask = attach(place, connection, session, stack)
                assert ask(2) == 2
            except (ConnectionError, grpc.RpcError):
                continue
            before = place.steps
            wait_until(lambda: time.time() > expires, timeout=60.0)  # noqa: B023
            with pytest.raises((ConnectionError, grpc.RpcError)) as caught:
                ask(3)
            if place.kind == "grpc":
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert place.steps == before
            return
    raise AssertionError("no certificate could be used while it was valid")


def attach(place: Place, connection: GrpcConnection, session: pb.Session, stack: ExitStack) -> Callable[[int], int]:
    """What asks for a step of that number, and returns the number of the response."""
    if place.kind == "grpc":
        raw = RawSession(connection._channel._channel, session)
        return lambda number: raw.ask("Step", raw_step(number)).sequence
    address = connection.reach(session.id, session.token, 20.0).direct
    direct = connection.attach_directly(address, session.token, 20.0)
    stack.callback(direct.close)

    def ask(number: int) -> int:
        deadline = time.monotonic() + scaled(20.0)
        direct.send(raw_step(number).SerializeToString(), deadline)
        return pb.Response.FromString(bytes(direct.receive(deadline))).sequence

    return ask


# Tokens


@pytest.fixture
def tokens(tmp_path, options, monkeypatch) -> Path:
    monkeypatch.delenv("REMOTE_GYM_TOKEN", raising=False)
    options["token_file"] = tmp_path / "tokens"
    options["token_file"].touch()
    return tmp_path / "tokens"


def test_a_client_is_known_by_its_token_alone(tokens, place, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, logger="remote_gym")
    paths = (place.client_files / "ca.pem", None, None)
    mine, theirs = add_token(tokens, "alice"), add_token(tokens, "bob")
    environment = place.open(client_credentials_paths=paths, token=mine)
    assert step(environment) == 1
    with pytest.raises(NotPermitted, match="none came with the call"):
        place.open(client_credentials_paths=paths)
    with pytest.raises(NotPermitted, match="is not, or no longer, one of the server's"):
        place.open(client_credentials_paths=paths, token=mine[:-1] + ("a" if mine[-1] != "a" else "b"))
    monkeypatch.setenv("REMOTE_GYM_TOKEN", theirs)
    other = place.open(client_credentials_paths=paths)
    session = environment._session._session
    with pytest.raises(NotPermitted, match="another identity than 'token:bob'"):
        other._session._connection.reach(session.id, session.token, 10.0)
    connection = other._session._connection
    if place.kind == "direct":
        with pytest.raises(NotPermitted, match="another identity than 'token:bob'"):
            connection.attach_directly(fresh_address(environment._session), session.token, 10.0)
    assert step(environment) == 2
    assert mine not in f"{caplog.text}{environment.spec}{ClientOptions(token=mine)}"
    assert session.token not in caplog.text


def test_a_token_file_may_be_rewritten_in_place_while_it_is_used(tokens, place, caplog):
    """Empty, cut off at a line or amid one, and whole again, by turns: nobody is refused who is in the whole file."""
    paths = (place.client_files / "ca.pem", None, None)
    mine = [add_token(tokens, name) for name in ("bob", "alice")][1]
    os.utime(tokens, (0.0, 0.0))  # long ago
    environment = place.open(client_credentials_paths=paths, token=mine)
    whole = tokens.read_text()
    over = threading.Event()

    def rewrite() -> None:
        while not over.is_set():
            for content in ("", whole[: len(whole) // 2], whole.splitlines(keepends=True)[0]):
                tokens.write_text(content)
                over.wait(0.02)
            tokens.write_text(whole)
            over.wait(SETTLE / 2)  # so that whoever looks twice as often sees it whole

    rewriting = threading.Thread(target=rewrite)
    rewriting.start()
    try:
        for count in range(1, 41):
            connect_anew(environment)
            assert step(environment) == count
            if count % 10 == 0:
                place.open(client_credentials_paths=paths, token=mine).close()
        assert isinstance(environment._session._carrier.stream, DirectStream) == (place.kind == "direct")
    finally:
        over.set()
        rewriting.join()
    assert "not, or no longer, one of the server's" not in caplog.text
    assert "refused" not in caplog.text


def test_a_token_that_is_taken_away_is_missed_though_nobody_calls(tokens, place, caplog):
    """Or its first call, however much later, would begin the time in which it still counts."""
    caplog.set_level(logging.INFO, "remote_gym")
    paths = (place.client_files / "ca.pem", None, None)
    place.open(client_credentials_paths=paths, token=add_token(tokens, "alice")).close()
    caplog.clear()
    tokens.write_text("")
    wait_until(lambda: f"loaded anew: {tokens}" in caplog.text, timeout=30.0)


def test_a_token_that_is_taken_away_ends_what_uses_it(tokens, place):
    paths = (place.client_files / "ca.pem", None, None)
    add_token(tokens, "alice")
    mine = add_token(tokens, "alice")
    environment = place.open(client_credentials_paths=paths, token=mine)
    other = place.open(client_credentials_paths=paths, token=add_token(tokens, "bob"))
    lines = tokens.read_text().splitlines(keepends=True)
    tokens.write_text(lines[2])
    with pytest.raises(NotPermitted):
        wait_until(lambda: step(environment) < 0, timeout=30.0)
    assert step(other) == 1
