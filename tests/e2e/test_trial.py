"""A server tries what it offers before it listens, so that its owner learns of a fault, and not its first client."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from remote_gym import ConfigError, RemoteEnvironment, create_remote_environment_server
from remote_gym.cli import main
from waiting import scaled, wait_until

FILES = {
    "good.py": "import gymnasium\ndef create_environment(**kwargs): return gymnasium.make('CartPole-v1')",
    "raises.py": "def create_environment():\n    raise LookupError('no \\x1b[31msuch map')",
    "no_environment.py": "def create_environment(): return 3",
    "exits.py": "import os\ndef create_environment(): os._exit(3)",
    "hangs.py": "import time\ndef create_environment(): time.sleep(600)",
    "needs.py": "import gymnasium\ndef create_environment(track): return gymnasium.make('CartPole-v1')",
    "renders.py": (
        "import gymnasium\ndef create_environment(render_mode):\n"
        "    assert render_mode == 'rgb_array'\n    return gymnasium.make('CartPole-v1', render_mode=render_mode)"
    ),
    "vectors.py": (
        "import gymnasium\n"
        "def create_vector_environment(num_envs): return gymnasium.make_vec('CartPole-v1', num_envs=num_envs)"
    ),
    "counts.py": (
        "import gymnasium, pathlib\n"
        "class Counted(gymnasium.Wrapper):\n"
        "    def close(self):\n        super().close()\n        pathlib.Path('closed').open('a').write('x')\n"
        "def create_environment():\n"
        "    pathlib.Path('created').open('a').write('x')\n    return Counted(gymnasium.make('CartPole-v1'))"
    ),
}
TEXTS = {
    "raises.py": "it raised LookupError: no ",
    "no_environment.py": "returned the type int",
    "exits.py": "status 3",
    "hangs.py": "creating it took over 0.5 s",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def create(default_args, **options):
    return create_remote_environment_server(default_args, port=0, **options)


@pytest.mark.parametrize("file", TEXTS)
def test_what_cannot_be_created_is_refused_with_the_environments_own_error(file):
    options = {"open_timeout": 0.5} if file == "hangs.py" else {}
    with pytest.raises(ConfigError) as caught:
        create({"entrypoint": file}, **options)
    assert "the default environment cannot be created" in str(caught.value)
    assert TEXTS[file] in str(caught.value)
    assert bool(re.search(r", in .*raises\.py line [0-9]+", str(caught.value))) == (file == "raises.py")
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "remote_gym.worker.forkserver" in " ".join(child.cmdline())]


def test_a_named_environment_is_tried_and_named():
    with pytest.raises(ConfigError, match=r"environment 'broken' cannot be created.*it raised LookupError"):
        create({"entrypoint": "good.py"}, environments={"broken": {"entrypoint": "raises.py"}})


def test_in_threads_it_is_tried_in_one():
    with pytest.raises(ConfigError, match="it raised LookupError"):
        create({"entrypoint": "raises.py"}, use_thread=True)
    with create({"entrypoint": "good.py"}, use_thread=True):
        pass


def test_check_false_serves_it_all_the_same():
    with create({"entrypoint": "raises.py"}, check=False) as server:
        assert server.port


@pytest.mark.parametrize("file", ["renders.py", "vectors.py"])
def test_what_some_client_could_open_is_served(file):
    with create({"entrypoint": file}, use_thread=True) as server:
        assert server.port


def test_an_argument_that_clients_have_to_give_is_a_note_in_the_log(caplog):
    caplog.set_level("INFO")
    with create({"entrypoint": "needs.py"}, use_thread=True):
        pass
    [note] = [message for message in caplog.messages if "needs arguments of its clients" in message]
    assert "missing a required argument: 'track'" in note


def test_an_id_that_is_left_open_is_served_and_its_imports_are_tried():
    with create({}, imports=("gymnasium",)):
        pass
    for default_args in ({}, {"entrypoint_kwargs": {"id": "CartPole-v1"}}):
        with pytest.raises(ConfigError, match="cannot import 'no_such_module'"):
            create(default_args, imports=("no_such_module",), use_thread=True)


def test_imports_are_tried_where_only_clients_name_entrypoints(folder):
    with pytest.raises(ConfigError, match="cannot import 'no_such_module'"):
        create(None, client_entrypoints=folder, imports=("no_such_module",))
    with create(None, client_entrypoints=folder, imports=("gymnasium",), use_thread=True):
        pass


def test_it_is_created_once_and_closed_before_anybody_opens_it(folder):
    with create({"entrypoint": "counts.py"}) as server:
        assert (folder / "created").read_text() == (folder / "closed").read_text() == "x"
        assert server.session_count == 0
        with contextlib.closing(RemoteEnvironment("localhost", server.port)) as environment:
            environment.reset()
    assert (folder / "created").read_text() == (folder / "closed").read_text() == "xx"


def test_rules_that_let_nobody_in_are_refused(folder, certificates):
    with pytest.raises(ConfigError, match="this server knows none"):
        create({"entrypoint": "good.py"}, use_thread=True, allow=("DNS:alice",))
    with create({"entrypoint": "good.py"}, use_thread=True, allow=("*=default",)):
        pass
    files = (certificates.server, certificates.server_key, certificates.ca)
    with create({"entrypoint": "good.py"}, use_thread=True, server_credentials_paths=files, allow=("DNS:alice",)):
        pass


def test_the_command_shows_error_and_traceback():
    program = [sys.executable, "-m", "remote_gym", "serve", "--port", "0", "--entrypoint", "raises.py"]
    found = subprocess.run(program, capture_output=True, text=True, timeout=scaled(60.0))
    assert found.returncode == 1
    assert found.stdout == ""
    assert "Error: the default environment cannot be created" in found.stderr
    assert "it raised LookupError" in found.stderr
    assert "--no-check serves it all the same" in found.stderr
    assert '  |   File "' in found.stderr
    assert "\x1b" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["CartPole-v1", "--import", "no_such_module"], "cannot import 'no_such_module'"),
        (["--environment", "a=CartPole-v1", "--environment", "a=Acrobot-v1"], "is given twice for 'a'"),
        (["--environment", "a=no_such_module:Env-v0"], "environment 'a' cannot be created"),
        (["--environment", "a=no_such_file.py"], "no_such_file.py"),
        (["--environment", "a=nonsense"], "nonsense"),
        (["CartPole-v1", "--allow", "DNS:alice"], "this server knows none"),
    ],
)
def test_the_command_refuses_what_nobody_could_open(arguments, text):
    found = CliRunner().invoke(main, ["serve", "--port", "0", *arguments])
    assert found.exit_code in (1, 2)
    assert text in found.output
    assert "Listens on" not in found.output


def test_ctrl_c_ends_a_trial_that_hangs(folder):
    program = [sys.executable, "-m", "remote_gym", "serve", "--port", "0", "--entrypoint", "hangs.py"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 2)
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        output, _ = process.communicate(timeout=scaled(30.0))
        assert output.decode().splitlines()[-1] == "Stopped."
        assert not psutil.wait_procs(children, timeout=scaled(30.0))[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("url", "warns"), [("0.0.0.0", "names only this machine"), ("127.0.0.1", "")])
def test_a_certificate_that_fits_nowhere_else_is_warned_about(certificates, tmp_path, url, warns):
    files = ("--certificate", certificates.server, "--key", certificates.server_key, "--ca", certificates.ca)
    program = [sys.executable, "-m", "remote_gym", "serve", "CartPole-v1", "--no-check", "--port", "0", "--url", url]
    process = subprocess.Popen([*program, *map(str, files)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = []
        while not lines or "RemoteEnvironment(" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1]
    finally:
        process.terminate()
        process.communicate(timeout=scaled(30.0))
    warnings = [line for line in lines if line.startswith("Warning:")]
    assert len(warnings) == bool(warns)
    assert all(warns in line for line in warnings)
