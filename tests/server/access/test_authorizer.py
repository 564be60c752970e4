from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from raw_client import opening
from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, NotPermitted, ServerFull
from remote_gym.server.access.authorizer import POLICY_BYTES, SETTLE, Authorizer, PolicySource
from remote_gym.server.access.clients import Client
from remote_gym.server.access.policy import NOTHING_TO_NOBODY, Policy, Rule
from remote_gym.server.launch.launcher import LaunchSpec
from remote_gym.server.launch.thread import ThreadLauncher
from remote_gym.server.service import Service
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled

ALICE, BOB = '[allow."DNS:alice"]\n', '[allow."DNS:bob"]\n'
REQUEST = opening()


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(ALICE)
    return path


@pytest.fixture
def source(path) -> PolicySource:
    return PolicySource(ServerOptions(policy=path, allow=("DNS:root",)), {})


def test_a_file_and_the_option_hold_together(source):
    for identity in ("DNS:alice", "DNS:root"):
        source.policy.decide(identity, "")
    with pytest.raises(NotPermitted):
        source.policy.decide("DNS:bob", "")


def test_a_file_that_is_being_written_does_not_hold_before_it_is_done(source, path, reload_clock):
    assert source.look() is None
    path.write_text(ALICE + BOB[:8])
    assert source.look() is None
    reload_clock.now += SETTLE
    path.write_text(ALICE + BOB)
    assert source.look() is None
    reload_clock.now += SETTLE
    policy = source.look()
    assert policy is not None
    policy.decide("DNS:bob", "")
    policy.decide("DNS:root", "")
    assert source.look() is None


def test_half_a_file_does_not_hold_though_its_disks_clock_is_behind(source, path, reload_clock):
    path.write_text(BOB)
    os.utime(path, (time.time() - 10.0 * SETTLE,) * 2)
    assert source.look() is None


def test_a_change_is_told_once(source, path, reload_clock, caplog):
    caplog.set_level(logging.INFO, "remote_gym")
    path.write_text(BOB)
    source.look()
    reload_clock.now += SETTLE
    assert source.look() is not None
    assert caplog.messages == [f"loaded anew: {path}"]


def test_a_file_that_is_as_it_was_again_has_not_changed(source, path, reload_clock):
    path.write_text(BOB)
    assert source.look() is None
    path.write_text(ALICE)
    for _ in range(2):
        assert source.look() is None
        reload_clock.now += SETTLE
    path.write_text(BOB)
    assert source.look() is None
    reload_clock.now += SETTLE
    assert source.look() is not None


@pytest.mark.parametrize(
    "content", [b"", b"[allow]", b"\xff", b"#" * (POLICY_BYTES + 1), None], ids=lambda c: f"{c!r:.9}"
)
def test_a_file_that_breaks_changes_nothing_is_told_once_and_can_be_mended(source, path, reload_clock, caplog, content):
    policy = source.policy
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for _ in range(5):
        assert source.look() is None
        reload_clock.now += SETTLE
    assert source.policy is policy
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(path) in caplog.text
    path.write_text(BOB)
    assert source.look() is None
    reload_clock.now += SETTLE
    assert source.look() is source.policy
    source.policy.decide("DNS:bob", "")


def test_rules_of_the_same_identity_in_both_are_refused(path):
    with pytest.raises(ConfigError, match=r"policy\.toml: ServerOptions\.allow names 'DNS:alice', too"):
        PolicySource(ServerOptions(policy=path, allow=("DNS:alice",)), {})


def test_without_a_default_environment_there_is_none_to_allow():
    with pytest.raises(ConfigError, match="no environment 'default'; the server offers easy"):
        PolicySource(ServerOptions(allow=("*=default",), environments={"easy": {}}), None)


def test_a_rules_quota_is_instead_of_the_servers():
    authorizer = Authorizer(
        ServerOptions(max_opens_per_second=0.1),
        Policy({"*": Rule(), "DNS:alice": Rule(max_opens_per_second=0.2)}),
        lambda: 0.0,
    )
    for _ in range(2):
        authorizer.admit("DNS:alice", REQUEST)
    with pytest.raises(
        ServerFull, match=r"than its policy allows, which is 0\.2 a second and 2 at once; try again in 5\.0"
    ):
        authorizer.admit("DNS:alice", REQUEST)
    authorizer.admit("DNS:bob", REQUEST)
    with pytest.raises(ServerFull, match=r"than ServerOptions\.max_opens_per_second allows, which is 0\.1 a second"):
        authorizer.admit("DNS:bob", REQUEST)


def test_a_session_counts_as_its_identitys_from_before_it_opens_until_it_is_gone():
    authorizer = Authorizer(
        ServerOptions(max_sessions_per_identity=1),
        Policy({"*": Rule(), "DNS:alice": Rule(max_sessions=2)}),
        lambda: 0.0,
    )
    for _ in range(2):
        authorizer.admit("DNS:alice", REQUEST)
    authorizer.admit("DNS:bob", REQUEST)
    for identity, count in {"DNS:alice": 2, "DNS:bob": 1}.items():
        with pytest.raises(ServerFull, match=f"'{identity}' has {count} sessions, .*max_sessions_per_identity"):
            authorizer.admit(identity, REQUEST)
        authorizer.let_go(identity)
        authorizer.admit(identity, REQUEST)
    for identity in ("DNS:alice", "DNS:alice", "DNS:bob"):
        authorizer.let_go(identity)
    assert not authorizer._held


def test_who_may_not_open_takes_nothing_from_who_may():
    authorizer = Authorizer(
        ServerOptions(max_opens_per_second=0.1), Policy({"DNS:alice": Rule(environments={})}), lambda: 0.0
    )
    for _ in range(3):
        with pytest.raises(NotPermitted):
            authorizer.admit("DNS:alice", REQUEST)


def test_a_right_that_is_withdrawn_while_a_session_opens_is_not_given(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])

    async def test() -> None:
        launcher = ThreadLauncher(2**20)
        start = launcher.launch

        async def launch(spec: LaunchSpec):
            worker = await start(spec)
            service.set_policy(NOTHING_TO_NOBODY)
            return worker

        launcher.launch = launch
        service = Service(launcher, {"entrypoint": "environments.py"}, ServerOptions())
        answer = await service.open(REQUEST, Client("DNS:alice"))
        assert answer.error.kind == pb.ErrorDetail.NOT_PERMITTED
        assert len(service) == 0
        await service.close()
        assert not service._authorizer._held

    asyncio.run(asyncio.wait_for(test(), scaled(30)))
