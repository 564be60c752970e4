"""A server that is told to stop lets episodes end, and closes the environments that are left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from environments import ACTION
from processes import descendants, family, is_alive
from remote_gym import DeadlineExceeded, RemoteEnvironment, ServerFull, SessionLost
from remote_gym.testing import loopback_server
from remote_gym.wire.autoreset import AutoresetMode
from served import Served, served
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BY_EITHER = pytest.mark.parametrize("connection", ["direct", "grpc"])
LONG_ENOUGH = 60
"""Seconds of drain that no test waits for."""


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def serve(log) -> Callable[..., Served]:
    """Serves environments that write down what is done to them."""

    def start(*arguments: object):
        kwargs = f'{{"log": "{log}"}}'
        return served("--entrypoint", "environments.py", "--kwargs", kwargs, "--port", 0, *arguments)

    return start


def is_serving(port: int) -> bool:
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=scaled(10.0))
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def hears_of_the_drain(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return any(line.startswith("Stopping: episodes of 1 sessions have 60 s") for line in process.stdout)


@pytest.mark.parametrize(("connection", "signal_number"), [("direct", signal.SIGTERM), ("grpc", signal.SIGINT)])
def test_a_signal_lets_the_episode_end_opens_nothing_and_closes_the_environment(serve, log, connection, signal_number):
    with serve("--drain-timeout", LONG_ENOUGH) as server:
        environment = RemoteEnvironment("localhost", server.port, connection=connection)
        environment.reset()
        workers = descendants(server.process.pid)
        server.process.send_signal(signal_number)
        assert hears_of_the_drain(server.process)
        wait_until(lambda: not is_serving(server.port))
        with pytest.raises(ServerFull, match="the server is stopping"):
            RemoteEnvironment("localhost", server.port)
        for count in range(1, 4):
            assert environment.step(ACTION["step"])[0]["count"] == count
        assert environment.step(ACTION["truncate"])[3]
        with pytest.raises(SessionLost, match="stopping, and begins no more episodes"):
            environment.reset()
        assert server.process.wait(scaled(30)) == 0
        wait_until(lambda: not any(map(is_alive, workers)))
        assert log.read_text().splitlines()[-2:] == [f"step {ACTION['truncate']}", "close"]
        environment.close()


@BY_EITHER
def test_a_drain_does_not_wait_for_clients_without_an_episode_and_they_hear_why(serve, connection):
    with serve("--drain-timeout", LONG_ENOUGH) as server:
        opened = RemoteEnvironment("localhost", server.port, connection=connection)
        environment = RemoteEnvironment("localhost", server.port, connection=connection)
        environment.reset()
        environment.step(ACTION["truncate"])
        server.process.terminate()
        assert server.process.wait(scaled(30)) == 0
        with pytest.raises(SessionLost, match="begins no more episodes"):
            environment.reset()
        environment.close()
        opened.close()


@BY_EITHER
def test_a_second_signal_ends_the_drain_and_environments_are_still_closed(serve, log, connection):
    with serve("--drain-timeout", LONG_ENOUGH) as server:
        environment = RemoteEnvironment("localhost", server.port, connection=connection)
        environment.reset()
        server.process.terminate()
        assert hears_of_the_drain(server.process)
        assert environment.step(ACTION["step"])[0]["count"] == 1
        server.process.terminate()
        assert server.process.wait(scaled(30)) == 0
        with pytest.raises(SessionLost, match="the server is stopping"):
            environment.step(ACTION["step"])
        assert log.read_text().endswith("close\n")
        environment.close()


def test_at_the_end_of_the_drain_what_still_runs_is_closed_and_what_hangs_is_killed(serve, log):
    with serve("--drain-timeout", 1, "--close-timeout", 1) as server:
        running = RemoteEnvironment("localhost", server.port)
        hung = RemoteEnvironment("localhost", server.port, step_timeout=scaled(0.3), close_timeout=scaled(0.1))
        running.reset()
        _, info = hung.reset()
        with pytest.raises(DeadlineExceeded):
            hung.step(ACTION["hang"])
        before = time.monotonic()
        server.process.terminate()
        assert server.process.wait(scaled(30)) == 0
        assert time.monotonic() - before >= 2.0
        assert not is_alive(info["pid"])
        assert log.read_text().splitlines().count("close") == 1
        with pytest.raises(SessionLost, match="the server is stopping"):
            running.step(ACTION["step"])
        running.close()
        hung.close()


def test_a_session_that_is_opening_when_the_signal_comes_is_refused(log):
    kwargs = f'{{"log": "{log}", "delay": 600}}'
    arguments = ("--entrypoint", "environments.py", "--kwargs", kwargs, "--port", 0)
    with served(*arguments, "--drain-timeout", LONG_ENOUGH, "--close-timeout", 1) as server:
        refused: list[Exception] = []

        def come() -> None:
            try:
                RemoteEnvironment("localhost", server.port)
            except ServerFull as error:
                refused.append(error)

        thread = threading.Thread(target=come)
        thread.start()
        wait_until(lambda: len(family(server.process.pid)) == 2)  # the forkserver, and a worker that creates
        server.process.terminate()
        assert server.process.wait(scaled(30)) == 0
        thread.join(scaled(30.0))
        assert "the server is stopping" in str(refused)


SCRIPT = """
import signal
from remote_gym import create_remote_environment_server
server = create_remote_environment_server({"entrypoint": "environments.py"}, "localhost", 0, drain_timeout=60)
signal.signal(signal.SIGTERM, lambda *_: server.stop())
print(server.port, flush=True)
server.wait_for_termination()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_a_script_of_ones_own_drains_by_stop_and_hurries_by_another(tmp_path, signals):
    file = tmp_path / "serve.py"
    file.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            environment = RemoteEnvironment("localhost", port)
            environment.reset()
            process.terminate()
            wait_until(lambda: not is_serving(port))
            assert environment.step(ACTION["step"])[0]["count"] == 1
            if signals == 2:
                process.terminate()
            else:
                with pytest.raises(SessionLost, match="begins no more episodes"):
                    environment.reset()
            assert process.stdout.readline() == "stopped\n"
            assert process.wait(scaled(30)) == 0
            environment.close()
        finally:
            process.kill()


