"""Images that run a whole server of ours, by an engine that checks each word and runs them in namespaces."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, engine
from leftovers import left_in
from remote_gym import ConfigError, ConnectError, RemoteEnvironment, RemoteGymError, TlsFiles, launch
from remote_gym.ipc.owner import find_owner
from remote_gym.ipc.running import running_servers
from remote_gym.launched.process import LaunchedProcess
from waiting import scaled, wait_until

SIMULATOR = """
import os
from pathlib import Path
import gymnasium as gym

EXPOSED = ("word", "variables", "write")

class Simulator(gym.Env):
    observation_space = gym.spaces.Discrete(3)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, word):
        self.word, self.variables = word, dict(os.environ)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return action, 1.0, False, False, {}

    def write(self, path):
        Path(path).write_text("x")

def create_environment(word="none"):
    print("made for", word, flush=True)
    return Simulator(word)
"""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with engine(tmp_path) as running, tempfile.TemporaryDirectory(prefix="images-") as temporary:
        monkeypatch.setenv("PATH", f"{running.folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("TMPDIR", temporary)
        (records := tmp_path / "records").mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(records))
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        yield running
        wait_until(lambda: not running.containers)
        wait_until(lambda: not left_in(Path(temporary)))
        assert running.faults == []


@pytest.fixture
def image(tmp_path: Path) -> dict[str, Any]:
    """What launches a server in an image: there is none, so its command is one of this machine."""
    (tmp_path / "simulator.py").write_text(textwrap.dedent(SIMULATOR))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return {"image": "sim:3", "serves": port, "command": served(str(tmp_path / "simulator.py"), port)}


def served(what: str, port: int, *more: str) -> list[str]:
    command = [sys.executable, "-m", "remote_gym", "serve", what, "--url", "0.0.0.0", "--port", str(port)]
    return [*command, "--no-check", *more]


@pytest.mark.parametrize("program", ["docker", pytest.param("podman", marks=pytest.mark.long)])
def test_an_image_serves_by_certificates_of_its_launch_alone(daemon, image, monkeypatch, program):
    monkeypatch.setenv("SECRET_OF_THE_PROGRAM", "x")
    with launch(engine=program, variables={"WORD": "it's a secret"}, mounts=["/usr:/run/usr:ro"], **image) as server:
        [(name, container)] = daemon.containers.items()
        assert server.port != image["serves"]  # as the engine says
        environment = server.environment(word="an option")
        assert server.vector_environment(num_envs=2).reset()[0].shape == (2,)
        environment.reset()
        assert environment.step(1)[:2] == (1, 1.0)
        assert environment.connection_info.connected_over == "direct"
        assert environment.word == "an option"
        assert environment.variables["WORD"] == "it's a secret"
        assert "SECRET_OF_THE_PROGRAM" not in environment.variables
        with pytest.raises(RemoteGymError, match="Read-only file system"):
            environment.write("/run/remote-gym/certs/ca.pem")
        wait_until(lambda: "made for an option" in server.log())
        assert container.options["--env"] == ["REMOTE_GYM_CERTS=/run/remote-gym/certs", "WORD"]
        assert container.options["--publish"] == f"127.0.0.1::{image['serves']}"
        owner = find_owner(container.options["--label"])
        assert owner is not None
        assert owner.pid == server.pid
        assert container.words == ["sim:3", *image["command"]]
        certs, folder = container.options["mounts"][0][0], server._process.folder
        assert sorted(path.name for path in Path(certs).iterdir()) == ["ca.pem", "server-key.pem", "server.pem"]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not [*folder.rglob("ca-key.pem")]
        with pytest.raises(ConnectError, match="certificate"):
            RemoteEnvironment(server.url, server.port, tls=TlsFiles(ca=f"{certs}/ca.pem"))
        with pytest.raises(ConnectError, match="TLS"):
            RemoteEnvironment(server.url, server.port)
    assert [words[1] for words in daemon.called if words[1] in ("stop", "rm")] == ["stop", "rm"]
    assert all(name in words for words in daemon.called if words[1] in ("stop", "rm"))
    assert container.process.returncode == 0  # it had time to close its environments
    assert "a secret" not in str(daemon.called)


def test_one_is_listed_and_stopped_like_any_server_of_this_user(daemon, image):
    with launch(**image) as server:
        [listed] = [each for each in running_servers() if each.owner.pid == server.pid]
        assert listed.address == f"127.0.0.1:{server.port}"
        assert listed.environments == ("sim:3",)
        os.kill(server.pid, signal.SIGTERM)  # as `remote-gym servers stop` does
        wait_until(lambda: not daemon.containers)
        wait_until(lambda: not server.is_running)
        assert not running_servers()
        assert "Serves: " in server.log()


def test_a_keeper_that_fails_leaves_no_container(daemon, image, tmp_path, monkeypatch):
    (tmp_path / "failing_keeper.py").write_text(
        "from remote_gym.server.placement import keeper\n"
        "main = keeper.main\n"
        "def fail(*_):\n    raise RuntimeError('no more of it')\n"
        "keeper.answer = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    serves = image.pop("serves")
    process = LaunchedProcess({"serves": serves, "arguments": image}, module="failing_keeper", end_timeout=scaled(30.0))
    with pytest.raises(ConnectError, match=r"(?s)ended with status 1.*no more of it"):
        process.wait_until_ready(scaled(60.0))
    assert len(daemon.started) == 1
    assert not daemon.containers
    process.stop()


def test_a_close_that_is_interrupted_ends_the_container_all_the_same(daemon, image, monkeypatch):
    environment = RemoteEnvironment.from_docker_image(image.pop("image"), **image)
    environment.reset()
    monkeypatch.setattr(environment._rendering, "close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        environment.close()
    assert not daemon.containers


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_environment_from_an_image_ends_it_when_it_is_closed(daemon, image):
    name = image.pop("image")
    arguments = {"entrypoint_kwargs": {"word": "an option"}}
    with RemoteEnvironment.from_docker_image(name, **image, **arguments) as environment:
        environment.reset()
        assert environment.word == "an option"
        assert len(daemon.containers) == 1
    assert not daemon.containers
    environment.close()


def test_an_environment_may_be_from_an_image_that_has_none_of_ours(daemon, tmp_path, image):
    entrypoint = tmp_path / "simulator.py"
    with RemoteEnvironment.from_docker_image("sim:3", entrypoint, python=sys.executable) as environment:
        environment.reset()
        assert environment.step(2)[0] == 2
        [container] = daemon.containers.values()
        assert container.words[:3] == ["sim:3", sys.executable, "-c"]
    assert not daemon.containers


@pytest.mark.parametrize("keeper", ["lives", "is_killed"])
def test_a_container_is_gone_with_its_program_or_removed_by_the_next(daemon, image, keeper):
    code = f"""
    import os, signal
    import remote_gym
    server = remote_gym.launch(**{image!r})
    environment = server.environment()
    environment.reset()
    if {keeper == "is_killed"}:
        os.kill(server.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    if keeper == "is_killed":
        [left] = daemon.containers
        (folder,) = left_in(Path(tempfile.gettempdir()))  # which nobody is left to remove
        subprocess.run(["rm", "-r", str(folder)], check=True)
        with launch(**image):
            assert left not in daemon.containers
    wait_until(lambda: not daemon.containers)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sh", "-c", "echo no fuel; exit 3"], r"(?s)ended.*no fuel"),
        (
            ["sh", "-c", "trap 'exit 0' TERM; echo no certificates; sleep 1000 & wait"],
            r"(?s)cannot be used: TLS.*no certificates",
        ),
        (
            ["sh", "-c", f"trap 'exit 0' TERM; {sys.executable} -m http.server PORT & wait"],
            r"(?s)cannot be used: TLS.*does not speak TLS.*0\.0\.0\.0",
        ),
        ([*served("CartPole-v1", 1, "--allow-insecure"), "--certs", "/none"], r"(?s)ended.*there is no folder '/none'"),
    ],
    ids=["ends", "listens_nowhere", "is_no_server_of_ours", "cannot_start"],
)
def test_an_image_that_does_not_serve_is_an_error_with_the_last_that_it_printed(daemon, image, command, message):
    image["command"] = [word.replace("PORT", str(image["serves"])) for word in command]
    timeout = scaled(3) if "cannot be used: TLS.*no cert" in message else scaled(60)  # of what does not end by itself
    with pytest.raises(ConnectError, match=message):
        launch(start_timeout=timeout, **image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"environment is missing.*serves=PORT"),
        ({"serves": 56789}, r"serves needs image"),
        ({"image": "sim:3", "serves": 0}, r"serves"),
        ({"image": "sim:3", "serves": 56789, "environment": "CartPole-v1"}, r"environment is given beside serves"),
        ({"image": "sim:3", "serves": 56789, "python": "python3"}, r"python is of a server here"),
        ({"image": "sim:3", "serves": 56789, "step_timeout": 3.0}, r"step_timeout is of a server here"),
        ({"image": "sim:3", "serves": 56789, "engine": "apptainer"}, r"apptainer.*publishes no port"),
        (
            {"image": "sim:3", "serves": 56789, "engine": "podman"},
            r"engine needs 'podman', which is no program in PATH",
        ),
        ({"image": "--rm", "serves": 56789}, r"image '--rm'"),
        ({"image": "sim:3", "serves": 56789, "mounts": ["here:/there"]}, r"'here' is not absolute"),
        ({"image": "sim:3", "serves": 56789, "ssh": "box"}, r"ssh is of a server here"),
    ],
    ids=str,
)
def test_what_cannot_serve_is_refused(monkeypatch, tmp_path, arguments, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        launch(**arguments)
