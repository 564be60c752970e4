"""Servers that belong to the program that launched them."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import psutil
import pytest

from interpreters import NEW, python_of
from leftovers import left_in
from remote_gym import (
    ClientOptions,
    ConfigError,
    ConnectError,
    Limits,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerOptions,
    SessionLost,
    TransportError,
    launch,
)
from remote_gym.client.launching import _SERVERS
from remote_gym.errors import ConnectReason
from remote_gym.launched.process import ABANDON_TIMEOUT
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in Python")

ENTRYPOINT = """
import os, sys
import gymnasium as gym

EXPOSED = ("pid", "task")

class Simulator(gym.Env):
    observation_space = gym.spaces.Discrete(3)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, task):
        self.task, self.pid = task, os.getpid()
        print("made for task", task, flush=True)

    def reset(self, *, seed=None, options=None):
        return 0, {"version": list(sys.version_info[:2])}

    def step(self, action):
        if action == 2:
            raise KeyError("no fuel")
        return 1, 0.0, False, False, {}

def create_environment(task=0):
    if task == "none":
        raise ValueError("no such task")
    if task == "hang":
        import time
        time.sleep(1000)
    return Simulator(task)
"""


@pytest.fixture
def entrypoint(tmp_path: Path) -> Path:
    path = tmp_path / "simulator.py"
    path.write_text(ENTRYPOINT)
    return path


def family(server: object) -> list[psutil.Process]:
    """The server's process, and all below it."""
    process = psutil.Process(server._process.pid)  # type: ignore[attr-defined]
    return [process, *process.children(recursive=True)]


def test_a_launched_server_plays_as_an_environment_here_does_and_leaves_nothing():
    with launch("CartPole-v1") as server, contextlib.closing(gym.make("CartPole-v1")) as local:
        environment = server.environment()
        remote, here = environment.reset(seed=3), local.reset(seed=3)
        assert np.array_equal(remote[0], here[0])
        for action in [0, 1] * 10:
            for theirs, ours in zip(environment.step(action)[:4], local.step(action)[:4], strict=True):
                assert np.array_equal(theirs, ours)
        vector = server.vector_environment(num_envs=3, workers=2)
        assert vector.reset(seed=1)[0].shape == (3, 4)
        processes, folder = family(server), Path(server.url.removeprefix("unix:")).parent
        assert len(processes) > 3
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not server.is_running
    wait_until(lambda: not any(each.is_running() for each in processes))
    assert not folder.exists()
    server.stop()  # once more does nothing


def test_keyword_arguments_are_the_entrypoints_and_what_it_prints_is_in_the_log(entrypoint):
    with launch(entrypoint, entrypoint_kwargs={"task": 1}) as server:
        assert server.environment().task == 1
        assert server.environment(task=3).task == 3
        wait_until(lambda: "made for task 3" in server.log())
        assert len(server.log(1).splitlines()) == 1


def test_keyword_arguments_arrive_as_what_they_are(entrypoint):
    task = {0: "a", "0": (3, 4), "array": np.arange(3), "bytes": b"x"}
    with launch(entrypoint, entrypoint_kwargs={"task": task}) as server:
        arrived = server.environment().task
        assert np.array_equal(arrived.pop("array"), np.arange(3))
        assert arrived == {0: "a", "0": (3, 4), "bytes": b"x"}


def test_keyword_arguments_beside_an_id_are_more_of_them():
    with launch("CartPole-v1", entrypoint_kwargs={"max_episode_steps": 5}) as server:
        assert server.environment().spec.max_episode_steps == 5
        with pytest.raises(RemoteGymError):
            server.environment(id="MountainCar-v0")


def test_one_of_several_is_chosen_by_its_name(entrypoint):
    with launch("CartPole-v1", environments={"simulator": entrypoint}) as server:
        assert server.environment("simulator", task=4).task == 4
        assert server.vector_environment("simulator", num_envs=2).reset()[0].tolist() == [0, 0]
        assert server.environment().spec.id == "CartPole-v1"


def test_an_environment_keeps_its_server():
    environment = launch("CartPole-v1").environment()
    gc.collect()
    environment.reset()
    environment.step(0)
    server = _SERVERS[environment]
    server.stop()
    assert not server.is_running


