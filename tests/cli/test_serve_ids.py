"""A server whose clients choose an id tells them and its owner which, in a form that can be copied."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from remote_gym import RemoteEnvironment, create_remote_environment_server
from remote_gym.cli import main
from remote_gym.errors import ConfigError
from waiting import scaled

OURS = "import gymnasium\ngymnasium.register('Ours-v3', 'gymnasium.envs.classic_control:CartPoleEnv')\n"


def refusal(*arguments):
    """What a server says that does not start."""
    ended = CliRunner().invoke(main, ["serve", "--port", "0", *arguments])
    assert ended.exit_code == 1
    assert "Listens on" not in ended.output
    return ended.output


@contextlib.contextmanager
def greeting(*arguments, cwd=None):
    """What a server prints that starts."""
    command = [sys.executable, "-m", "remote_gym", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed = ""
            while "RemoteEnvironment(" not in printed:
                line = process.stdout.readline()
                assert line, printed
                printed += line
            yield printed
        finally:
            process.kill()


def test_the_greeting_of_ids_is_what_connects():
    with greeting("--ids", "Pendulum*", "--ids", "Cart*") as printed:
        assert "Serves: ids that match Pendulum*, Cart*\n" in printed
        lines = [line.strip() for line in printed.splitlines() if line.startswith("    ")]
        assert 'remote_args="Pendulum-v1"' in lines[-1]
        script = "\n".join([*lines, "environment.reset(seed=1)", "print(environment.spec.id)", "environment.close()"])
        command = [sys.executable, "-c", script]
        used = subprocess.run(command, check=True, timeout=scaled(60), capture_output=True, text=True)
        assert used.stdout == "Pendulum-v1\n"


def test_the_greeting_names_an_id_that_an_import_registers(tmp_path):
    (tmp_path / "ours.py").write_text(OURS)
    with greeting("--ids", "Ours-*", "--import", "ours", cwd=tmp_path) as printed:
        assert 'remote_args="Ours-v3"' in printed


@pytest.mark.parametrize(
    ("patterns", "wrong", "right"),
    [(["Zork*"], "Zork*", "by --import"), (["CartPole-v1", "Acrobot"], "Acrobot", "'Acrobot-v1'")],
)
def test_a_pattern_that_nothing_matches_is_refused_at_start(patterns, wrong, right):
    said = refusal(*(part for pattern in patterns for part in ("--ids", pattern)))
    assert f"holds {wrong!r}, which no registered environment matches" in said
    assert right in said


def test_a_pattern_is_looked_at_after_the_imports():
    said = refusal("--ids", "Theirs-*", "--import", "gymnasium.envs")
    assert "'Theirs-*', which no registered environment matches" in said


def test_a_client_without_an_id_is_told_what_works_on_the_command_line_and_in_a_script():
    patterns = ("Cart*", "Acro*")
    with create_remote_environment_server({"entrypoint_kwargs": {}}, port=0, ids=patterns, use_thread=True) as server:
        with pytest.raises(ConfigError, match=r"no id is named.*'Cart\*' or 'Acro\*'.*or Acrobot-v1") as caught:
            RemoteEnvironment("localhost", server.port)
        advice = re.search(r"remote_args=(\{[^}]*\})", str(caught.value))[1]
        RemoteEnvironment("localhost", server.port, eval(advice)).close()
        for command in ("doctor", "play"):
            called = [sys.executable, "-m", "remote_gym", command, f"localhost:{server.port}"]
            ended = subprocess.run(called, capture_output=True, text=True, timeout=scaled(60), check=False)
            assert """--kwargs '{"id": "CartPole-v1"}'""" in ended.stdout + ended.stderr
