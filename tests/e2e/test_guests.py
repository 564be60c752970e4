"""Environments in other Pythons, as clients of a real server have them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from interpreters import OLD, python_of
from remote_gym import (
    ConfigError,
    NotPermitted,
    RemoteEnvironment,
    RemoteEnvironmentError,
    RemoteGymError,
    RemoteVectorEnv,
    SessionLost,
    create_remote_environment_server,
)
from remote_gym.errors import LossReason
from served import served
from waiting import scaled, wait_until

SIMULATOR = """
import os, subprocess, sys, time
import numpy as np
import gymnasium as gym

EXPOSED = ("pid",)

class Simulator(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, render_mode, word):
        self.render_mode = render_mode
        self.word = word
        self.pid = os.getpid()
        self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(3, np.float32), {"word": self.word, "options": options}

    def step(self, action):
        if action == 1:
            raise KeyError("no fuel")
        if action == 2:
            print("out of fuel", flush=True)
            os.abort()
        if action == 3:
            time.sleep(1000)
        return np.zeros(3, np.float32), 1.0, False, False, {}

    def render(self):
        return np.full((480, 640, 3), 7, np.uint8)

def create_environment(word="none", render_mode=None):
    return Simulator(render_mode, word)
"""


@pytest.fixture
def simulator(tmp_path: Path) -> str:
    file = tmp_path / "simulator.py"
    file.write_text(textwrap.dedent(SIMULATOR))
    return str(file)


def offered(simulator: str, **fields: Any) -> dict[str, Any]:
    return {"entrypoint": simulator, "command": [sys.executable], **fields}


def test_a_trainer_has_an_old_gym_beside_one_of_its_own(tmp_path):
    [interpreter] = [each for each in OLD if each.library == "gym 0.21"]
    old = {"entrypoint_kwargs": {"id": "CartPole-v1"}, "python": python_of(interpreter)}
    with (
        create_remote_environment_server("CartPole-v1", port=0, environments={"old": old}) as server,
        RemoteEnvironment(port=server.port, remote_args={"environment": "old"}) as environment,
    ):
        observation, info = environment.reset(seed=3)
        assert observation in environment.observation_space
        assert info == {}
        assert environment.spec.max_episode_steps == 500
        ended = False
        while not ended:
            observation, reward, terminated, truncated, info = environment.step(1)
            assert reward == 1.0
            ended = terminated or truncated
        assert terminated


def test_a_trainer_has_vector_environments_of_an_old_gym_in_two_workers(tmp_path):
    [interpreter] = [each for each in OLD if each.library == "gym 0.21"]
    file = tmp_path / "vectors.py"
    file.write_text(
        "import gym\n"
        "def create_environment():\n    return gym.make('CartPole-v1')\n"
        "def create_vector_environment(num_envs):\n"
        "    return gym.vector.SyncVectorEnv([create_environment] * num_envs)\n"
    )
    offer = {"entrypoint": str(file), "python": python_of(interpreter)}
    with (
        create_remote_environment_server(offer, port=0) as server,
        contextlib.closing(RemoteVectorEnv(port=server.port, num_envs=5, workers=2)) as environments,
    ):
        observations, _ = environments.reset(seed=3)
        assert observations in environments.observation_space
        ended = np.zeros(5, bool)
        for _ in range(30):
            observations, rewards, terminated, truncated, infos = environments.step(np.ones(5, np.int64))
            assert rewards.tolist() == [1.0] * 5
            assert observations in environments.observation_space
            ended |= terminated | truncated
            assert infos.get("_final_info", np.zeros(5, bool)).tolist() == (terminated | truncated).tolist()
        assert ended.all()


@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_it_is_an_environment_like_any_other(simulator, connection):
    with (
        create_remote_environment_server(offered(simulator), port=0) as server,
        RemoteEnvironment(
            port=server.port,
            render_mode="rgb_array",
            remote_args={"entrypoint_kwargs": {"word": "mine"}},
            connection=connection,
        ) as environment,
    ):
        first, info = environment.reset(seed=5, options={"a": [1, 2]})
        assert info == {"word": "mine", "options": {"a": [1, 2]}}
        again, _ = environment.reset(seed=5)
        assert np.array_equal(first, again)
        assert environment.render().shape == (480, 640, 3)
        with pytest.raises(RemoteEnvironmentError) as caught:
            environment.step(1)
        assert caught.value.remote_type == "builtins.KeyError"
        assert 'raise KeyError("no fuel")' in caught.value.remote_traceback
        assert environment.step(0)[1] == 1.0
        assert environment.get_wrapper_attr("pid") not in (os.getpid(), 0)


def test_one_that_dies_is_a_session_lost_with_its_last_lines_and_a_reset_opens_another(simulator):
    with (
        create_remote_environment_server(offered(simulator), port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        before = environment.get_wrapper_attr("pid")
        with pytest.raises(SessionLost, match="was ended by SIGABRT") as caught:
            environment.step(2)
        assert caught.value.reason is LossReason.CRASHED
        assert "out of fuel" in caught.value.output
        environment.reset()
        assert environment.get_wrapper_attr("pid") != before
        os.kill(environment.get_wrapper_attr("pid"), signal.SIGKILL)
        with pytest.raises(SessionLost, match="was ended by SIGKILL"):
            environment.step(0)


def test_one_that_hangs_is_ended_with_all_that_it_started_and_the_log_says_where_it_was(simulator, caplog):
    with (
        create_remote_environment_server(offered(simulator), port=0, step_timeout=0.5) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        pid = environment.get_wrapper_attr("pid")
        group = in_group(pid)
        assert len(group) == 3
        with pytest.raises(SessionLost, match="took over"):
            environment.step(3)
        [record] = [each for each in caplog.records if "where it is" in each.getMessage()]
        stacks = getattr(record, "details", None) or record.getMessage()
        assert "simulator.py" in str(stacks)
        assert "in step" in str(stacks)
        assert gone(group, 10)


def test_files_that_were_sent_along_are_gone_with_a_server_that_is_killed(tmp_path):
    (tmp_path / "parts.py").write_text("NAME = 'of a file beside it'\n")
    (tmp_path / "entry.py").write_text(
        "from parts import NAME\n"
        + SIMULATOR.replace('("pid",)', '("pid", "told")')
        + "\nSimulator.told = [NAME, __file__]\n"
    )
    files = ["--entrypoint", tmp_path / "entry.py", "--include", tmp_path / "parts.py"]
    with served(*files, "--command", sys.executable, "--port", 0, log=tmp_path / "log") as running:
        environment = RemoteEnvironment(port=running.port)
        name, file = environment.get_wrapper_attr("told")
        assert name == "of a file beside it"
        folder = Path(file).parent
        assert sorted(path.name for path in folder.glob("*.py")) == ["entry.py", "parts.py"]
        running.process.kill()
        wait_until(lambda: not folder.exists())
        with pytest.raises(RemoteGymError):
            environment.reset()
        environment.close()


@pytest.mark.parametrize("how", ["close", "kill"])
def test_nothing_is_left_of_guests_when_their_server_ends(simulator, how, tmp_path):
    with served("--entrypoint", simulator, "--command", sys.executable, "--port", 0, log=tmp_path / "log") as running:
        environment = RemoteVectorEnv(port=running.port, num_envs=2)
        environment.reset()
        pids = environment.get_attr("pid")
        groups = [each for pid in pids for each in in_group(pid)]
        assert len(groups) >= 3
        if how == "close":
            environment.close()
        else:
            running.process.kill()
        assert gone(groups, 5)
        if how == "kill":
            with pytest.raises(RemoteGymError):
                environment.step(np.zeros(2, np.int64))
            environment.close()


def test_a_server_refuses_to_start_with_a_python_that_cannot_host(simulator, tmp_path):
    command = ["sh", "-c", "echo 'no such image' >&2; exit 125", "python"]
    with pytest.raises(ConfigError, match=r"(?s)ended with status 125.*no such image"):
        create_remote_environment_server({"entrypoint": simulator, "command": command}, port=0)


def test_a_python_that_has_our_release_runs_the_worker_itself(simulator):
    offer = {"entrypoint": simulator, "python": sys.executable}
    with (
        create_remote_environment_server(offer, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        [worker] = list(server.sessions())
        assert environment.get_wrapper_attr("pid") == worker.pid


def test_what_leads_to_a_command_is_the_servers_alone(simulator):
    with create_remote_environment_server(offered(simulator), port=0) as server:
        for name, value in {"python": sys.executable, "command": ["sh"], "there": True, "include": ["."]}.items():
            with pytest.raises(ConfigError, match=f"remote_args has {name!r}"):
                RemoteEnvironment(port=server.port, remote_args={name: value})
    by_id = {"entrypoint_kwargs": {"id": "CartPole-v1"}, "command": [sys.executable]}
    with create_remote_environment_server(by_id, port=0) as server, pytest.raises(NotPermitted):
        RemoteEnvironment(port=server.port, remote_args={"entrypoint_kwargs": {"id": "Acrobot-v1"}})


def in_group(pid: int) -> list[psutil.Process]:
    """All processes of a process's group, itself among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    end = time.monotonic() + scaled(seconds)
    wait_until(lambda: not any(map(psutil.Process.is_running, processes)) or time.monotonic() > end)
    return not any(map(psutil.Process.is_running, processes))