def test_the_working_directory_and_what_python_prints_at_its_start_are_none_of_a_servers(tmp_path, monkeypatch):
    for name in ("json.py", "numpy.py", "remote_gym.py"):
        (tmp_path / name).write_text("raise SystemExit('taken from the working directory')")
    noise = tmp_path / "noise"
    noise.mkdir()
    (noise / "sitecustomize.py").write_text("print('hello', flush=True)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(noise))
    with launch("CartPole-v1") as server:
        server.environment().reset()
        assert "hello" in server.log()


def test_an_environment_in_another_python_is_launched_by_one_key_more(entrypoint):
    python = python_of(NEW[0])
    with launch(entrypoint, python=python) as server:
        environment = server.environment(task=3)
        assert environment.reset()[1] == {"version": [3, 13]}
        with pytest.raises(RemoteEnvironmentError, match="no fuel"):
            environment.step(2)


def test_options_are_the_servers_and_those_of_clients_their_own(entrypoint):
    options = ServerOptions(max_sessions=1, message_limits=Limits(depth=16))
    with launch({"entrypoint": entrypoint}, options=options, environments={"cart": "CartPole-v1"}) as server:
        environment = server.environment(options=ClientOptions(connection="grpc"))
        environment.reset()
        assert environment.connection_info.connected_over == "grpc"
        with pytest.raises(RemoteGymError, match=r"1 of 1|max_sessions"):
            server.environment(options=ClientOptions(open_timeout=scaled(30.0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"environment": "CartPole-v99"}, "`v99`"),
        ({"environment": "nowhere.py"}, "^entrypoint 'nowhere.py' does not exist"),
        ({"environment": "CartPole-v1", "python": "/nowhere/python"}, "^environment has python '/nowhere/python'"),
        ({"environment": "CartPole-v1", "leese": 3}, "did you mean lease"),
        ({"environment": "CartPole-v1", "pyton": "python3"}, "did you mean python"),
        ({"environment": {"id": "CartPole-v1", "start": object()}}, "^environment cannot be told .*start.*object"),
        ({"environment": {"entrypoint": "a.py", "repo": object()}}, "^repo is <object"),
        (
            {"environment": {"entrypoint": "a.py", "python": "x"}, "python": "y"},
            "^python is given twice, also in the environment's dict",
        ),
        ({"environment": 3}, "^environment is 3; use an id"),
    ],
)
def test_what_cannot_be_served_is_said_as_it_was_asked_for(arguments, message):
    with pytest.raises(ConfigError, match=message):
        launch(**arguments)


@pytest.mark.parametrize("start_timeout", ["60", None, -1, 0, float("nan")])
@pytest.mark.parametrize("kind", [{}, {"image": "sim:3", "serves": 1}], ids=["server", "image"])
def test_what_is_no_time_to_start_in_is_refused_before_anything_starts(monkeypatch, kind, start_timeout):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ConfigError, match=f"^start_timeout is {start_timeout!r}; use a number of seconds"):
        launch(None if kind else "CartPole-v1", start_timeout=start_timeout, **kind)


