"""What a worker finds around it: standard streams, environment variables, and places to write to, or none."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_gym import RemoteEnvironment
from remote_gym.testing import loopback_server
from waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="worker processes need fork")

ENTRYPOINT = """
import os, sys
from gymnasium.envs.classic_control import CartPoleEnv
EXPOSED = ("streams", "variables")


def look():
    return [
        [s.name, s.mode, s.encoding, s.errors, s.write_through, s.fileno(), type(s.buffer).__name__]
        for s in (sys.stdout, sys.stderr)
    ] + [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__, sys.stdin.read()]


class Looking(CartPoleEnv):
    streams = property(lambda self: look())
    variables = property(lambda self: dict(os.environ))


def create_environment(text=None):
    if text:
        print(text)
        print(text, file=sys.stderr)
    return Looking()
"""
SETTINGS = [
    {},
    {"PYTHONIOENCODING": "utf-8", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1:replace"},
    {"PYTHONUTF8": "1"},
    {"PYTHONUNBUFFERED": "1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.fixture
def looking(tmp_path, monkeypatch) -> Path:
    (tmp_path / "looking.py").write_text(ENTRYPOINT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_standard_streams_are_those_that_python_makes(settings, looking, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    code = "import json, looking; print(json.dumps(looking.look()))"
    local = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    with loopback_server({"entrypoint": "looking.py"}) as server:
        environment = server.environment()
        assert environment.streams == json.loads(local.stdout)


def test_what_python_can_print_to_stderr_a_worker_can(looking, caplog):
    caplog.set_level(logging.INFO, logger="remote_gym")
    with loopback_server({"entrypoint": "looking.py", "entrypoint_kwargs": {"text": "caf\u00e9"}}) as server:
        server.environment().reset()
        wait_until(lambda: caplog.text.count("caf\u00e9") == 2)
    surrogate = "import sys; print('name \\udcff', file=sys.stderr)"
    (looking / "looking.py").write_text(f"{ENTRYPOINT}\n{surrogate}\n")
    with loopback_server({"entrypoint": "looking.py"}) as server:
        server.environment().reset()
        wait_until(lambda: "name \\udcff" in caplog.text)


def test_variables_that_are_the_servers_own_stay_with_it(looking, monkeypatch):
    own = ("REMOTE_GYM_TOKEN", "REMOTE_GYM_ANYTHING", "NOTIFY_SOCKET", "LISTEN_FDS", "CREDENTIALS_DIRECTORY")
    for name in own:
        monkeypatch.setenv(name, "secret of the server")
    monkeypatch.setenv("SIMULATOR_LICENSE", "the environment's")
    with loopback_server({"entrypoint": "looking.py"}, secure=False) as server:
        environment = server.environment()
        variables = environment.variables
    assert "secret of the server" not in variables.values()
    assert variables["SIMULATOR_LICENSE"] == "the environment's"


READ_ONLY = """
for folder in /tmp /var/tmp /dev/shm; do
    test -d $folder && mount --bind $folder $folder && mount -o remount,bind,ro $folder
done
cd "$PWD"  # which was that below the mount
unset HOME XDG_CACHE_HOME TMPDIR
exec "$@"
"""


@pytest.fixture
def serve_read_only(looking) -> Iterator[int]:
    """The port of a server that can write nowhere."""
    code = (
        "import sys; from remote_gym import create_remote_environment_server\n"
        "try: open('written', 'w')\n"
        "except OSError: pass\n"
        "else: sys.exit('it can be written to')\n"
        "server = create_remote_environment_server({'entrypoint': 'looking.py'}, 'localhost', 0)\n"
        "print(server.port, flush=True)\n"
        "server.wait_for_termination()\n"
    )
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", sys.executable, "-B", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0 or not shutil.which("unshare"), reason="needs to mount read-only"
)
def test_sessions_open_where_nothing_can_be_written(serve_read_only):
    environment = RemoteEnvironment("localhost", serve_read_only)
    environment.reset()
    environment.step(0)
    environment.close()
