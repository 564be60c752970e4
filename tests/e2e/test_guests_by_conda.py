"""Environments of Conda, by a program of its name that knows the words of ``conda run`` and activates as that does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from remote_gym import ConfigError, RemoteEnvironment, SessionLost, create_remote_environment_server
from served import served
from waiting import wait_until

CONDA = """#!{python} -SE
import os, shlex, subprocess, sys, tempfile
run, captures, option, prefix, *command = sys.argv[1:]
assert (run, captures) == ("run", "--no-capture-output"), sys.argv
assert option in ("-n", "-p"), sys.argv
if option == "-n":
    prefix = {envs!r} + "/" + prefix
if not os.path.isdir(prefix + "/conda-meta"):
    sys.exit("EnvironmentLocationNotFound: Not a conda environment: " + prefix)
# It refuses these, since it writes the command into a script.
assert not any("\\n" in word for word in command), "arguments contain newlines"
with tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False) as script:
    script.write(
        "export CONDA_PREFIX=" + shlex.quote(prefix) + ' PATH="' + prefix + '/bin:$PATH"\\n'
        'for each in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$each"; done\\n' + shlex.join(command) + "\\n"
    )
status = subprocess.run(["bash", script.name]).returncode
os.unlink(script.name)
sys.exit(status)
"""

SIMULATOR = """
import os, sys
import gymnasium as gym

EXPOSED = ("variables", "pid", "executable")

class Simulator(gym.Env):
    observation_space = gym.spaces.Discrete(3)
    action_space = gym.spaces.Discrete(3)

    def __init__(self):
        self.variables, self.pid, self.executable = dict(os.environ), os.getpid(), sys.executable

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        if action == 2:
            print("out of fuel", flush=True)
            os._exit(3)
        return action, 1.0, False, False, {}

def create_environment():
    return Simulator()
"""


@pytest.fixture
def envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of environments, with one, ``isaac``."""
    (programs := tmp_path / "bin").mkdir()
    prefix = tmp_path / "envs" / "isaac"
    for folder in ("bin", "conda-meta", "etc/conda/activate.d"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "etc/conda/activate.d/sim.sh").write_text('echo activating >&2\nexport SIM_HOME="$CONDA_PREFIX/sim"\n')
    for path, text in (
        (programs / "conda", CONDA.format(python=sys.executable, envs=str(tmp_path / "envs"))),
        (prefix / "bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
    ):
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return prefix.parent


@pytest.fixture
def offer(tmp_path: Path, envs: Path) -> dict[str, Any]:
    file = tmp_path / "simulator.py"
    file.write_text(textwrap.dedent(SIMULATOR))
    return {"entrypoint": str(file), "conda": "isaac"}


def command_of(pid: int) -> list[psutil.Process]:
    """A process and those above it up to ``conda``, and that."""
    family = [psutil.Process(pid), *psutil.Process(pid).parents()]
    index = next(index for index, each in enumerate(family) if "--no-capture-output" in each.cmdline())
    return family[: index + 1]


@pytest.mark.parametrize("by", ["name", "path"])
def test_an_environment_is_activated_and_gone_with_its_session(offer, envs, by):
    offer["conda"] = "isaac" if by == "name" else str(envs / "isaac")
    with create_remote_environment_server(offer, port=0) as server:
        with RemoteEnvironment(port=server.port) as environment:
            environment.reset()
            assert environment.step(1)[:2] == (1, 1.0)
            variables = environment.get_wrapper_attr("variables")
            assert variables["SIM_HOME"] == f"{envs}/isaac/sim"
            assert variables["PATH"].startswith(f"{envs}/isaac/bin:")
            processes = command_of(environment.get_wrapper_attr("pid"))
            assert len(processes) == 3  # with the shell between
            with pytest.raises(SessionLost) as raised:
                environment.step(2)
            assert "out of fuel" in str(raised.value.output)
            wait_until(lambda: not any(each.is_running() for each in processes))
            environment.reset()
            processes = command_of(environment.get_wrapper_attr("pid"))
        wait_until(lambda: not any(each.is_running() for each in processes))


def test_nothing_is_left_of_one_whose_server_was_killed(offer, tmp_path):
    flags = ("--entrypoint", offer["entrypoint"], "--conda", "isaac", "--port", 0)
    with served(*flags, log=tmp_path / "log") as running:
        environment = RemoteEnvironment(port=running.port)
        environment.reset()
        processes = command_of(environment.get_wrapper_attr("pid"))
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(30)
        wait_until(lambda: not any(each.is_running() for each in processes))
        with contextlib.suppress(Exception):
            environment.close()


def test_what_conda_says_of_an_environment_that_is_not_there_is_part_of_the_error(offer):
    with pytest.raises(ConfigError, match=r"(?s)conda run .* ended with status 1.*Not a conda environment: .*/none"):
        create_remote_environment_server(offer | {"conda": "none"}, port=0)
