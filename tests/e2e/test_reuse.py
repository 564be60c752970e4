"""Environments that are kept for their client's next session."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from counting import DIES, ENDS, FAILS, PRINTS, Counted
from processes import is_alive
from raw_client import RawSession, channel_to, reset, step
from remote_gym import (
    NotPermitted,
    RemoteEnvironment,
    RemoteEnvironmentError,
    SessionLost,
    TlsFiles,
    create_remote_environment_server,
)
from remote_gym.auth.tokens import add_token
from remote_gym.server.spares import stock
from remote_gym.testing import LoopbackServer, loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.autoreset import AutoresetMode
from tenants import tenant
from waiting import wait_until

WHERE: dict[str, dict[str, Any]] = {"worker": {}, "guest": {"command": [sys.executable]}}


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


@pytest.fixture
def server(counted: Counted) -> Iterator[LoopbackServer]:
    with loopback_server(counted.offer(reuse=True)) as running:
        yield running


def of(server: LoopbackServer, name: str = "alice", **arguments: Any) -> RemoteEnvironment:
    return server.environment(client_credentials_paths=tenant(server, name), **arguments)


def pid_of(environment: RemoteEnvironment) -> int:
    found: int = environment.reset()[1]["pid"]
    return found


@pytest.mark.parametrize(
    ("where", "connection"), [("worker", "direct"), ("worker", "grpc"), ("thread", "direct"), ("guest", "direct")]
)
def test_a_client_gets_its_environment_again(counted, where, connection):
    offer = counted.offer(reuse=True, **WHERE.get(where, {}))
    with loopback_server(offer, use_thread=where == "thread") as server:
        server.client_arguments["connection"] = connection
        first = of(server)
        _, info = first.reset(seed=1)
        first.step(ENDS)
        first.close()
        assert server.server.spare_count == 1
        assert server.server.session_count == 0
        again = of(server)
        assert again.reset(seed=1)[1] == info
        again.step(0)
        assert server.server.sessions()[0].counters.steps == 1
        again.close()
        assert (counted.count("made"), counted.count("closed")) == (1, 0)
    assert counted.count("closed") == 1


def test_unseeded_resets_go_on_with_the_generator(server):
    first = of(server)
    first.reset(seed=1)
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(1)))
    expected.random(2)
    first.close()
    assert of(server).reset()[0].tolist() == expected.random(2).tolist()


@pytest.mark.parametrize("other", ["bob", "arguments", "render_mode", "vector"])
def test_only_the_same_client_gets_it_for_just_the_same(counted, server, other):
    first = of(server)
    pid = pid_of(first)
    first.close()
    if other == "vector":
        paths = tenant(server, "alice")
        environments = server.vector_environment(1, client_credentials_paths=paths)
        assert environments.reset()[1]["pid"].tolist() != [pid]
    else:
        arguments: dict[str, dict[str, Any]] = {
            "bob": {"name": "bob"},
            "arguments": {"remote_args": {"entrypoint_kwargs": {"task": 0}}},
            "render_mode": {"render_mode": "rgb_array"},
        }
        assert pid_of(of(server, **arguments[other])) != pid
    assert server.server.spare_count == 1
    assert pid_of(of(server)) == pid  # hers is hers still


def test_who_shows_no_certificate_gets_a_new_one_each_time(counted, caplog):
    with loopback_server(counted.offer(warm=1, reuse=True), secure=False) as server:
        wait_until(lambda: server.server.spare_count == 1)
        for number in range(1, 3):
            environment = server.environment()
            pid = pid_of(environment)
            environment.close()
            assert [note.pid for note in counted.notes("closed")][number - 1 :] == [pid]
            wait_until(lambda: server.server.spare_count == 1)
    assert "reuse=True keeps no environment here" in caplog.text


def test_a_client_is_known_by_its_token_too(counted, tmp_path, certificates):
    tokens = {name: add_token(tmp_path / "tokens", name) for name in ("alice", "bob")}
    files = TlsFiles(certificate=certificates.server, private_key=certificates.server_key)
    arguments = {"tls": TlsFiles(ca=certificates.ca)}
    with create_remote_environment_server(
        counted.offer(reuse=True), port=0, tls=files, token_file=tmp_path / "tokens"
    ) as server:
        pids = []
        for name in ("alice", "bob", "alice"):
            with RemoteEnvironment(port=server.port, token=tokens[name], **arguments) as environment:
                pids.append(pid_of(environment))
    assert pids[0] == pids[2] != pids[1]


def test_token_number_and_last_answer_do_not_cross(counted, server):
    server.client_credentials_paths = tenant(server, "alice")
    with channel_to(server) as channel:
        first = RawSession.open(channel)
        assert first.ask("Reset", reset(1)).HasField("reset")
        assert first.ask("Step", step(2)).HasField("step")
        first.close()
        second = RawSession.open(channel)
        assert counted.count("made") == 1
        assert second.session.token != first.session.token
        for request in (step(3), step(2), pb.Request(sequence=2)):
            assert second.ask("Step", request).error.kind == pb.ErrorDetail.OUT_OF_SEQUENCE
        assert "before the first reset" in second.ask("Step", step(1)).error.message
        assert "before the first reset" in second.ask("Render", pb.Request(sequence=2, render={})).error.message
        assert second.ask("Reset", reset(3)).HasField("reset")
        first.session.id = second.session.id
        assert first.ask("Step", step(4)).error.kind == pb.ErrorDetail.NOT_PERMITTED
        second.close()


@pytest.mark.parametrize("what", ["attribute", "exception", "exception_of_many", "lease", "nothing"])
def test_what_did_not_end_well_is_closed(counted, what):
    with loopback_server(counted.offer(reuse=True), lease=0.2) as server:
        environment = of(server, connection="grpc" if what == "lease" else "auto")
        pid = pid_of(environment)
        if what == "attribute":
            environment.set_wrapper_attr("level", 7)
        elif what == "exception":
            with pytest.raises(RemoteEnvironmentError, match="as asked"):
                environment.step(FAILS)
            environment.reset()
        elif what == "exception_of_many":
            with pytest.raises(RemoteEnvironmentError, match="as asked"):
                environment.step_many([0, FAILS])
        if what == "lease":
            environment.detach()
            wait_until(lambda: counted.count("closed"))
        else:
            environment.close()
        assert server.server.spare_count == (what == "nothing")
        assert counted.count("closed") == (what != "nothing")
        assert (pid_of(of(server)) == pid) == (what == "nothing")


@pytest.mark.parametrize("where", WHERE)
def test_what_one_session_prints_no_other_is_told(counted, where):
    with loopback_server(counted.offer(reuse=True, **WHERE[where])) as server:
        first = of(server)
        pid = pid_of(first)
        first.step(PRINTS)
        first.close()
        second = of(server)
        assert pid_of(second) == pid
        with pytest.raises(SessionLost) as lost:
            second.step(DIES)
        assert "secret" not in lost.value.output


def test_it_goes_at_once_where_another_client_needs_its_place(counted):
    with loopback_server(counted.offer(reuse=True), max_sessions=1) as server:
        first = of(server)
        pid = pid_of(first)
        first.close()
        assert pid_of(of(server, "bob")) != pid
        assert [note.pid for note in counted.notes("closed")] == [pid]


def test_it_goes_when_nobody_has_come_back_for_long(counted, monkeypatch):
    monkeypatch.setattr(stock, "KEEP_SECONDS", 0.3)
    with loopback_server(counted.offer(reuse=True)) as server:
        of(server).close()
        wait_until(lambda: counted.count("closed") == 1)
        assert server.server.spare_count == 0


def test_no_more_than_some_are_kept(counted, monkeypatch):
    monkeypatch.setattr(stock, "MOST_KEPT", 2)
    with loopback_server(counted.offer(reuse=True)) as server:
        environments = [of(server) for _ in range(3)]
        pids = [pid_of(environment) for environment in environments]
        for environment in environments:
            environment.close()
        wait_until(lambda: server.server.spare_count == 2)
        wait_until(lambda: [note.pid for note in counted.notes("closed")] == pids[:1])


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium has had masks since 1.1")
def test_some_of_several_cannot_be_reset_before_all_have_been(server):
    paths = tenant(server, "alice")
    first = server.vector_environment(2, client_credentials_paths=paths, autoreset_mode="Disabled")
    pids = first.reset()[1]["pid"].tolist()
    first.step(np.array([0, ENDS]))
    first.close()
    second = server.vector_environment(2, client_credentials_paths=paths, autoreset_mode="Disabled")
    with pytest.raises(gym.error.ResetNeeded):
        second.reset(options={"reset_mask": np.array([False, True])})
    assert second.reset()[1]["pid"].tolist() == pids


def test_a_policy_is_asked_anew(counted, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[allow."DNS:alice"]\n')
    with loopback_server(counted.offer(reuse=True), policy=policy) as server:
        of(server).close()
        assert server.server.spare_count == 1
        policy.write_text('[allow."DNS:bob"]\n')
        wait_until(lambda: server.server.spare_count == 0)

        def is_refused() -> bool:
            try:
                of(server).close()
            except NotPermitted:
                return True
            return False

        wait_until(is_refused)


def test_one_that_dies_while_it_is_kept_is_no_more(counted, server):
    first = of(server)
    pid = pid_of(first)
    first.close()
    os.kill(pid, 9)
    wait_until(lambda: server.server.spare_count == 0)
    assert pid_of(of(server)) != pid


def test_kept_and_made_ahead_go_together(counted):
    with loopback_server(counted.offer(warm=1, reuse=True)) as server:
        wait_until(lambda: server.server.spare_count == 1)
        [ahead] = counted.notes("made")
        first = of(server)
        assert pid_of(first) == ahead.pid
        wait_until(lambda: server.server.spare_count == 1)
        first.close()
        assert server.server.spare_count == 2
        assert pid_of(of(server)) == ahead.pid  # her own first
        assert pid_of(of(server, "bob")) == counted.notes("made")[1].pid
    assert not any(is_alive(note.pid) for note in counted.notes("made"))