def test_stop_takes_the_shorter_of_two_graces(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, drain_timeout=1000.0) as server:
        environment = server.environment()
        environment.reset()
        stopped = server.server.stop()
        server.server.stop(2000.0)
        assert not stopped.wait(scaled(0.2))
        assert environment.step(ACTION["step"])[0]["count"] == 1
        server.server.stop(0.0)
        assert stopped.wait(scaled(30.0))


def test_a_killed_client_leaves_the_queue(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, max_sessions=1, queue_timeout=600.0) as server:
        first = server.environment()
        service = server.server._service
        come = f"from remote_gym import RemoteEnvironment; RemoteEnvironment('localhost', {server.server.port})"
        with subprocess.Popen([sys.executable, "-c", come]) as impatient:
            wait_until(lambda: service.load().waiting == 1, timeout=30.0)
            impatient.kill()
        wait_until(lambda: service.load().waiting == 0)
        thread = threading.Thread(target=server.environment)
        thread.start()
        wait_until(lambda: service.load().waiting == 1)
        first.close()
        thread.join(scaled(30.0))
        assert not thread.is_alive()
        assert server.server.session_count == 1


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium has had autoreset modes since 1.1")
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_environments_that_reset_themselves_begin_no_more_episodes_either(mode):
    with loopback_server("CartPole-v1", use_thread=True) as server:
        environments = server.vector_environment(2, workers=2, autoreset_mode=mode)
        environments.reset(seed=[0, 0])  # so that both fall in the same step
        environments.step([0, 0])
        stopped = server.server.stop(LONG_ENOUGH)
        over = False
        while not over:
            _, _, terminations, _, _ = environments.step([0, 0])
            over = terminations.all()
        with pytest.raises(SessionLost, match="begins no more episodes"):
            environments.step([0, 0])
        assert stopped.wait(LONG_ENOUGH / 2)
