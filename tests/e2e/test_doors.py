"""Who may open what, how many, how often, and with which keyword arguments, over real connections."""

from __future__ import annotations

import concurrent.futures
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from environments import ACTION
from raw_client import RawSession, channel_to, step
from remote_gym import NotPermitted, RemoteEnvironmentError, ServerFull, SessionLost, create_remote_environment_server
from remote_gym.errors import ConfigError
from remote_gym.server import serve
from remote_gym.testing import LoopbackServer, loopback_server
from tenants import tenant
from waiting import scaled, wait_until

POLES = {name: {"entrypoint_kwargs": {"id": "CartPole-v1"}} for name in ("easy", "hard")}


def open_as(server: LoopbackServer, name: str, environment: str | None = None, **kwargs):
    arguments = {"environment": environment, "entrypoint_kwargs": kwargs}
    return server.environment(client_credentials_paths=tenant(server, name), remote_args=arguments)


@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_only_who_is_allowed_opens_only_what_is_named(connection, caplog):
    caplog.set_level(logging.INFO, "remote_gym")
    allow = ("DNS:alice", "DNS:bob=easy,hard", "DNS:carol=default")
    with loopback_server("CartPole-v1", environments=POLES, allow=allow, use_thread=True) as server:
        server.client_arguments["connection"] = connection
        for name, environments in {"alice": (None, "easy"), "bob": ("easy", "hard"), "carol": (None,)}.items():
            for environment in environments:
                open_as(server, name, environment).close()
        with pytest.raises(NotPermitted, match="'DNS:bob' open environment 'default'; it may open: easy, hard"):
            open_as(server, "bob")
        with pytest.raises(NotPermitted, match="'DNS:carol' open environment 'hard'; it may open: default"):
            open_as(server, "carol", "hard")
        # Nobody learns which other environments there are by asking for one that there is not.
        with pytest.raises(NotPermitted, match=r"it may open: default$"):
            open_as(server, "carol", "no such thing")
        with pytest.raises(NotPermitted, match="no rule for 'DNS:mallory'"):
            open_as(server, "mallory", "easy")
        with pytest.raises(NotPermitted):
            open_as(server, "bob", "x" * 100_000 + "\nforged")
        assert server.server.session_count == 0
    # The server's owner is told, in lines of a length and form that the client does not choose.
    refused = [record.getMessage() for record in caplog.records if "refused a session" in record.message]
    assert len(refused) == 5
    assert "no rule for 'DNS:mallory'" in refused[3]
    assert len(refused[4]) < 400
    assert "\n" not in refused[4]


def test_a_client_is_told_whom_it_is_taken_for_and_what_it_may_open():
    allow = ("DNS:alice", "DNS:bob=hard")
    with loopback_server("CartPole-v1", environments=POLES, allow=allow, use_thread=True) as server:
        alice = open_as(server, "alice")._session._session
        assert (alice.identity, list(alice.environments)) == ("DNS:alice", ["default", "easy", "hard"])
        bob = open_as(server, "bob", "hard")._session._session
        assert (bob.identity, list(bob.environments)) == ("DNS:bob", ["hard"])


def test_without_certificates_only_everybody_may_be_named():
    options = {"environments": POLES, "secure": False, "allow": ("*=easy",), "use_thread": True}
    with loopback_server("CartPole-v1", **options) as server:
        server.environment(remote_args={"environment": "easy"})
        with pytest.raises(NotPermitted, match="a client without an identity"):
            server.environment()


def test_entrypoints_of_clients_are_for_those_who_may_open_everything(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "import gymnasium\ndef create_environment():\n    return gymnasium.make('CartPole-v1')\n"
    )
    allow = ("DNS:alice", "DNS:bob=default")
    with loopback_server("CartPole-v1", client_entrypoints=tmp_path, allow=allow, use_thread=True) as server:
        arguments = {"remote_args": {"entrypoint": "theirs.py"}}
        server.environment(client_credentials_paths=tenant(server, "alice"), **arguments)
        with pytest.raises(NotPermitted, match="'DNS:bob' open entrypoints of its own"):
            server.environment(client_credentials_paths=tenant(server, "bob"), **arguments)


