"""Servers, workers and clients end as they should, and leave nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from breaking import break_connection
from environments import ACTION
from processes import descendants, family, is_alive, open_descriptors
from remote_gym import (
    ConnectionLost,
    DeadlineExceeded,
    RemoteEnvironment,
    ServerFull,
    SessionLost,
    create_remote_environment_server,
)
from remote_gym.server.launch import forkserver_client as launching
from remote_gym.testing import loopback_server
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SCRIPT = """
import sys
from remote_gym import create_remote_environment_server
server = create_remote_environment_server({"entrypoint": "environments.py"}, "localhost", 0)
print("port", server.port, flush=True)
server.wait_for_termination()
"""


@pytest.fixture
def script(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own: a script without an ``if __name__ == "__main__":``."""
    file = tmp_path / "serve.py"
    file.write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    match = re.fullmatch(r"port (\d+)\n", process.stdout.readline())
    assert match is not None
    return int(match[1])


def test_a_server_script_without_a_guard_works_and_runs_once(script):
    port = read_port(script)
    with_environment = RemoteEnvironment("localhost", port)
    with_environment.reset()
    with_environment.close()
    script.kill()
    assert script.stdout is not None
    assert script.stdout.read() == ""


def test_a_killed_server_takes_its_workers_along_and_its_clients_are_told(script):
    port = read_port(script)
    busy, hung = (RemoteEnvironment("localhost", port, reconnect_timeout=scaled(2.0)) for _ in range(2))
    busy.reset()
    hung.reset()
    thread = threading.Thread(target=step_until_lost, args=(hung,))
    thread.start()
    workers = descendants(script.pid)
    assert len(family(script.pid)) == 3  # the forkserver and its two
    script.kill()
    before = time.monotonic()
    wait_until(lambda: not any(map(is_alive, workers)))
    with pytest.raises((ConnectionLost, SessionLost)):
        busy.step(ACTION["step"])
    assert time.monotonic() - before < scaled(30.0)
    thread.join(scaled(30.0))
    assert not thread.is_alive()
    busy.close()
    hung.close()


def step_until_lost(environment: RemoteEnvironment) -> None:
    with pytest.raises((ConnectionLost, SessionLost)):
        environment.step(ACTION["hang"])


def test_a_killed_forkserver_takes_its_workers_along_and_another_is_started(process_server):
    environment = process_server.environment()
    _, info = environment.reset()
    forkserver = parent_of(info["pid"])
    os.kill(forkserver, signal.SIGKILL)
    wait_until(lambda: not is_alive(info["pid"]))
    with pytest.raises(SessionLost):
        environment.step(ACTION["step"])
    _, info = environment.reset()
    assert parent_of(info["pid"]) != forkserver


def test_a_forkserver_that_hangs_fails_who_opens_then_and_nobody_else(process_server, monkeypatch):
    monkeypatch.setattr(launching, "ANSWER_TIMEOUT", 1.0)
    environment = process_server.environment()
    _, info = environment.reset()
    forkserver = parent_of(info["pid"])
    os.kill(forkserver, signal.SIGSTOP)
    try:
        with pytest.raises(ServerFull, match=r"no worker was started: .* has not answered for 1 s"):
            process_server.environment().reset()
        other = process_server.environment()
        _, others = other.reset()
        assert parent_of(others["pid"]) != forkserver
        for each in (environment, other):
            assert each.step(ACTION["step"])[0]["count"] == 1
            each.close()
        wait_until(lambda: process_server.server._service.load().open == 0, timeout=30.0)
        wait_until(lambda: not is_alive(forkserver))
    finally:
        if is_alive(forkserver):
            os.kill(forkserver, signal.SIGCONT)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_a_worker_leaves_running_ends_with_it(process_server):
    environment = process_server.environment()
    environment.reset()
    child = environment.step(ACTION["fork_child"])[4]["child"]
    assert is_alive(child)
    environment.close()
    wait_until(lambda: not is_alive(child))


def test_a_hung_environment_is_killed_when_the_server_stops(obedient):
    with loopback_server(obedient, close_timeout=scaled(0.5)) as server:
        environment = server.environment(step_timeout=scaled(0.3), close_timeout=scaled(0.3))
        _, info = environment.reset()
        with pytest.raises(DeadlineExceeded):
            environment.step(ACTION["hang"])
        assert is_alive(info["pid"])
    assert not is_alive(info["pid"])


