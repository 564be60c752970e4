"""Who may use a server that the command line has started."""

from __future__ import annotations

import socket
import ssl

import pytest
from click.testing import CliRunner

from cli.test_cli import port_of, serving
from remote_gym import NotPermitted, RemoteEnvironment
from remote_gym.auth.tokens import read_tokens
from remote_gym.cli import main
from waiting import scaled


def run(*arguments: object, status: int = 0) -> str:
    """What a command prints to stdout, once it has ended with that exit status."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.stdout if not status else result.output


def test_a_token_is_printed_alone_and_its_digest_kept(tmp_path):
    token = run("token", "alice", "--file", tmp_path / "tokens").splitlines()[0]  # older clicks have stderr below it
    assert read_tokens(tmp_path / "tokens").name_of(token) == "alice"


def test_a_name_that_is_none_is_refused(tmp_path):
    assert "the token's name is 'a b'" in run("token", "a b", "--file", tmp_path / "tokens", status=1)


def test_a_token_opens_a_server_of_the_command_line(certificates, tmp_path, monkeypatch):
    token = run("token", "alice", "--file", tmp_path / "tokens").splitlines()[0]  # older clicks have stderr below it
    options = ("--certificate", certificates.server, "--key", certificates.server_key)
    paths = (certificates.ca, None, None)
    with serving("CartPole-v1", "--port", 0, *options, "--token-file", tmp_path / "tokens") as (_, printed):
        assert f"Open to: clients with a token of {tmp_path / 'tokens'}, in REMOTE_GYM_TOKEN" in printed
        port = port_of(printed)
        monkeypatch.setenv("REMOTE_GYM_TOKEN", token)
        assert "direct connection" in run("doctor", f"localhost:{port}", "--ca", certificates.ca)
        monkeypatch.setenv("REMOTE_GYM_TOKEN", "another")
        told = run("doctor", f"localhost:{port}", "--ca", certificates.ca, status=1)
        assert "✗ identity: the client's token 'anot'... is not" in told
        assert "where FILE is ServerOptions.token_file" in told
        monkeypatch.delenv("REMOTE_GYM_TOKEN")
        with pytest.raises(NotPermitted, match="none came"):
            RemoteEnvironment("localhost", port, client_credentials_paths=paths).reset()


@pytest.mark.parametrize("command", ["play", "doctor", "conformance"])
def test_whoever_can_be_known_by_a_token_is_told_where_it_goes(command):
    assert "REMOTE_GYM_TOKEN" in run(command, "--help")


def test_the_command_refuses_tls_1_2_before_the_handshake_is_over(certificates):
    """For the Python interface gRPC takes it, and each call is refused instead."""
    options = ("--certificate", certificates.server, "--key", certificates.server_key, "--ca", certificates.ca)
    context = ssl.create_default_context(cafile=certificates.ca)
    context.load_cert_chain(certificates.client, certificates.client_key)
    context.set_alpn_protocols(["h2"])
    with serving("CartPole-v1", "--port", 0, *options) as (_, printed):
        for version, works in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = version
            with socket.create_connection(("localhost", port_of(printed)), timeout=scaled(20.0)) as sock:
                if works:
                    context.wrap_socket(sock, server_hostname="localhost").close()
                else:
                    with pytest.raises((ssl.SSLError, ConnectionError)):
                        context.wrap_socket(sock, server_hostname="localhost")


def test_tokens_need_tls(tmp_path):
    (tmp_path / "tokens").touch()
    told = run("serve", "CartPole-v1", "--port", 0, "--token-file", tmp_path / "tokens", status=1)
    assert "--token-file needs TLS, or anybody could read the tokens; give certificates" in told
    assert "may be left out: with it clients need certificates as well" in told
