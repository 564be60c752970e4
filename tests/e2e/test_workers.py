"""Worker processes: what they print, how they end, and what they do not share."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from environments import ACTION
from processes import descendants, is_alive
from remote_gym import DeadlineExceeded, RemoteEnvironment, SessionLost
from remote_gym.testing import loopback_server
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SERVER = """
import sys
from pathlib import Path
from remote_gym import create_remote_environment_server
server = create_remote_environment_server({"entrypoint": "environments.py"}, "localhost", 0)
Path(sys.argv[1]).write_text(f"{server.port}\\n")
server.wait_for_termination()
"""


@pytest.fixture
def serve(tmp_path):
    """Starts servers in processes of their own; returns each and its port."""
    started = []

    def start(redirections: str = "") -> tuple[subprocess.Popen[bytes], int]:
        told = tmp_path / f"port-{len(started)}"
        # A shell, since subprocess cannot start a program without stdout and stderr.
        command = f'exec "$0" -c "$1" "$2" {redirections}'
        process = subprocess.Popen(["sh", "-c", command, sys.executable, SERVER, str(told)], stderr=subprocess.PIPE)
        started.append(process)
        wait_until(lambda: told.exists() and told.read_text().endswith("\n"))
        return process, int(told.read_text())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_workers_draw_different_numbers_from_numpys_global_generator(obedient):
    drawn = set()
    with loopback_server(obedient) as server:
        for _ in range(3):
            environment = server.environment()
            environment.reset()
            drawn.add(environment.step(ACTION["draw"])[4]["drawn"])
    assert len(drawn) == 3


def test_a_worker_whose_own_code_fails_ends_with_status_1_and_its_traceback_is_logged(obedient, caplog, tmp_path):
    caplog.set_level(logging.INFO, logger="remote_gym")
    (tmp_path / "unclosable.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Unclosable(CartPoleEnv):\n"
        "    def close(self):\n"
        "        raise RuntimeError('it will not close')\n"
        "def create_environment():\n"
        "    return Unclosable()\n"
    )
    with loopback_server(None, client_entrypoints=tmp_path) as server:
        environment = server.environment(remote_args={"entrypoint": "unclosable.py"})
        environment.reset()
        worker = next(iter(server.server._service._live)).worker
        environment.close()
        assert worker.exited.result() == "its worker ended with status 1"
    assert "RuntimeError: it will not close" in caplog.text


def test_a_server_without_stdout_and_stderr_serves_environments_that_print(serve):
    _, port = serve(">&- 2>&-")
    environment = RemoteEnvironment("localhost", port)
    environment.reset()
    environment.step(ACTION["print"])
    assert environment.step(ACTION["step"])[0]["count"] == 2
    environment.close()


def test_without_logging_configured_what_a_worker_prints_reaches_stderr(serve):
    process, port = serve()
    environment = RemoteEnvironment("localhost", port)
    environment.reset()
    environment.step(ACTION["print"])
    session = environment._session.id
    environment.close()
    process.terminate()
    lines = process.communicate(timeout=scaled(20.0))[1].decode().splitlines()
    assert f"[{session}] printed by the environment" in lines
    assert f"[{session}] and to stderr" in lines


def test_an_environment_that_prints_without_end_slows_no_other_and_its_lines_are_tagged(obedient, caplog):
    caplog.set_level(logging.INFO, logger="remote_gym")
    with loopback_server(obedient, close_timeout=scaled(0.3)) as server:
        babbling = server.environment(step_timeout=scaled(0.3), connection="grpc")
        other = server.environment(connection="grpc")
        babbling.reset()
        other.reset()
        with pytest.raises(DeadlineExceeded):
            babbling.step(ACTION["babble"])
        took = []
        for _ in range(300):
            before = time.monotonic()
            other.step(ACTION["step"])
            took.append(time.monotonic() - before)
        # A few may be slow because the machine was; a server that does nothing but read lines delays all of them.
        assert sorted(took)[-5] < scaled(0.5)
        # Nothing of a control character remains, and a line is a line.
        line = rf"[{babbling._session.id}] \x1b[31mbabble\x07"
        found = [record.getMessage() for record in caplog.records if "babble" in record.getMessage()]
        assert len(found) > 300
        assert set(found) == {line}


def test_a_worker_that_left_its_process_group_and_hangs_is_killed_with_its_session(obedient):
    with loopback_server(obedient, close_timeout=scaled(0.3)) as server:
        environment = server.environment(step_timeout=scaled(0.3))
        _, info = environment.reset()
        with pytest.raises(DeadlineExceeded):
            environment.step(ACTION["leave_group_and_hang"])
        assert os.getpgid(info["pid"]) != info["pid"]
        environment.close()
        wait_until(lambda: not is_alive(info["pid"]))


def test_a_worker_that_left_its_process_group_and_hangs_ends_with_its_server(serve):
    process, port = serve()
    environment = RemoteEnvironment(
        "localhost",
        port,
        step_timeout=scaled(0.3),
        close_timeout=scaled(0.5),
        connect_timeout=scaled(5.0),
        reconnect_timeout=scaled(5.0),
    )
    _, info = environment.reset()
    with pytest.raises(DeadlineExceeded):
        environment.step(ACTION["leave_group_and_hang"])
    workers = descendants(process.pid)
    assert info["pid"] in workers
    process.kill()
    wait_until(lambda: not any(map(is_alive, workers)))
    environment.close()


def test_an_interpreter_of_its_own_runs_the_workers(obedient, tmp_path):
    """And one that cannot is told, with the reason where the server's user finds it."""
    own = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
    # The packages of this one, as if they had been installed there.
    site = next(own.glob("lib/python*/site-packages"))
    (site / "ours.pth").write_text("\n".join(entry for entry in sys.path if Path(entry).is_dir()))
    (tmp_path / "which.py").write_text(
        "import gymnasium, sys\n"
        "EXPOSED = ('prefix',)\n"
        "def create_environment():\n"
        "    environment = gymnasium.make('CartPole-v1')\n"
        "    environment.unwrapped.prefix = sys.prefix\n"
        "    return environment\n"
    )
    options = {"client_entrypoints": tmp_path, "interpreter": str(own / "bin" / "python")}
    with loopback_server(None, **options) as server:
        assert server.environment(remote_args={"entrypoint": "which.py"}).prefix == str(own)


def test_an_interpreter_without_remote_gym_is_named_with_what_it_said(obedient, tmp_path, caplog):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    interpreter = str(bare / "bin" / "python")
    with loopback_server(obedient, interpreter=interpreter) as server:
        with pytest.raises(SessionLost) as caught:
            server.environment()
    assert interpreter in str(caught.value)
    assert "No module named" in str(caught.value)
