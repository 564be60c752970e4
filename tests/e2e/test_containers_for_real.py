"""Environments in containers of the real podman, ended from both sides."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from podman import Podman, podman_with_image
from remote_gym import (
    ClientOptions,
    ConfigError,
    ConnectError,
    RemoteEnvironment,
    RemoteVectorEnv,
    SessionLost,
    TransportError,
    create_remote_environment_server,
    launch,
)
from remote_gym.ipc.leftovers import KILL_AFTER
from remote_gym.ipc.owner import find_owner, this_process
from served import Served, served
from waiting import scaled, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

STEPS = 500
SEED = 7

SIMULATOR = """
import os, subprocess, sys, time
from pathlib import Path
import numpy as np
import gymnasium as gym

EXPOSED = ("pid", "interfaces", "variables", "cpus", "read", "write")

class Simulator(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (48, 64, 3), np.uint8), speed=gym.spaces.Box(-1, 1, (3,), np.float32)
    )
    action_space = gym.spaces.Discrete(4)

    def __init__(self, word):
        self.word = word
        self.pid = os.getpid()
        self.cpus = sorted(os.sched_getaffinity(0))
        self.interfaces = sorted(os.listdir("/sys/class/net"))
        self.variables = dict(os.environ)
        self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])

    def _observation(self):
        image = self.np_random.integers(0, 256, (48, 64, 3), np.uint8)
        return {"image": image, "speed": self.np_random.random(3, np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {"word": self.word}

    def step(self, action):
        if self.word == "hangs" and action == 1:
            Path("/tmp/is-hung").touch()
            time.sleep(1000)
        if self.word == "dies" and action == 1:
            print("out of fuel", flush=True)
            os._exit(3)
        return self._observation(), float(self.np_random.random()), False, False, {"action": int(action)}

    def read(self, path):
        return Path(path).read_text()

    def write(self, path, text):
        Path(path).write_text(text)

def create_environment(word="none"):
    return Simulator(word)
"""

PLAY = f"""
import hashlib, random
import numpy as np

def digest(value):
    if isinstance(value, dict):
        return {{str(key): digest(each) for key, each in sorted(value.items())}}
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return repr(value)

def play(environment):
    chooser = random.Random({SEED})
    played = [digest(environment.reset(seed={SEED})[0])]
    for _ in range({STEPS}):
        observation, reward, terminated, truncated, info = environment.step(chooser.randrange(2))
        played.append([digest(observation), float(reward).hex(), terminated, truncated, digest(info)])
        if terminated or truncated:
            played.append(digest(environment.reset()[0]))
    return played
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    yield from podman_with_image(tmp_path_factory.mktemp("podman"))


@pytest.fixture(autouse=True)
def nothing_left(podman: Podman) -> Iterator[None]:
    before = set(podman.run("ps", "--all", "--quiet").split())
    yield
    wait_until(lambda: set(podman.run("ps", "--all", "--quiet").split()) <= before)


@pytest.fixture
def simulator(tmp_path: Path) -> str:
    file = tmp_path / "simulator.py"
    file.write_text(textwrap.dedent(SIMULATOR))
    return str(file)


@pytest.fixture
def offer(podman: Podman, simulator: str) -> dict[str, Any]:
    return {"entrypoint": simulator, "image": podman.image, "engine": "podman"}


def flags(offer: dict[str, Any]) -> list[str]:
    """The same for ``remote-gym serve``."""
    return [word for name, value in offer.items() for word in (f"--{name}", str(value))]


def step_until_it_fails(environment: RemoteEnvironment) -> None:
    while True:
        environment.step(0)


@pytest.mark.parametrize("which", ["CartPole-v1", "simulator"])
def test_500_steps_are_those_of_a_program_in_the_container(podman, offer, simulator, tmp_path, which):
    make = "import gymnasium; environment = gymnasium.make('CartPole-v1')"
    if which == "simulator":
        make = "import simulator; environment = simulator.create_environment()"
    else:
        offer = {"entrypoint_kwargs": {"id": which}, "image": podman.image, "engine": "podman"}
    (tmp_path / "program.py").write_text(f"{PLAY}\n{make}\nimport json; print(json.dumps(play(environment)))")
    mount = f"type=bind,source={tmp_path},target=/there,readonly"
    image = podman.image
    inside = json.loads(
        podman.run("run", "--rm", "--network=none", "--mount", mount, image, "python3", "/there/program.py")
    )
    names: dict[str, Any] = {}
    exec(PLAY, names)
    with (
        create_remote_environment_server(offer, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        played = names["play"](environment)
    assert len(played) > STEPS
    assert played == inside


def test_it_has_no_network_and_a_name_and_label_of_its_own(podman, offer, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    with create_remote_environment_server(offer, port=0, check=False) as server:
        kwargs = {"entrypoint_kwargs": {"word": "secret"}}
        with (
            RemoteEnvironment(port=server.port, remote_args=kwargs) as one,
            RemoteEnvironment(port=server.port) as other,
        ):
            assert one.reset()[1] == {"word": "secret"}
            other.reset()
            assert one.get_wrapper_attr("interfaces") == ["lo"]
            assert one.get_wrapper_attr("pid") < 100  # of a namespace of its own
            assert "SECRET_OF_THE_SERVER" not in one.get_wrapper_attr("variables")
            containers = podman.containers()
            assert len({each["Name"] for each in containers}) == 2
            for each in containers:
                assert each["Name"].startswith("remote_gym-")
                assert find_owner(each["Config"]["Labels"]["remote_gym.owner"]) == this_process()
                assert each["HostConfig"]["NetworkMode"] == "none"
                assert "secret" not in json.dumps(each)
        wait_until(lambda: not podman.containers())


def test_it_has_the_network_mounts_variables_and_processors_that_were_asked_for(podman, offer, tmp_path):
    (readable := tmp_path / "readable").mkdir()
    (writable := tmp_path / "writable").mkdir()
    (readable / "file").write_text("content")
    offer |= {
        "network": "bridge",
        "mounts": [f"{readable}:/readable:ro", f"{writable}:/writable"],
        "variables": {"WORD": "it's a secret"},
        "cpus": [0],
        "engine_options": ["--hostname", "simbox"],
    }
    with (
        create_remote_environment_server(offer, port=0, check=False) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        assert "eth0" in environment.get_wrapper_attr("interfaces")
        assert environment.get_wrapper_attr("variables")["WORD"] == "it's a secret"
        assert environment.get_wrapper_attr("cpus") == [0]
        assert environment.get_wrapper_attr("variables")["HOSTNAME"] == "simbox"
        assert environment.get_wrapper_attr("read")("/readable/file") == "content"
        with pytest.raises(Exception, match="Read-only file system"):
            environment.get_wrapper_attr("write")("/readable/file", "other")
        environment.get_wrapper_attr("write")("/writable/file", "written")
    assert (writable / "file").read_text() == "written"


@pytest.mark.parametrize("how", ["hangs", "dies"])
def test_it_is_gone_however_its_environment_ends(podman, offer, how):
    kwargs = {"entrypoint_kwargs": {"word": how}}
    with (
        create_remote_environment_server(offer, port=0, check=False, step_timeout=scaled(1)) as server,
        RemoteEnvironment(port=server.port, remote_args=kwargs) as environment,
    ):
        environment.reset()
        with pytest.raises(SessionLost) as raised:
            environment.step(1)
        if how == "dies":
            assert "out of fuel" in str(raised.value.output)
        wait_until(lambda: not podman.containers())


def test_a_client_learns_at_once_that_its_container_was_killed(podman, offer):
    with (
        create_remote_environment_server(offer, port=0, check=False) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset()
        [container] = podman.containers()
        podman.run("kill", container["Name"])
        begin = time.monotonic()
        with pytest.raises(SessionLost):
            step_until_it_fails(environment)
        assert time.monotonic() - begin < scaled(10)
        wait_until(lambda: not podman.containers())
        environment.reset()
        assert environment.step(0)[4] == {"action": 0}


def test_one_that_is_frozen_is_removed_by_its_name(podman, offer):
    with create_remote_environment_server(offer, port=0, check=False) as server:
        environment = RemoteEnvironment(port=server.port)
        environment.reset()
        [container] = podman.containers()
        os.kill(container["State"]["Pid"], signal.SIGSTOP)
        environment.close()
        wait_until(lambda: not podman.containers())


def test_it_is_gone_with_a_client_that_is_killed(podman, offer):
    program = (
        "import sys, time, remote_gym\n"
        "environment = remote_gym.RemoteEnvironment(port=int(sys.argv[1]))\n"
        "environment.reset(); print('ready', flush=True); time.sleep(1000)"
    )
    with create_remote_environment_server(offer, port=0, check=False, lease=1) as server:
        command = [sys.executable, "-c", program, str(server.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            try:
                assert client.stdout is not None
                assert client.stdout.readline() == "ready\n"
                assert len(podman.containers()) == 1
            finally:
                client.kill()
        wait_until(lambda: not podman.containers())


def test_containers_of_a_server_that_is_killed_end_by_themselves(podman, offer, tmp_path):
    with served(*flags(offer), "--port", 0, log=tmp_path / "log") as running:
        with contextlib.closing(RemoteVectorEnv(port=running.port, num_envs=3, workers=3)) as environment:
            environment.reset()
            assert len(podman.containers()) == 3
            running.process.kill()
            running.process.wait(30)
            wait_until(lambda: not podman.containers())
            with contextlib.suppress(Exception):
                environment.close()


def freeze(podman: Podman, server: Served, client: RemoteEnvironment) -> None:
    """The container itself, which nothing can end from within then."""
    [container] = podman.containers()
    podman.run("pause", container["Name"])
    server.process.kill()


def hang(podman: Podman, server: Served, client: RemoteEnvironment) -> None:
    """Its process 1, in the environment, and let nobody live who would end it."""

    def step_once() -> None:
        with contextlib.suppress(Exception):
            client.step(1)

    step = threading.Thread(target=step_once, daemon=True)
    step.start()
    name = podman.containers()[0]["Name"]
    wait_until(lambda: "*" not in podman.run("exec", name, "sh", "-c", "echo /tmp/is-hung*"))
    children = psutil.Process(server.process.pid).children()
    server.process.kill()
    for child in children:
        child.kill()
    client.close()
    step.join(scaled(30))


@pytest.mark.parametrize("stop", [freeze, hang])
def test_what_cannot_end_by_itself_is_removed_by_the_next_server(podman, offer, tmp_path, stop, caplog):
    kwargs = {"entrypoint_kwargs": {"word": "hangs"}}
    with served(*flags(offer), "--port", 0, log=tmp_path / "log") as running:
        environment = RemoteEnvironment(port=running.port, remote_args=kwargs)
        environment.reset()
        stop(podman, running, environment)
        running.process.wait(30)
        with contextlib.suppress(Exception):
            environment.close()
    time.sleep(KILL_AFTER + 1)  # in which nothing has ended it
    foreign = "remote_gym-test-foreign"
    label = f"remote_gym.owner={this_process()}"
    sleep = ("python3", "-c", "import time; time.sleep(1000)")
    podman.run(
        "run", "-d", "--name", foreign, "--stop-timeout=0", "--label", label, "--network=none", podman.image, *sleep
    )
    try:
        assert len(podman.containers()) == 2
        with create_remote_environment_server(offer, port=0, check=False):
            wait_until(lambda: [each["Name"] for each in podman.containers()] == [foreign])
        assert "could not be removed" not in caplog.text  # in time: podman asks process 1 to end first, for 10 s
    finally:
        podman.run("rm", "--force", foreign)


def test_an_image_that_is_not_there_is_a_config_error_in_podmans_words(offer):
    with pytest.raises(ConfigError, match=r"(?s)podman run .*ended with status 125.*no-such-image"):
        create_remote_environment_server(offer | {"image": "localhost/no-such-image:3"}, port=0)


def test_an_image_without_numpy_is_a_config_error(podman, offer):
    offer |= {"command": ["python3", "-S"]}
    with pytest.raises(ConfigError, match=r"(?i)numpy"):
        create_remote_environment_server(offer, port=0)


PORT = 56789


@pytest.fixture(scope="module")
def image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that serves by itself, as a user without rights, as a Dockerfile would have it."""
    name = f"{podman.image}-serves"
    (folder := tmp_path_factory.mktemp("image")).chmod(0o755)
    (folder / "simulator.py").write_text(textwrap.dedent(SIMULATOR))
    words = ["python3", "-m", "remote_gym", "serve", "/sim/simulator.py", "--url", "0.0.0.0"]
    podman.run("create", "--name", "remote_gym-made", "--network=none", podman.image, "python3")
    try:
        podman.run("cp", str(folder), "remote_gym-made:/sim")
        changes = [word for change in ("USER sim", f"CMD {json.dumps(words)}") for word in ("--change", change)]
        podman.run("commit", *changes, "remote_gym-made", name)
    finally:
        podman.run("rm", "--force", "remote_gym-made")
    yield name
    podman.run("rmi", name)


def test_500_steps_of_a_server_in_an_image_are_those_of_the_environment_here(podman, image, simulator):
    names: dict[str, Any] = {}
    exec(PLAY, names)
    exec(Path(simulator).read_text(), names)
    here = names["play"](local := names["create_environment"]())
    local.helper.kill()
    local.helper.wait()
    with launch(image=image, engine="podman", serves=PORT) as server:
        environment = server.environment()
        assert names["play"](environment) == here
        assert environment.connection_info.connected_over == "direct"
        [container] = podman.containers()
        published = container["NetworkSettings"]["Ports"][f"{PORT}/tcp"]
        assert published == [{"HostIp": "127.0.0.1", "HostPort": str(server.port)}]
        [mount] = container["Mounts"]
        assert not mount["RW"]
        assert "KEY" not in podman.run("logs", container["Name"])
        with pytest.raises(ConnectError):  # who has no certificate of this launch
            RemoteEnvironment(server.url, server.port)
    assert not podman.containers()


def test_closing_an_environment_from_an_image_ends_the_container(podman, image):
    with RemoteEnvironment.from_docker_image(image, engine="podman", serves=PORT) as environment:
        environment.reset(seed=1)
        assert len(podman.containers()) == 1
    assert not podman.containers()


def test_a_container_that_is_killed_is_soon_known_to_be_gone(podman, image):
    with launch(image=image, engine="podman", serves=PORT) as server:
        environment = server.environment(options=ClientOptions(reconnect_timeout=1.0))
        environment.reset()
        [container] = podman.containers()
        podman.run("kill", container["Name"])
        with pytest.raises((SessionLost, TransportError)):
            step_until_it_fails(environment)
        wait_until(lambda: not server.is_running)


@pytest.mark.parametrize("keeper", ["lives", "is_killed"])
def test_a_container_is_gone_with_its_program_or_removed_by_the_next(podman, image, keeper, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = f"""
    import os, signal
    import remote_gym
    server = remote_gym.launch(image={image!r}, engine="podman", serves={PORT})
    environment = server.environment()
    environment.reset()
    if {keeper == "is_killed"}:
        os.kill(server.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, timeout=scaled(100))
    assert done.returncode == -signal.SIGKILL
    if keeper == "is_killed":
        [left] = podman.containers()
        with launch(image=image, engine="podman", serves=PORT):
            assert left["Name"] not in [each["Name"] for each in podman.containers()]
    wait_until(lambda: not podman.containers())


def test_an_image_that_cannot_serve_is_an_error_with_the_last_that_it_printed(podman):
    with pytest.raises(ConnectError, match=r"(?s)ended with status 125.*no-such-image"):
        launch(image="localhost/no-such-image:3", engine="podman", serves=PORT)
    command = ["python3", "-c", "print('no fuel'); raise SystemExit(3)"]
    with pytest.raises(ConnectError, match=r"(?s)ended.*no fuel"):
        launch(image=podman.image, engine="podman", serves=PORT, command=command)
