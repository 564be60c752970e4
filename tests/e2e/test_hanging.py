"""Environments that hang or grow: their workers are ended, their clients told why, and nobody else notices."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from environments import ACTION, GROWTH
from processes import is_alive
from remote_gym import RemoteEnvironment, RemoteEnvironmentError, ServerFull, SessionLost
from remote_gym.logs.escaping import PREFIX
from remote_gym.testing import LoopbackServer, loopback_server
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TIMEOUT = scaled(0.8)
STEP_REASON = f"took over {TIMEOUT:g} s (ServerOptions.step_timeout)"
CONNECTIONS = ("direct", "grpc")


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="remote_gym")
    return caplog


HANGING = {
    "hang": "in _hang",
    "spin": "in _spin",
    "compute": "in _compute",
    "handle_all_signals_and_hang": "in _handle_all_signals_and_hang",
    # By a thread of NumPy's, if there is one, since the only other one blocks all signals.
    "leave_group_and_hang": "in _leave_group_and_hang|cannot be had: its environment blocks the signal",
    "stop": "cannot be had: its process is stopped",
}


@dataclass(frozen=True)
class Lost:
    """What became of an environment that hung."""

    session: str
    pid: int
    message: str


def hang(environment: RemoteEnvironment, behaviour: str) -> Lost:
    _, info = environment.reset()
    session = environment._session.id
    environment.step(ACTION["step"])
    with pytest.raises(SessionLost) as caught:
        environment.step(ACTION[behaviour])
    return Lost(session, info["pid"], str(caught.value))


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_workers_that_hang_are_ended_their_clients_told_why_and_no_other_notices(obedient, log, connection):
    with loopback_server(obedient, step_timeout=TIMEOUT, close_timeout=scaled(0.3)) as server:
        server.client_arguments["connection"] = connection
        other = server.environment()
        _, others = other.reset()
        hanging = {behaviour: server.environment() for behaviour in HANGING}
        with ThreadPoolExecutor(len(HANGING)) as pool:
            futures = {behaviour: pool.submit(hang, hanging[behaviour], behaviour) for behaviour in HANGING}
            while not all(future.done() for future in futures.values()):
                other.step(ACTION["step"])
        for behaviour, future in futures.items():
            lost = future.result()
            assert lost.message == f"session {lost.session}: its step {STEP_REASON}; reset opens a new one"
            wait_until(lambda pid=lost.pid: not is_alive(pid))
            (told,) = [text for text in texts(log) if f"{lost.session}: its step {STEP_REASON}; killing it" in text]
            assert re.search(HANGING[behaviour], told)
            assert all(line.startswith(PREFIX) for line in told.splitlines()[1:])
        _, again = hanging["hang"].reset()
        assert again["pid"] != futures["hang"].result().pid
        assert other.reset()[1]["pid"] == others["pid"]


def texts(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records]


def test_a_reset_has_a_timeout_of_its_own(obedient, log):
    with loopback_server(obedient, reset_timeout=TIMEOUT, max_sessions=1) as server:
        environment = server.environment()
        # Also the first, which is asked with the opening, and leaves no place taken.
        with pytest.raises(SessionLost, match="its reset took over"):
            environment.reset(options={"do": "hang"})
        environment.close()
        wait_until(lambda: opens(server))
        environment.reset()
        with pytest.raises(SessionLost, match=r"its reset took over \S+ s \(ServerOptions\.reset_timeout\)"):
            environment.reset(options={"do": "hang"})


def opens(server) -> bool:
    try:
        server.environment().close()
    except ServerFull:
        return False
    return True


def test_a_worker_that_was_stopped_between_steps_is_ended(obedient, log):
    with loopback_server(obedient, step_timeout=TIMEOUT) as server:
        environment = server.environment()
        _, info = environment.reset()
        os.kill(info["pid"], signal.SIGSTOP)
        with pytest.raises(SessionLost, match=r"its worker was stopped for over \S+ s"):
            environment.step(ACTION["step"])
        wait_until(lambda: not is_alive(info["pid"]))


@pytest.mark.parametrize(("behaviour", "connection"), [("grow", "grpc"), ("grow_in_child", "direct")])
def test_a_worker_that_grows_is_ended_with_what_it_started(obedient, log, tmp_path, behaviour, connection):
    noted = tmp_path / "log"
    with loopback_server(obedient, memory_limit=GROWTH * 3 // 4) as server:
        server.client_arguments["connection"] = connection
        growing = server.environment(remote_args={"entrypoint_kwargs": {"log": str(noted)}})
        other = server.environment()
        _, info = growing.reset()
        _, others = other.reset()
        with pytest.raises(SessionLost, match=r"its worker held .* MiB of memory, over the 300 MiB of ServerOptions\."):
            grow(growing, behaviour, info["pid"])
        children = [int(line.split()[1]) for line in noted.read_text().splitlines() if line.startswith("child")]
        assert len(children) == (behaviour == "grow_in_child")
        wait_until(lambda: not any(map(is_alive, children)))
        assert other.reset()[1]["pid"] == others["pid"]
        assert f"killing it; where it is:\n{PREFIX}" in log.text


def grow(environment: RemoteEnvironment, behaviour: str, pid: int) -> None:
    environment.step(ACTION[behaviour])  # may be answered just before the worker is ended, or not
    wait_until(lambda: not is_alive(pid))
    environment.step(ACTION["step"])


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_thread_that_hangs_is_lost_to_its_client_and_keeps_its_place(obedient, log, tmp_path, connection):
    with loopback_server(
        obedient, use_thread=True, step_timeout=TIMEOUT, close_timeout=scaled(0.2), max_sessions=1
    ) as server:
        noted = tmp_path / "log"
        arguments = {"entrypoint_kwargs": {"log": str(noted)}}
        environment = server.environment(connection=connection, remote_args=arguments)
        environment.reset()
        with pytest.raises(SessionLost) as caught:
            environment.step(ACTION["wait_for_release"])
        assert STEP_REASON in str(caught.value)
        wait_until(lambda: "a thread cannot be killed" in log.text)
        assert "in _wait_for_release" in log.text
        assert not opens(server)
        noted.with_suffix(".release").touch()
        wait_until(lambda: opens(server), timeout=20.0)


def test_a_worker_limited_by_the_system_says_so(obedient):
    options = {"rlimits": {"nofile": 200, "as": 64 * 2**30, "core": 0, "cpu": 2}}
    with loopback_server(obedient, **options) as server:
        environment = server.environment()
        environment.reset()
        with pytest.raises(RemoteEnvironmentError, match="Too many open files"):
            environment.step(ACTION["open_files"])
        with pytest.raises(RemoteEnvironmentError, match="Unable to allocate"):
            environment.step(ACTION["allocate"])
        with pytest.raises(SessionLost, match="SIGXCPU: it had used its processor time up"):
            environment.step(ACTION["burn"])


@pytest.mark.parametrize(("use_thread", "connection"), [(False, "direct"), (True, "grpc")])
def test_what_a_session_has_done_is_told_without_asking_its_worker(obedient, use_thread, connection, tmp_path):
    with loopback_server(obedient, use_thread=use_thread) as server:
        count(server, connection, tmp_path / "log")
    assert server.server.sessions() == ()


def count(server: LoopbackServer, connection: str, log: Path) -> None:
    environment = server.environment(connection=connection, remote_args={"entrypoint_kwargs": {"log": str(log)}})
    environment.reset()
    environment.step(ACTION["step"])
    environment.step(ACTION["truncate"])
    environment.reset()
    (status,) = server.server.sessions()
    counters = status.counters
    assert status.direct == (connection == "direct")
    assert (status.id, status.num_envs, status.attached) == (environment._session.id, 1, True)
    assert (counters.operation, counters.sequence, counters.steps, counters.episodes) == (None, 4, 2, 1)
    assert counters.bytes_received > 0
    assert counters.bytes_sent > counters.bytes_received
    assert counters.busy_seconds > 0
    answered = threading.Thread(target=environment.step, args=(ACTION["wait_for_release"],))
    answered.start()
    with contextlib.closing(environment):
        wait_until(lambda: server.server.sessions()[0].counters.operation == "step")
        assert server.server.sessions()[0].counters.since > counters.since
        log.with_suffix(".release").touch()
        answered.join(scaled(30.0))
    wait_until(lambda: server.server.sessions() == ())


def test_episodes_of_a_vector_environment_are_counted_one_by_one():
    with loopback_server("CartPole-v1") as server:
        environment = server.vector_environment(3)
        environment.reset(seed=1)
        ended = 0
        for _ in range(60):
            _, _, terminated, truncated, _ = environment.step([0, 0, 0])
            ended += int((terminated | truncated).sum())
        (status,) = server.server.sessions()
        assert (status.num_envs, status.counters.steps) == (3, 60)
        assert status.counters.episodes == ended > 3