def test_a_step_that_took_too_long_is_not_taken_for_the_next_ones_answer(process_server, tmp_path):
    log = tmp_path / "log"
    environment = process_server.environment(
        step_timeout=scaled(0.3), remote_args={"entrypoint_kwargs": {"log": str(log)}}
    )
    environment.reset()
    with pytest.raises(DeadlineExceeded, match=r"\d s"):
        environment.step(ACTION["wait_for_release"])
    with pytest.raises(DeadlineExceeded):
        environment.step(ACTION["step"])  # not asked before the first is answered
    log.with_suffix(".release").touch()
    observations: list[dict[str, int]] = []
    wait_until(lambda: step_in_time(environment, observations))
    assert observations[0]["count"] == log.read_text().count("step") >= 2


def step_in_time(environment: RemoteEnvironment, observations: list[dict[str, int]]) -> bool:
    with contextlib.suppress(DeadlineExceeded):
        observations.append(environment.step(ACTION["step"])[0])
    return bool(observations)


def test_a_session_that_nobody_comes_back_to_ends_with_its_lease(obedient):
    with loopback_server(obedient, lease=scaled(0.5)) as server:
        environment = server.environment()
        _, info = environment.reset()
        environment._session._carrier.detach()  # as if the client had vanished
        wait_until(lambda: server.server.session_count == 0)
        wait_until(lambda: not is_alive(info["pid"]))
        with pytest.raises(SessionLost, match=r"lease of \S+ s"):
            environment.step(ACTION["step"])


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_a_dropped_environment_detaches_without_being_closed(obedient, connection):
    with loopback_server(obedient, use_thread=True, lease=scaled(0.5)) as server:
        RemoteEnvironment(
            server.server.url,
            server.server.port,
            client_credentials_paths=server.client_credentials_paths,
            connection=connection,
        ).reset()
        wait_until(lambda: server.server.session_count == 0)


def test_a_connection_that_broke_is_made_again_and_the_step_runs_once(process_server):
    environment = process_server.environment()
    environment.reset()
    environment.step(ACTION["step"])
    break_connection(environment._session)
    assert environment.step(ACTION["step"])[0]["count"] == 2


@pytest.mark.parametrize(
    ("kind", "times", "then"),
    [("single", 4, ["parent: 1", "vector: [1, 1]"]), ("several", 3, ["parent: [1, 1]"])],
    ids=["single", "several"],
)
def test_a_forked_child_refuses_to_share_the_connection_and_may_make_its_own(servers, obedient, kind, times, then):
    client = Path(__file__).with_name("forking_client.py")
    with servers.lend(obedient, secure=False) as server:
        command = [sys.executable, str(client), kind, str(server.server.port)]
        # Without the variable older versions of grpcio hang in the children.
        environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "1"}
        output = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=scaled(90), check=True
        ).stdout
    said, *rest = output.splitlines()
    refusal = r"this environment was opened by process \d+ and this is process \d+, a fork of it; "
    assert re.match(rf"child: {times} times: (environment \d(, environment \d)*: )?{refusal}", said)
    assert rest == ["exit: 0", *then]


def test_what_a_worker_prints_reaches_the_log_tagged_with_its_session(process_server, caplog):
    caplog.set_level(logging.INFO, logger="remote_gym")
    environment = process_server.environment()
    environment.reset()
    environment.step(ACTION["print"])
    session = environment._session.id
    wait_until(lambda: f"[{session}] printed by the environment" in caplog.text)
    wait_until(lambda: f"[{session}] and to stderr" in caplog.text)


def test_nothing_is_left_of_servers_and_clients(obedient, use_thread):
    def serve_and_play() -> None:
        with loopback_server(obedient, use_thread=use_thread) as server:
            for _ in range(3):
                environment = server.environment(render_mode="rgb_array")
                environment.reset()
                environment.step(ACTION["step"])
                environment.close()

    serve_and_play()  # gRPC keeps some descriptors and threads of its own once it has run
    before, processes = open_descriptors(), descendants(os.getpid())
    threads = {thread.name for thread in threading.enumerate()}
    for _ in range(2):
        serve_and_play()
    wait_until(lambda: len(open_descriptors()) <= len(before))
    assert descendants(os.getpid()) <= processes
    wait_until(lambda: {thread.name for thread in threading.enumerate()} <= threads)


def test_stopping_twice_and_waiting_with_a_timeout(obedient):
    server = create_remote_environment_server(obedient, "localhost", 0, use_thread=True)
    assert server.wait_for_termination(timeout=0.01)
    first, second = server.stop(grace=None), server.stop(0.5)
    assert first.wait(scaled(30.0))
    assert second.is_set()
    assert not server.wait_for_termination()
