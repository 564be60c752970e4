"""Environments that are made ahead, so that a session finds one."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import remote_gym
from counting import Counted
from processes import is_alive
from remote_gym import ConfigError, NotPermitted, RemoteEnvironment, ServerFull, create_remote_environment_server
from remote_gym.server.spares import stock
from remote_gym.testing import LoopbackServer, loopback_server
from served import served
from tenants import tenant
from waiting import scaled, wait_until

WHERE = {"worker": {}, "guest": {"command": [sys.executable]}}


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "FIRST_PAUSE", 0.05)


@contextlib.contextmanager
def serving(offer: dict, spares: int = 1, **options) -> Iterator[LoopbackServer]:
    """Serve once so many environments are there."""
    with loopback_server(offer, secure=False, **options) as server:
        wait_until(lambda: server.server.spare_count == spares)
        yield server


@pytest.mark.parametrize("where", ["worker", "thread", "guest"])
def test_a_session_gets_one_that_is_there_and_another_is_made(counted, where):
    offer = counted.offer(warm=1, **WHERE.get(where, {}))
    with serving(offer, use_thread=where == "thread") as server:
        [made] = counted.notes("made")
        counted.block()
        environment = server.environment()
        _, info = environment.reset(seed=1)
        assert (info["pid"], info["env_id"]) == (made.pid, made.env_id)
        environment.step(0)
        wait_until(lambda: counted.count("begun") == 2)  # while the session goes on
        assert server.server.spare_count == 0
        counted.unblock()
        wait_until(lambda: server.server.spare_count == 1)
        environment.close()
        assert counted.count("closed") == 1
        assert server.environment().reset()[1]["env_id"] == counted.notes("made")[1].env_id != made.env_id


def test_numbers_are_free_again_when_their_environments_are_gone(counted):
    with serving(counted.offer(warm=1)) as server:
        for _ in range(3):
            server.environment().close()
            wait_until(lambda: server.server.spare_count == 1)
        assert {note.env_id for note in counted.notes("made")} <= {0, 1}
        assert server.server._spares is server.server._service._spares


def test_what_the_server_tries_is_the_first_of_them(counted):
    with create_remote_environment_server(
        counted.offer(warm=1), port=0, environments={"other": counted.offer()}
    ) as server:
        assert server.spare_count == 1
        assert [counted.count(what) for what in ("made", "closed")] == [2, 1]


def test_the_trials_of_several_leave_room_for_each_other(counted):
    other = counted.offer(warm=1, entrypoint_kwargs={"task": 1})
    with create_remote_environment_server(
        counted.offer(warm=1), port=0, environments={"other": other}, max_sessions=1
    ) as server:
        assert server.spare_count == 1
        assert [note.task for note in counted.notes("made")] == [1, 0]
        assert [note.task for note in counted.notes("closed")] == [1]  # before the other one was made
        with RemoteEnvironment(port=server.port) as environment:  # in its way, whichever it is
            environment.reset()
            assert server.spare_count == 0
            assert counted.count("made") - counted.count("closed") == 1


def test_without_it_the_trial_is_closed(counted):
    with create_remote_environment_server(counted.offer(), port=0) as server:
        assert server.spare_count == 0
        assert counted.count("closed") == 1


def test_two_sessions_in_a_row_say_what_is_made_ahead_too(counted):
    with serving(counted.offer(warm=2), 2) as server:
        asking = {"remote_args": {"entrypoint_kwargs": {"task": 3}}, "render_mode": "rgb_array"}
        server.environment(**asking).close()
        assert server.server.spare_count == 2  # as before
        server.environment(**asking).close()
        wait_until(lambda: [note.task for note in counted.notes("made")] == [0, 0, 3, 3, 3])
        wait_until(lambda: counted.count("closed") == 3)  # one that nobody had asked for among them
        wait_until(lambda: server.server.spare_count == 2)
        counted.block()
        environment = server.environment(**asking)
        assert environment.reset()[1]["pid"] == counted.notes("made")[4].pid
        assert environment.render().shape == (2, 2, 3)
        first, second = counted.notes("made")[:2]
        assert server.environment().reset()[1]["pid"] in (first.pid, second.pid)  # which is there for others


def test_one_tenant_does_not_say_what_is_made_ahead_for_all(counted):
    with loopback_server(counted.offer(warm=2)) as server:
        alice, bob = (tenant(server, name) for name in ("alice", "bob"))
        wait_until(lambda: server.server.spare_count == 2)
        server.environment(client_credentials_paths=bob).close()
        for task in (3, 3, 3):
            asking = {"entrypoint_kwargs": {"task": task}}
            server.environment(client_credentials_paths=alice, remote_args=asking).close()
        wait_until(lambda: server.server.spare_count == 2)
        assert [note.task for note in counted.notes("made")].count(3) == 3  # one for each session, and none ahead
        counted.block()
        for _ in range(2):
            server.environment(client_credentials_paths=bob)


def test_vector_environments_are_made_ahead_too(counted):
    with serving(counted.offer(warm=2), 2) as server:
        for _ in range(2):
            server.vector_environment(2).close()
        wait_until(lambda: len(counted.notes("made")) == 2 + 3 * 2)
        wait_until(lambda: server.server.spare_count == 2)
        counted.block()
        environments = server.vector_environment(2)
        assert environments.reset()[1]["pid"].tolist() == [note.pid for note in counted.notes("made")[-2:]]
        assert environments.call("double") == (2, 2)


def test_there_are_never_more_at_once_than_sessions_may_be(counted):
    offers = {"other": counted.offer(entrypoint_kwargs={"task": 9})}
    with serving(counted.offer(warm=3), 2, environments=offers, max_sessions=2) as server:
        assert counted.count("begun") == 2
        for _ in range(2):
            server.environment(remote_args={"environment": "other"}).reset()
        assert server.server.spare_count == 0
        made, closed = counted.notes("made"), counted.notes("closed")
        assert [note.task for note in made] == [0, 0, 9, 9]
        assert {note.pid for note in closed} == {note.pid for note in made[:2]}
        with pytest.raises(ServerFull, match="as many as its max_sessions of 2"):
            server.environment()
        server._clients[0].close()
        wait_until(lambda: server.server.spare_count == 1)  # there is room again


def test_of_an_environment_there_are_no_more_than_its_own_max_sessions(counted):
    with serving(counted.offer(warm=2, max_sessions=2), 2) as server:
        asking = {"remote_args": {"entrypoint_kwargs": {"task": 1}}}
        server.environment(**asking).reset()
        assert server.server.spare_count == 1
        assert counted.count("closed") == 1
        server.environment().reset()
        assert counted.count("made") == 3
        with pytest.raises(ServerFull, match="as many as its max_sessions of 2"):
            server.environment()


def test_one_that_is_being_made_goes_for_a_session_at_once(counted):
    counted.block()
    with loopback_server(
        counted.offer(warm=1), secure=False, max_sessions=1, environments={"other": "CartPole-v1"}
    ) as server:
        wait_until(lambda: counted.count("begun") == 1)
        server.environment(remote_args={"environment": "other"}).reset()
        assert not is_alive(counted.notes("begun")[0].pid)


@pytest.mark.parametrize("where", WHERE)
def test_one_that_dies_is_made_anew(counted, where):
    with serving(counted.offer(warm=1, **WHERE[where])) as server:
        os.kill(counted.notes("made")[0].pid, signal.SIGKILL)
        wait_until(lambda: counted.count("made") == 2)
        wait_until(lambda: server.server.spare_count == 1)
        assert server.environment().reset()[1]["pid"] == counted.notes("made")[1].pid


def test_they_are_watched_as_sessions_are(counted):
    with serving(counted.offer(warm=1), step_timeout=scaled(0.5)):
        os.kill(counted.notes("made")[0].pid, signal.SIGSTOP)
        wait_until(lambda: counted.count("made") == 2)
        assert not is_alive(counted.notes("made")[0].pid)


def test_a_session_makes_its_own_where_the_one_that_is_there_hangs(counted, monkeypatch):
    from remote_gym.server.spares import spares

    monkeypatch.setattr(spares, "ASSIGN_TIMEOUT", 0.2)
    with serving(counted.offer(warm=1)) as server:
        pid = counted.notes("made")[0].pid
        os.kill(pid, signal.SIGSTOP)
        assert server.environment().reset()[1]["pid"] != pid
        assert not is_alive(pid)


def test_what_cannot_be_made_is_logged_once_and_tried_again(counted, caplog):
    caplog.set_level(logging.WARNING, "remote_gym")
    counted.block("broken")
    with loopback_server(counted.offer(warm=1), secure=False) as server:
        wait_until(lambda: counted.count("begun") >= 3)
        with pytest.raises(Exception, match="no simulator for you"):
            server.environment()
        counted.unblock("broken")
        wait_until(lambda: server.server.spare_count == 1)
    assert [line.split(":")[0] for line in caplog.messages if "made ahead" in line] == [
        "default could not be made ahead, which is tried again"
    ]


def test_an_environment_of_which_clients_say_more_waits_for_that(counted, tmp_path):
    (tmp_path / "needs.py").write_text(
        "import gymnasium\ndef create_environment(track): return gymnasium.make('CartPole-v1')"
    )
    with create_remote_environment_server({"entrypoint": str(tmp_path / "needs.py"), "warm": 1}, port=0) as server:
        assert server.spare_count == 0
        for _ in range(2):
            RemoteEnvironment(port=server.port, remote_args={"entrypoint_kwargs": {"track": 1}}).close()
        wait_until(lambda: server.spare_count == 1)


def test_each_has_a_device_of_its_own(counted):
    with serving(counted.offer(warm=1, gpus=[0, 1, 2])) as server:
        environments = []
        for number in range(3):
            environments.append(server.environment())
            assert environments[-1].get_wrapper_attr("gpu") == str(number)
            wait_until(lambda: server.server.spare_count == 1)
        for environment in environments:
            environment.close()


def test_a_policy_holds_for_who_gets_one(counted, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[allow."DNS:alice"]\n[allow."DNS:bob"]\nenvironments = {default = {arguments = ["render_mode"]}}\n'
    )
    with loopback_server(counted.offer(warm=2), policy=policy) as server:
        alice, bob = (tenant(server, name) for name in ("alice", "bob"))
        asking = {"remote_args": {"entrypoint_kwargs": {"task": 3}}}
        for _ in range(2):
            server.environment(client_credentials_paths=alice, **asking).close()
        wait_until(lambda: [note.task for note in counted.notes("made")].count(3) == 3)
        wait_until(lambda: server.server.spare_count == 2)
        with pytest.raises(NotPermitted, match="task"):
            server.environment(client_credentials_paths=bob, **asking)
        with pytest.raises(NotPermitted):
            server.environment(client_credentials_paths=tenant(server, "eve"))


@pytest.mark.parametrize("keys", [{"warm": -1}, {"warm": True}, {"warm": 3, "max_sessions": 2}, {"reuse": 1}])
def test_what_cannot_be_is_refused(keys):
    with pytest.raises(ConfigError, match=rf"default_args has {next(iter(keys))}\b"):
        create_remote_environment_server({"entrypoint_kwargs": {"id": "CartPole-v1"}, **keys}, port=0)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_none_outlives_its_server(counted, tmp_path, where, by):
    config = tmp_path / "server.toml"
    file, command = counted.offer()["entrypoint"], WHERE[where].get("command")
    config.write_text(f'[environment]\nentrypoint = "{file}"\nwarm = 2\n' + (f"command = {command}" if command else ""))
    with served("--port", 0, "--config", config) as server:
        wait_until(lambda: counted.count("made") == 2)
        server.process.send_signal(by)
        server.process.wait(scaled(20.0))
    wait_until(lambda: not any(is_alive(note.pid) for note in counted.notes("made")))


def test_a_server_that_drains_has_none_and_keeps_none(counted):
    with loopback_server(counted.offer(warm=1, reuse=True), drain_timeout=scaled(30.0)) as server:
        environment = server.environment()
        environment.reset()
        wait_until(lambda: server.server.spare_count == 1)
        stopped = server.server.stop()
        wait_until(lambda: counted.count("closed") == 1)
        environment.step(0)
        environment.close()
        assert stopped.wait(scaled(20.0))
        assert (counted.count("made"), counted.count("closed")) == (2, 2)


def test_flags_say_it_too(counted, tmp_path):
    file = counted.offer()["entrypoint"]
    with served(file, "--port", 0, "--warm", 1, "--reuse"):
        wait_until(lambda: counted.count("made") == 1)
    command = [sys.executable, "-m", "remote_gym", "serve", file, "--warm", "1", "--reuse", "--print-config"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=scaled(60.0)).stdout
    assert {"warm = 1", "reuse = true"} <= set(printed.splitlines())


def test_a_program_that_launches_its_own_server_has_them_too(counted):
    with remote_gym.launch(counted.offer(), warm=1) as server:
        [made] = counted.notes("made")
        assert server.environment().reset()[1]["pid"] == made.pid


@pytest.mark.long
def test_a_constructor_of_20_seconds_holds_nobody_up(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text(
        "import time, gymnasium\n"
        "def create_environment():\n    time.sleep(20)\n    return gymnasium.make('CartPole-v1')"
    )
    with create_remote_environment_server({"entrypoint": str(file), "warm": 3}, port=0, check=False) as server:
        wait_until(lambda: server.spare_count == 3, 60.0)
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            with RemoteEnvironment(port=server.port) as environment:
                seconds.append(time.perf_counter() - begin)
                environment.reset(seed=1)
        print("seconds to open:", *(f"{each:.3f}" for each in seconds))
        assert max(seconds) < scaled(0.2)
