"""The scripts of exploration/, with the arguments that their users know."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interpreters import NEW, python_of
from remote_gym.testing import loopback_server
from waiting import scaled

SCRIPTS = Path(__file__).parents[2] / "exploration"
TIMEOUT = 60


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """The port that start_remote_environment.py serves, started from `folder`."""
    command = [sys.executable, str(SCRIPTS / "start_remote_environment.py"), *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving at "), process.communicate()[1]
        yield line.rstrip().rpartition(":")[2]
    finally:
        process.terminate()
        process.communicate(timeout=scaled(TIMEOUT))


def run(folder: Path, script: str, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(command, cwd=folder, env=environment, timeout=scaled(TIMEOUT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def files(certificates: Any, tmp_path: Path) -> Path:
    """A folder that holds the certificates under their usual names."""
    for name in ("ca", "server", "server_key", "client", "client_key"):
        (tmp_path / f"{name.replace('_', '-')}.pem").symlink_to(getattr(certificates, name))
    return tmp_path


@pytest.mark.parametrize("threads", [[], ["--use_thread"]])
def test_server_and_interaction_over_mutual_tls(threads: list[str], files: Path) -> None:
    server = ["--server_certificate", "server.pem", "--server_private_key", "server-key.pem"]
    client = ["--client_certificate", "client.pem", "--client_private_key", "client-key.pem"]
    root = ["--root_certificate", "ca.pem"]
    with serving(files, "-u", "localhost", "-p", "0", *server, *root, *threads) as port:
        printed = run(
            files, "start_environment_interaction.py", "-u", "localhost", "-p", port, *client, *root, "--episodes", "1"
        )
    assert re.search(r"^1 episodes, \d+ steps, mean return -", printed, re.MULTILINE)


def test_interaction_without_certificates_and_with_a_render_mode(tmp_path: Path) -> None:
    with serving(tmp_path, "--url", "localhost", "--port", "0") as port:
        arguments = ["--url", "localhost", "--port", port, "--render_mode", "rgb_array", "--episodes", "1"]
        assert "1 episodes" in run(tmp_path, "start_environment_interaction.py", *arguments)


def test_many_are_played_with_asyncio_over_mutual_tls(files: Path) -> None:
    with loopback_server("CartPole-v1", use_thread=True) as server:
        assert server.client_credentials_paths is not None
        folder = server.client_credentials_paths[0].parent
        arguments = ["--port", str(server.server.port), "--certificates", str(folder), "--environments", "5"]
        printed = run(files, "play_many_with_asyncio.py", *arguments)
        assert server.server.session_count == 0
    assert printed.startswith("5 episodes, 0 lost, ")


def test_minimal_client_plays_over_mutual_tls(files: Path) -> None:
    pytest.importorskip("grpc_tools", reason="the script compiles the proto file with it")
    with loopback_server("CartPole-v1") as server:
        assert server.client_credentials_paths is not None
        paths = [str(path) for path in server.client_credentials_paths]
        printed = run(files, "minimal_client.py", f"localhost:{server.server.port}", *paths)
        assert server.server.session_count == 0
    *steps, last = printed.splitlines()
    assert last == f"return {len(steps)}.0"
    assert all(line.endswith(" 1.0") for line in steps)


def test_a_text_environment_plays_by_itself(tmp_path: Path) -> None:
    prompt, *said = run(tmp_path, "text_environment.py").splitlines()
    assert prompt.startswith("You look for a treasure.")
    assert said[-1].startswith("You have found it!")
    assert all("(60, 60, 3)" in line for line in said)


def test_launching_an_environment_in_another_python(tmp_path: Path) -> None:
    entrypoint, kwargs = str(SCRIPTS / "remote_environment_entrypoint.py"), '{"env": "CartPole-v1"}'
    python = ["--python", python_of(NEW[0])]
    printed = run(tmp_path, "launch_and_play.py", entrypoint, *python, "--kwargs", kwargs, "--episodes", "2")
    assert re.fullmatch(r"2 episodes, \d+ steps, mean return \d+(\.\d+)?\n", printed)
