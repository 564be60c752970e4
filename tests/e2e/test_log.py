"""The log of ``remote-gym serve``: what clients and environments say stays within its line, and nobody fills it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import grpc
import pytest

from http2 import Half, announced_message
from raw_client import method
from remote_gym import RemoteEnvironment, RemoteGymError
from remote_gym.cli.commands.token import token
from remote_gym.transport.direct_socket import PREAMBLE
from served import served
from waiting import scaled, wait_until

FORGED = "\n2026-01-01 00:00:00,000 CRITICAL remote_gym: forged\x1b[2J\r"
ENTRYPOINT = f"""
import gymnasium as gym

def create_environment(fail=False, render_mode=None, enable_rendering=False):
    if fail or render_mode:
        raise RuntimeError({FORGED!r} + str(render_mode))
    return gym.make("CartPole-v1")
"""
CALLS = 400
AT_ONCE = 200
"""Fewer than may be refused at once in the form that clients read; further ones end by their status."""


def test_what_clients_and_environments_say_cannot_pass_for_a_record(tmp_path):
    log = tmp_path / "log"
    (tmp_path / "entrypoint.py").write_text(ENTRYPOINT)
    with served("--entrypoint", "entrypoint.py", "--port", "0", cwd=tmp_path, log=log) as server:
        hostile = [
            ({"entrypoint_kwargs": {"fail": True}}, None),
            ({"entrypoint_kwargs": {FORGED: 1}}, None),
            ({"environment": FORGED}, None),
            ({"entrypoint": FORGED}, None),
            ({"repo": FORGED}, None),
            ({}, FORGED),
        ]
        for arguments, render_mode in hostile:
            with pytest.raises(RemoteGymError):
                RemoteEnvironment("localhost", server.port, arguments, render_mode=render_mode).close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(scaled(30)) == 0
    text = log.read_bytes().decode()
    assert "forged" in text
    assert not [line for line in text.split("\n") if line.startswith("2026-01-01") or not line.isprintable()]


def count_calls_without_a_token(port: int, certificates) -> None:
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        call = channel.unary_unary(method("Load"))
        for begun in range(0, CALLS, AT_ONCE):
            calls = [call.future(b"", timeout=scaled(30.0)) for _ in range(min(AT_ONCE, CALLS - begun))]
            for each in calls:
                each.result()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_strangers_do_not_fill_the_log(tmp_path, certificates, log_format):
    log, tokens = tmp_path / "log", tmp_path / "tokens"
    token.main(["alice", "--file", str(tokens)], standalone_mode=False)
    files = ("--certificate", certificates.server, "--key", certificates.server_key, "--token-file", tokens)
    with served("CartPole-v1", "--port", "0", *files, "--log-format", log_format, log=log) as server:
        count_calls_without_a_token(server.port, certificates)
        for _ in range(CALLS):
            with socket.create_connection(("127.0.0.1", server.port), 10) as stranger:
                stranger.sendall(PREAMBLE + os.urandom(16))
                stranger.settimeout(scaled(10))
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(scaled(30)) == 0
    lines = log.read_text().splitlines()
    assert len(lines) < 30
    counted = [line for line in lines if " more like it in " in line]
    assert [f"and {CALLS - 5:,} more like it" in line for line in counted] == [True, True], lines
    if log_format == "json":
        records = [json.loads(line) for line in lines]
        assert {record.get("event") for record in records} >= {"call_refused", "direct_connection_refused"}
        assert all(record["time"] and record["level"] and record["logger"] for record in records)


def test_a_json_log_names_session_and_identity(tmp_path, certificates):
    log = tmp_path / "log"
    files = ("--certificate", certificates.server, "--key", certificates.server_key, "--ca", certificates.ca)
    credentials: tuple[Path, ...] = (certificates.ca, certificates.client, certificates.client_key)
    with served("CartPole-v1", "--port", "0", *files, "--log-format", "json", log=log) as server:
        environment = RemoteEnvironment("localhost", server.port, {}, credentials)
        session = environment.ticket.session
        environment.close()
        wait_until(lambda: "session_ended" in log.read_text())
    records = [json.loads(line) for line in log.read_text().splitlines()]
    found = [(record["event"], record["session"], record["identity"]) for record in records if "event" in record]
    assert found == [(event, session, "DNS:remote-gym-client") for event in ("session_opened", "session_ended")]


def test_what_grpc_itself_says_of_strangers_is_not_in_the_log(tmp_path, monkeypatch):
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    log = tmp_path / "log"
    with served("CartPole-v1", "--port", "0", log=log) as server:
        for encoding in ("snappy", "gzip"):
            connection = Half(server.port, None)
            number = connection.begin("/grpc.health.v1.Health/Check", {"grpc-encoding": encoding})
            connection.send(number, announced_message(0))
            wait_until(lambda c=connection, n=number: c.look() or n in c.ended)
            connection.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(scaled(30)) == 0
    assert log.read_text() == ""


def test_verbose_shows_why_a_handshake_was_refused(tmp_path, certificates, monkeypatch):
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    log = tmp_path / "log"
    files = ("--certificate", certificates.server, "--key", certificates.server_key, "--ca", certificates.ca)
    with served("CartPole-v1", "--port", "0", *files, "--verbose", log=log) as server:
        with pytest.raises(RemoteGymError):
            RemoteEnvironment("localhost", server.port, {}, (certificates.ca, None, None))
        wait_until(lambda: "PEER_DID_NOT_RETURN_A_CERTIFICATE" in log.read_text())
