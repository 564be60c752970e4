"""Environments in a Python that uv provides, with packages of their time."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from interpreters import OLD, python_of
from remote_gym import ConfigError, RemoteEnvironment, create_remote_environment_server

HERE = str(Path(sys.executable).parent)
"""Folder of this Python's programs, where the development set-up has uv."""
UV = shutil.which("uv", path=f"{os.environ.get('PATH', '')}{os.pathsep}{HERE}")


@pytest.fixture(autouse=True)
def uv_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ.get('PATH', '')}{os.pathsep}{HERE}")


def needs_uv_run(*requirements: str) -> None:
    """Skip where uv cannot be had, or cannot install, which its index or its cache may refuse it."""
    if UV is None:
        pytest.skip("needs uv, in PATH or beside this Python")
    words = [word for each in requirements for word in ("--with", each)]
    command = [UV, "run", "--no-project", "--isolated", "--python", sys.executable, *words, "python", "-c", "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"uv does not provide {requirements} in time")
    if done.returncode != 0:
        pytest.skip(f"uv cannot provide {requirements}: {done.stderr[-500:]}")


@pytest.mark.timeout(400)
def test_uv_provides_a_python_with_what_is_asked_for(monkeypatch):
    needs_uv_run("gymnasium==0.29.1", "numpy<2")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    uv = {"python": sys.executable, "with": ["gymnasium==0.29.1", "numpy<2"]}
    offer = {"entrypoint_kwargs": {"id": "CartPole-v1"}, "uv": uv}
    with (
        create_remote_environment_server(offer, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset(seed=1)
        assert environment.step(1)[1] == 1.0


@pytest.mark.long
@pytest.mark.timeout(700)
def test_an_old_python_has_an_old_gym_by_the_example_of_the_page(monkeypatch):
    [old] = [each for each in OLD if each.library == "gym 0.26"]
    base = Path(os.path.realpath(python_of(old))).parent  # where uv, too, finds this version
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{base}")
    needs_uv_run("numpy")
    page = (Path(__file__).resolve().parents[2] / "docs" / "guests.md").read_text("utf-8")
    [text] = re.findall(r"^`uv=({.*?})` means", page, re.MULTILINE)
    offer = {"entrypoint_kwargs": {"id": "CartPole-v1"}, "uv": ast.literal_eval(text)}
    with (
        create_remote_environment_server(offer, port=0) as server,
        RemoteEnvironment(port=server.port) as environment,
    ):
        environment.reset(seed=1)
        assert environment.step(1)[1] == 1.0


def test_what_uv_says_is_part_of_the_error(tmp_path: Path):
    if UV is None:
        pytest.skip("needs uv, in PATH or beside this Python")
    uv = {"python": sys.executable, "with": ["no such requirement"]}
    with pytest.raises(ConfigError, match=r"(?s)uv run .*ended with status 2.*no such requirement"):
        create_remote_environment_server({"entrypoint_kwargs": {"id": "CartPole-v1"}, "uv": uv}, port=0)
