"""A worker of another release is refused with both versions, rather than waited for."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

import remote_gym
from remote_gym import SessionLost
from remote_gym.ipc import control as control
from remote_gym.ipc.dialect import dialect
from remote_gym.server.launch import forkserver_client as launching
from remote_gym.testing import loopback_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no forkserver")


@pytest.fixture
def old_interpreter(tmp_path: Path) -> Path:
    """A Python that has an older release, whose forkserver never answers what it does not know."""
    server = tmp_path / "old" / "remote_gym" / "server"
    server.mkdir(parents=True)
    (server.parent / "__init__.py").write_text('__version__ = "0.0.1"\n')
    (server / "__init__.py").write_text("")
    (server / "forkserver.py").write_text("import time\n\n\ndef main():\n    time.sleep(120)\n")
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={server.parent.parent} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o700)
    return interpreter


def test_an_older_release_is_named_with_both_versions(obedient, old_interpreter, caplog):
    began = time.monotonic()
    with loopback_server(obedient, interpreter=str(old_interpreter)) as server, pytest.raises(SessionLost) as caught:
        server.environment()
    assert time.monotonic() - began < launching.START_TIMEOUT / 2
    for said in (str(caught.value), caplog.text):
        assert "remote_gym 0.0.1" in said
        assert f"a server of remote_gym {remote_gym.__version__}" in said
    assert str(old_interpreter) in str(caught.value)


def test_a_release_that_says_other_things_is_refused_though_it_can_tell(obedient, monkeypatch):
    monkeypatch.setattr(launching, "dialect", lambda: "another")
    with loopback_server(obedient) as server, pytest.raises(SessionLost, match="install that release there"):
        server.environment()


def test_a_dialect_depends_on_what_is_said_and_not_on_what_says_it(monkeypatch):
    # Another implementation of protobuf stands for another release of it.
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    script = "from remote_gym.ipc.dialect import dialect; print(dialect())"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == dialect()
    monkeypatch.setattr(control, "RECORD", struct.Struct("!BQ"))
    assert dialect.__wrapped__() != dialect()


def test_a_worker_that_ends_before_its_first_answer_is_reported_with_its_interpreter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "entrypoint.py").write_text("import os\nprint('last words', flush=True)\nos._exit(1)\n")
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o700)
    options = {"interpreter": str(interpreter)}
    with loopback_server({"entrypoint": "entrypoint.py"}, **options) as server, pytest.raises(SessionLost) as caught:
        server.environment()
    assert f"amid creating the environment in {interpreter}" in str(caught.value)
    assert caught.value.output == "last words"