POLICY = """
[allow."DNS:alice"]
max_sessions = 1
arguments = ["difficulty"]

[allow."DNS:bob"]
environments = ["default"]
"""
LOADS = """
import os, pathlib, gymnasium
pathlib.Path(os.environ["LOADED"]).touch()
EXPOSED = ("kwargs",)
def create_environment(**kwargs):
    environment = gymnasium.make("CartPole-v1")
    environment.unwrapped.kwargs = sorted(kwargs)
    return environment
"""


@pytest.fixture
def policy(tmp_path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.mark.parametrize("use_thread", [False, True])
def test_keyword_arguments_are_refused_before_any_code_of_the_environment_runs(
    tmp_path, monkeypatch, policy, use_thread
):
    loaded = tmp_path / "loaded"
    monkeypatch.setenv("LOADED", str(loaded))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loads.py").write_text(LOADS)
    arguments = {"entrypoint": "loads.py", "entrypoint_kwargs": {"own": 1}}
    with loopback_server(arguments, policy=policy, use_thread=use_thread) as server:
        with pytest.raises(NotPermitted, match="keyword argument 'path'; it may set: difficulty"):
            open_as(server, "alice", path="/etc/passwd")
        assert not loaded.exists()
        # The server's own are not the client's to be allowed.
        assert open_as(server, "alice", difficulty=2).kwargs == ["difficulty", "own"]
        assert open_as(server, "bob", path="x").kwargs == ["own", "path"]


def test_keyword_arguments_have_to_fit_the_schema(tmp_path, obedient):
    pytest.importorskip("jsonschema", reason="the extra policy is not installed")
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "[allow.'DNS:alice']\n[allow.'DNS:alice'.environments.default]\n"
        "schema = { properties = { delay = { type = 'number', maximum = 0.5 } }, additionalProperties = false }\n"
    )
    with loopback_server(obedient, policy=policy, use_thread=True) as server:
        open_as(server, "alice", delay=0.5).reset()
        with pytest.raises(NotPermitted, match=r"\$\.delay: 4 is greater than the maximum of 0\.5"):
            open_as(server, "alice", delay=4)
        with pytest.raises(NotPermitted, match=r"'path' was unexpected"):
            open_as(server, "alice", path=4)


def test_a_policy_holds_as_it_changes_and_a_broken_one_changes_nothing(policy, obedient, caplog, monkeypatch):
    monkeypatch.setattr(serve, "POLICY_INTERVAL", 0.1)
    caplog.set_level(logging.INFO, "remote_gym")
    with loopback_server(obedient, policy=policy) as server:
        alice, bob = open_as(server, "alice"), open_as(server, "bob")
        alice.reset()
        bob.reset()

        policy.write_text('[allow."DNS:alice"]\nmax_sesions = 1')
        wait_until(lambda: "what was loaded before stays in use" in caplog.text, timeout=30.0)
        assert f"{policy}: [allow.\"DNS:alice\"]: there is no key 'max_sesions'" in caplog.text
        policy.write_text("")
        wait_until(lambda: "there is no table" in caplog.text, timeout=30.0)
        policy.unlink()
        wait_until(lambda: "cannot be read: No such file" in caplog.text, timeout=30.0)
        for environment in (alice, bob):
            environment.step(ACTION["step"])
        with pytest.raises(NotPermitted, match="no rule"):
            open_as(server, "carol")

        policy.write_text('[allow."DNS:alice"]\nmax_sessions = 1\n[allow."DNS:carol"]')
        wait_until(lambda: "loaded anew: " in caplog.text, timeout=30.0)
        open_as(server, "carol").reset()
        alice.step(ACTION["step"])
        with pytest.raises(SessionLost, match="may no longer be open: the server's policy has no rule for 'DNS:bob'"):
            bob.step(ACTION["step"])
        with pytest.raises(NotPermitted, match="no rule for 'DNS:bob'"):
            bob.reset()
        # What is broken is told once, however often it is looked at.
        assert caplog.text.count("cannot be read: No such file") == 1


