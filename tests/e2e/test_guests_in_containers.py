"""Environments in containers, by an engine that checks each word and runs them in namespaces of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Engine, engine
from remote_gym import ConfigError, RemoteEnvironment, RemoteVectorEnv, SessionLost, create_remote_environment_server
from remote_gym.ipc.owner import Owner, find_owner, this_process
from served import served
from waiting import wait_until

SIMULATOR = """
import os, sys, time
from pathlib import Path
import numpy as np
import gymnasium as gym

EXPOSED = ("pid", "interfaces", "variables", "read", "write")

class Simulator(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, word):
        self.word = word
        self.pid = os.getpid()
        self.interfaces = [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
        self.variables = dict(os.environ)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(3, np.float32), {"word": self.word}

    def step(self, action):
        if action == 1:
            time.sleep(1000)
        if action == 2:
            os._exit(3)
        return np.full(3, action, np.float32), 1.0, False, False, {}

    def read(self, path):
        return Path(path).read_text()

    def write(self, path, text):
        Path(path).write_text(text)

def create_environment(word="none"):
    return Simulator(word)
"""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with engine(tmp_path) as running:
        monkeypatch.setenv("PATH", f"{running.folder}{os.pathsep}{os.environ['PATH']}")
        yield running
        assert running.faults == []


@pytest.fixture
def simulator(tmp_path: Path) -> str:
    file = tmp_path / "simulator.py"
    file.write_text(textwrap.dedent(SIMULATOR))
    return str(file)


def offered(simulator: str, **fields: Any) -> dict[str, Any]:
    return {"entrypoint": simulator, "image": "sim:3", "python": sys.executable, **fields}


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_each_session_has_a_container_that_is_gone_with_it(daemon, simulator, program):
    with create_remote_environment_server(offered(simulator, engine=program), port=0) as server:
        wait_until(lambda: not daemon.containers)  # of the trial
        with (
            RemoteEnvironment(port=server.port, remote_args={"entrypoint_kwargs": {"word": "secret"}}) as one,
            RemoteEnvironment(port=server.port) as other,
        ):
            assert one.reset()[1] == {"word": "secret"}
            other.reset()
            assert len(daemon.containers) == 2
            assert np.array_equal(one.step(3)[0], np.full(3, 3, np.float32))
            assert one.get_wrapper_attr("pid") in (1, 2)  # of a namespace of its own
            assert one.get_wrapper_attr("interfaces") == ["lo"]
        wait_until(lambda: not daemon.containers)
    for container in daemon.started:
        assert container.words[:3] == ["sim:3", sys.executable, "-c"]
        assert find_owner(container.options["--label"]) == this_process()
    assert "secret" not in str(daemon.called)


def test_it_sees_what_is_mounted_and_not_the_servers_variables(daemon, simulator, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    (here / "file").write_text("content")
    offer = offered(simulator, network="host", mounts=[f"{here}:{there}:ro"])
    with create_remote_environment_server(offer, port=0) as server, RemoteEnvironment(port=server.port) as environment:
        environment.reset()
        assert environment.get_wrapper_attr("read")(str(there / "file")) == "content"
        with pytest.raises(Exception, match="Read-only file system"):
            environment.get_wrapper_attr("write")(str(there / "file"), "other")
        assert "SECRET_OF_THE_SERVER" not in environment.get_wrapper_attr("variables")


def test_it_has_the_variables_and_by_the_engine_the_device_of_its_session(daemon, simulator):
    offer = offered(simulator, variables={"WORD": "it's a secret"}, gpus=[4, 5])
    with (
        create_remote_environment_server(offer, port=0, check=False) as server,
        RemoteEnvironment(port=server.port) as one,
        RemoteEnvironment(port=server.port) as other,
    ):
        for environment in (one, other):
            environment.reset()
            variables = environment.get_wrapper_attr("variables")
            assert variables["WORD"] == "it's a secret"
            assert "CUDA_VISIBLE_DEVICES" not in variables
        assert [each.options["--gpus"] for each in daemon.containers.values()] == ["device=4", "device=5"]
    assert "a secret" not in str(daemon.called)


def test_apptainer_runs_it_as_a_child(daemon, simulator):
    with (
        create_remote_environment_server(offered(simulator, engine="apptainer", gpus=[3]), port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        assert environment.get_wrapper_attr("variables")["CUDA_VISIBLE_DEVICES"] == "3"
        assert environment.step(0)[1] == 1.0
        assert environment.get_wrapper_attr("interfaces") == ["lo"]


@pytest.mark.parametrize("action", [1, 2], ids=["hangs", "dies"])
def test_a_container_is_removed_however_its_session_ends(daemon, simulator, action):
    with (
        create_remote_environment_server(offered(simulator), port=0, check=False, step_timeout=0.5) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        [(name, container)] = daemon.containers.items()
        with pytest.raises(SessionLost):
            environment.step(action)
        wait_until(lambda: container.process.poll() is not None and name not in daemon.containers)


def test_one_that_does_not_notice_the_end_of_its_input_is_removed_by_name(daemon, simulator):
    """As one whose first process is Python: what it has started cannot kill it."""
    with create_remote_environment_server(offered(simulator), port=0, check=False) as server:
        environment = RemoteEnvironment(port=server.port)
        environment.reset()
        [container] = daemon.containers.values()
        container.process.send_signal(signal.SIGSTOP)
        pids = Path(f"/proc/{container.process.pid}/task/{container.process.pid}/children").read_text().split()
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)
        environment.close()
        wait_until(lambda: not daemon.containers)
    assert any(words[:3] == ["docker", "rm", "--force"] for words in daemon.called)


def test_what_a_killed_server_has_left_the_next_one_removes_and_nothing_else(daemon, simulator, tmp_path):
    arguments = ("--entrypoint", simulator, "--image", "sim:3", "--python", sys.executable, "--port", 0)
    with served(*arguments, log=tmp_path / "log") as running:
        environment = RemoteEnvironment(port=running.port)
        environment.reset()
        [(name, container)] = daemon.containers.items()
        # Nothing there sees that its input ends, as where a simulator hangs in a container's first process.
        children = Path(f"/proc/{container.process.pid}/task/{container.process.pid}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGSTOP)
        running.process.kill()
        running.process.wait(30)
        with contextlib.suppress(Exception):
            environment.close()
    assert name in daemon.containers
    own, dead = this_process(), find_owner(container.options["--label"])
    assert dead is not None
    others = {
        "of-a-living-one": own,
        "of-another-user": Owner(dead.user + 1, dead.pid, dead.start, dead.boot, dead.namespace),
        "of-another-machine": Owner(dead.user, dead.pid, dead.start, "0" * len(dead.boot), dead.namespace),
        "of-another-namespace": Owner(dead.user, dead.pid, dead.start, dead.boot, dead.namespace + 1),
    }
    for other, owner in others.items():
        daemon.containers[other] = type(container)(
            {"--label": f"remote_gym.owner={owner}"}, ["sim:3"], container.process
        )
    with create_remote_environment_server(offered(simulator), port=0, check=False):
        wait_until(lambda: name not in daemon.containers)
        assert container.process.wait(30) != 0
        assert set(others) <= daemon.containers.keys()
        daemon.containers.clear()


def test_an_engine_that_is_not_there_or_has_no_such_image_is_a_config_error(simulator, tmp_path, monkeypatch):
    (tmp_path / "podman").write_text("#!/bin/sh\necho 'Error: sim:3: image not known' >&2; exit 125\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"(?s)podman run .*ended with status 125.*image not known"):
        create_remote_environment_server(offered(simulator, engine="podman"), port=0)
    with pytest.raises(ConfigError, match=r"'apptainer exec .* does not start: No such file"):
        create_remote_environment_server(offered(simulator, engine="apptainer"), port=0)


def test_many_containers_of_one_client_are_gone_when_it_is(daemon, simulator):
    with create_remote_environment_server(offered(simulator), port=0, check=False) as server:
        with contextlib.closing(RemoteVectorEnv(port=server.port, num_envs=4, workers=4)) as environment:
            environment.reset()
            assert len(daemon.containers) == 4
        wait_until(lambda: not daemon.containers)