def test_a_stop_that_is_interrupted_stops_the_server_all_the_same(monkeypatch):
    server = launch("CartPole-v1", check=False)
    environment = server.environment()
    with monkeypatch.context() as patched:
        patched.setattr(environment, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            server.stop()
    assert not server.is_running
    environment.close()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_temporary_folder_that_is_too_long_is_named(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(ConfigError, match=f"^the temporary folder, {folder}, has too long a path"):
        launch("CartPole-v1")
    assert not left_in(folder)


def test_an_environment_that_cannot_be_made_says_why(entrypoint):
    with pytest.raises(ConfigError, match="no such task"):
        launch(entrypoint, entrypoint_kwargs={"task": "none"})


def test_a_server_that_is_not_ready_in_time_is_ended(entrypoint):
    before = set(psutil.Process().children(recursive=True))
    begin = time.monotonic()
    with pytest.raises(ConnectError, match=r"does not listen after 3 s; .*\n.*creating the environment once") as caught:
        launch(entrypoint, entrypoint_kwargs={"task": "hang"}, start_timeout=3.0)
    assert time.monotonic() - begin < 3.0 + ABANDON_TIMEOUT + scaled(10.0)  # not as long as one that serves may take
    assert caught.value.reason is ConnectReason.UNREACHABLE
    wait_until(lambda: set(psutil.Process().children(recursive=True)) <= before)


def test_a_server_that_dies_ends_its_sessions_soon():
    with launch("CartPole-v1") as server:
        environment = server.environment(options=ClientOptions(reconnect_timeout=1.0))
        environment.reset()
        os.kill(server._process.pid, signal.SIGKILL)
        with pytest.raises((SessionLost, TransportError)):  # nothing comes back that it could go on with
            wait_until(lambda: environment.step(0) is None, timeout=30.0)
        wait_until(lambda: not server.is_running)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary ones, whose path is short enough for sockets in these."""
    with tempfile.TemporaryDirectory(prefix="launching-") as folder:
        yield Path(folder)


def test_a_program_that_is_killed_while_it_launches_leaves_nothing(entrypoint, temporary):
    code = f"""
    import remote_gym
    remote_gym.launch({str(entrypoint)!r}, entrypoint_kwargs={{"task": "hang"}})
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}) as program:
        log = "creating the environment once"
        wait_until(lambda: any(log in file.read_text() for file in temporary.glob("*/*/server.log")))
        processes = psutil.Process(program.pid).children(recursive=True)
        assert processes
        program.kill()
    wait_until(lambda: not any(each.is_running() for each in processes))
    wait_until(lambda: not left_in(temporary))


@pytest.mark.parametrize("end", ["returns", "is_killed", "is_killed_beside_its_child"])
def test_it_ends_with_its_program(end, temporary):
    code = f"""
    import os, signal, sys, time
    import remote_gym
    server = remote_gym.launch("CartPole-v1")
    environment = server.environment()
    environment.reset()
    child = 0
    if {end == "is_killed_beside_its_child"}:
        child = os.fork()
        if child == 0:
            time.sleep(1000)
    print(server._process.pid, child, flush=True)
    if {end == "returns"}:
        sys.exit()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        server, child = map(int, program.stdout.readline().split())
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [psutil.Process(server), *psutil.Process(server).children(recursive=True)]
            wait_until(lambda: not any(each.is_running() for each in processes))
        assert not psutil.pid_exists(server)
        if child:
            os.kill(child, signal.SIGKILL)
    wait_until(lambda: not left_in(temporary))


def test_ctrl_c_is_the_programs_and_its_server_goes_on():
    code = """
    import os, signal, time
    import remote_gym
    with remote_gym.launch("CartPole-v1") as server:
        environment = server.environment()
        environment.reset()
        try:
            os.killpg(0, signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            print(len(environment.step(0)), server.is_running)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    begun = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, timeout=scaled(120.0), start_new_session=True, check=True
    )
    assert done.stdout == "5 True\n"
    assert time.monotonic() - begun < scaled(60.0)


def test_several_servers_end_with_their_program_in_order_and_a_child_ends_none():
    code = """
    import logging, os, sys
    import remote_gym
    logging.basicConfig(level=logging.DEBUG)
    environments = [remote_gym.launch("CartPole-v1", check=False).environment() for _ in range(2)]
    for environment in environments:
        environment.reset()
    if os.fork() == 0:
        sys.exit()  # as programs end, with all that this calls
    os.wait()
    for environment in environments:
        environment.step(0)
    print("end", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(120.0), check=True)
    assert done.stdout == "end\n"
    assert "broke" not in done.stderr
    assert "resume" not in done.stderr


def test_what_an_environment_printed_is_told_with_the_session_that_it_lost(tmp_path):
    """As the traceback of a thread, without which nobody could say why the process ended."""
    text = ENTRYPOINT.replace('raise KeyError("no fuel")', "fail()")
    failing = "def fail():\n    try:\n        1 / 0\n    except ZeroDivisionError:\n"
    failing += "        import traceback\n        traceback.print_exc()\n        os._exit(3)\n"
    path = tmp_path / "simulator.py"
    path.write_text(text + failing)
    with launch(path) as server:
        environment = server.environment()
        environment.reset()
        with pytest.raises(SessionLost) as caught:
            environment.step(2)
        assert "ZeroDivisionError" in caught.value.output
        assert "ZeroDivisionError" in server.log()