def test_whatever_goes_wrong_with_one_look_the_next_withdraws_a_right(policy, obedient, caplog, monkeypatch):
    monkeypatch.setattr(serve, "POLICY_INTERVAL", 0.1)
    failures = iter([MemoryError("for once")])
    look = serve.PolicySource.look

    def look_or_fail(source):
        for failure in failures:
            raise failure
        return look(source)

    monkeypatch.setattr(serve.PolicySource, "look", look_or_fail)
    with loopback_server(obedient, policy=policy, use_thread=True) as server:
        alice = open_as(server, "alice")
        alice.reset()
        wait_until(lambda: "could not look whether the policy has changed" in caplog.text, timeout=30.0)
        policy.write_text('[allow."DNS:bob"]')
        wait_until(lambda: not server.server.session_count, timeout=30.0)
        with pytest.raises(SessionLost, match="may no longer be open"):
            alice.step(ACTION["step"])


def test_a_server_with_a_policy_that_cannot_work_does_not_start(policy, obedient):
    for options in ({"policy": policy, "allow": ("DNS:bob",)}, {"allow": ("bob",)}, {"allow": ("DNS:bob=x",)}):
        with pytest.raises(ConfigError, match=r"ServerOptions\.allow"):
            create_remote_environment_server(obedient, "localhost", 0, use_thread=True, **options)
    with pytest.raises(ConfigError, match=r"environments\['default'\]"):
        create_remote_environment_server(None, "localhost", 0, environments={"default": obedient}, allow=("*",))


@pytest.mark.parametrize("by", ["policy", "option"])
def test_one_identity_holds_no_more_sessions_than_it_may_while_others_open_theirs(policy, obedient, by):
    options = {"policy": policy} if by == "policy" else {"max_sessions_per_identity": 1}
    with loopback_server(obedient, use_thread=True, **options) as server:
        first = open_as(server, "alice")
        with pytest.raises(ServerFull, match=r"'DNS:alice' has 1 sessions.*max_sessions_per_identity"):
            open_as(server, "alice")
        open_as(server, "bob").reset()
        first.close()
        open_as(server, "alice").reset()


def test_one_identity_opens_no_more_often_than_it_may_while_others_open_theirs(obedient):
    with loopback_server(obedient, max_opens_per_second=0.1, use_thread=True) as server:
        paths = tenant(server, "alice")

        def attempt(_: int) -> str:
            try:
                server.environment(client_credentials_paths=paths).close()
            except ServerFull as error:
                return str(error)
            return ""

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            crowd = [pool.submit(attempt, number) for number in range(8)]
            open_as(server, "bob").reset()
            said = [one.result(scaled(60.0)) for one in crowd]
        refused = [text for text in said if text]
        assert len(refused) >= 4
        limit = "'DNS:alice' opened more sessions than ServerOptions.max_opens_per_second allows"
        assert all(limit in text for text in refused)


def test_what_an_environment_raises_is_told_to_the_client_that_owns_it_and_to_nobody_else(server):
    alice, bob = open_as(server, "alice"), open_as(server, "bob")
    for environment in (alice, bob):
        environment.reset()
    with pytest.raises(RemoteEnvironmentError) as caught:
        alice.step(ACTION["raise"])
    secret = caught.value.remote_message
    assert secret
    assert bob.step(ACTION["step"])[0]["count"] == 1
    # Not even who has learnt of Alice's session, and asks under her number for the answer that is kept there.
    with channel_to(replace(server, client_credentials_paths=tenant(server, "bob"))) as channel:
        answer = RawSession(channel, alice._session._session).ask("Step", step(2, "raise"))
    assert "another identity" in answer.error.message
    assert secret not in str(answer)
