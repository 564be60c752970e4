"""A diagnosis names the cause, and not another one that looks alike."""

from __future__ import annotations

import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from certificates import DAY, sign
from remote_gym import ConfigError, ConnectError, RemoteEnvironment, create_remote_environment_server
from remote_gym.certs import create_all
from remote_gym.client.connect.diagnosis import diagnose
from remote_gym.client.connect.opening import connect
from remote_gym.client.doctor import examine
from remote_gym.config import ClientOptions, TlsFiles

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """Two, which are called alike."""
    return [create_all(tmp_path_factory.mktemp(name), ["localhost"]) for name in ("ours", "theirs")]


def tls_files(ca, client=None):
    return TlsFiles(
        ca=ca.ca.certificate,
        certificate=client and client.client.certificate,
        private_key=client and client.client.private_key,
    )


def serving(authority, *, client_certificates=True, **options):
    ca = authority.ca.certificate if client_certificates else None
    paths = (authority.server.certificate, authority.server.private_key, ca)
    return create_remote_environment_server(
        CARTPOLE, port=0, server_credentials_paths=paths, check=False, use_thread=True, **options
    )


def failure(port, files):
    [failed] = [check for check in diagnose("localhost", port, files, timeout=10.0) if not check.works]
    return failed


def test_another_authority_of_the_servers_is_named_beside_the_one_that_the_client_trusts(authorities):
    ours, theirs = authorities
    with serving(theirs) as server:
        failed = failure(server.port, tls_files(ours, ours))
    assert failed.found.count("'CN=remote-gym authority' (key ") == 2
    keys = failed.found.split("(key ")[1:]
    assert keys[0][:8] != keys[1][:8]
    assert str(ours.ca.certificate) in failed.found
    assert failed.mend == "give the certificate authority that the server's comes from (tls=TlsFiles(ca=...))"


def test_another_authority_of_the_clients_is_named_beside_the_servers(authorities):
    ours, theirs = authorities
    with serving(theirs) as server:
        failed = failure(server.port, tls_files(theirs, ours))
    assert "the client's certificate comes from 'CN=remote-gym authority' (key " in failed.found
    assert "and the server's from another, 'CN=remote-gym authority' (key " in failed.found


def test_the_right_authority_is_not_called_another(authorities, tmp_path):
    ours, _ = authorities
    server_only = sign(ours.ca.certificate.parent, tmp_path, "server-only", ["me"], profile="server")
    files = TlsFiles(ca=ours.ca.certificate, certificate=server_only.certificate, private_key=server_only.private_key)
    with serving(ours) as server:
        failed = failure(server.port, files)
    assert "another" not in failed.found


@pytest.mark.parametrize(
    ("client_certificates", "files"),
    [(False, "comes from (tls=TlsFiles(ca=...))"), (True, ": give ca, certificate and private key")],
)
def test_who_comes_without_tls_is_told_just_the_files_that_are_needed(authorities, client_certificates, files):
    with serving(authorities[0], client_certificates=client_certificates) as server:
        failed = failure(server.port, None)
        assert failed.found == "the server does not accept plaintext: it speaks TLS"
        assert files in failed.mend
        with pytest.raises(ConnectError, match="it speaks TLS"):
            RemoteEnvironment("localhost", server.port)


def test_the_advice_works(authorities):
    ours, _ = authorities
    with serving(ours, client_certificates=False) as server:
        RemoteEnvironment("localhost", server.port, {}, (ours.ca.certificate, None, None)).close()


def test_an_expired_certificate_of_the_servers_has_no_tick(authorities, tmp_path, monkeypatch):
    ours, _ = authorities
    brief = sign(ours.ca.certificate.parent, tmp_path, "brief", ["localhost"], begin=-DAY, end=DAY)
    paths = (brief.certificate, brief.private_key, ours.ca.certificate)
    with create_remote_environment_server(CARTPOLE, port=0, server_credentials_paths=paths, check=False) as server:
        from remote_gym.tls import facts

        monkeypatch.setattr(facts.CertificateFacts, "has_expired", property(lambda self: self.issuer != self.subject))
        checks = {
            check.step: check for check in examine("localhost", server.port, tls_files(ours, ours), {}, timeout=10)
        }
    found = checks["server's certificate"]
    assert not found.works
    assert "expired on" in found.found
    assert "'remote-gym certs server' does" in found.mend


def test_a_server_that_drains_is_not_full():
    with create_remote_environment_server(CARTPOLE, port=0, check=False) as server:
        environment = RemoteEnvironment("localhost", server.port)
        environment.reset()
        server.stop(20)
        deadline = time.monotonic() + 20
        last = None
        while time.monotonic() < deadline and (last is None or last.works):
            *_, last = examine("localhost", server.port, None, {}, timeout=10)
        environment.close()
    assert "is stopping" in last.found
    assert last.mend == "wait until the server has been started again, or use another one"


def test_an_interpreter_without_the_package_is_named(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ConfigError, match=f"{bare} has no remote_gym; install the same release there as here"):
        create_remote_environment_server(CARTPOLE, port=0, interpreter=str(bare))


def test_an_error_names_the_time_that_was_waited():
    """What refuses at once is not said to have been tried for all of the timeout."""
    stranger = grpc.server(ThreadPoolExecutor(1))
    port = stranger.add_insecure_port("localhost:0")
    stranger.start()
    try:
        with contextlib.closing(connect("localhost", port, None, ClientOptions())) as connection:
            with pytest.raises(ConnectError, match=r"no connection to localhost:\d+( within [0-9.]+ s)?: ") as caught:
                connection.reach("session", "token", 60.0)
    finally:
        stranger.stop(None).wait(10)
    assert "within 60 s" not in str(caught.value)


def test_after_close_there_is_a_reset_to_come_and_none_that_was_missed():
    with create_remote_environment_server(CARTPOLE, port=0, check=False) as server:
        environment = RemoteEnvironment("localhost", server.port)
        environment.reset()
        environment.close()
        with pytest.raises(Exception, match=r"no session, and so no ticket, until env.reset\(\) opens one"):
            _ = environment.ticket
