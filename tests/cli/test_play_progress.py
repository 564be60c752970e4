"""``remote-gym play`` shows what happens while it happens."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from remote_gym import create_remote_environment_server
from remote_gym.cli.commands import play as play_command
from waiting import scaled, wait_until

SLOW = """
import gymnasium, pathlib, time
def create_environment(seconds=0.0):
    if seconds:
        pathlib.Path('opening').touch()
        time.sleep(seconds)
    return gymnasium.make('CartPole-v1')
"""
AGENT = """
import time
calls = []
def act(observation):
    calls.append(observation)
    if len(calls) == 40:
        time.sleep(600)  # in the second episode or later
    time.sleep(0.02)
    return 0
"""


@pytest.fixture
def port(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "agent.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    with create_remote_environment_server({"entrypoint": "slow.py"}, port=0, check=False) as server:
        yield server.port


def command(port, *arguments):
    return [sys.executable, "-m", "remote_gym", "play", f"localhost:{port}", *arguments]


def read(descriptor: int, deadline: float) -> bytes:
    """What is printed next; nothing once the other end is closed."""
    assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], "nothing is printed"
    try:
        return os.read(descriptor, 65536)
    except OSError as error:
        if error.errno != errno.EIO:  # so Linux says that nobody has a terminal's other end
            raise
        return b""


def read_until(descriptor: int, pattern: bytes, seconds: float = 60.0) -> bytes:
    """What is printed until the pattern is found in it."""
    printed, deadline = b"", time.monotonic() + scaled(seconds)
    while not re.search(pattern, printed):
        part = read(descriptor, deadline)
        assert part, printed
        printed += part
    return printed


def read_rest(descriptor: int, seconds: float = 60.0) -> bytes:
    """What is printed until the other end is closed."""
    printed, deadline = b"", time.monotonic() + scaled(seconds)
    while part := read(descriptor, deadline):
        printed += part
    return printed


def shown(printed: bytes) -> list[str]:
    """What a terminal shows of it in the end, whose lines are overwritten after each carriage return."""
    lines = []
    for line in printed.decode().split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return lines


def test_results_are_printed_as_episodes_end(port):
    process = subprocess.Popen(command(port, "--policy", "agent:act"), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        printed = read_until(process.stdout.fileno(), rb"Episode 1: return \d+ in \d+ steps\n")
        assert process.poll() is None
        assert b"\r" not in printed
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudoterminals")
def test_steps_are_shown_on_a_terminal_as_they_come(port):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(port, "--policy", "agent:act"), stdout=theirs)
    try:
        os.close(theirs)
        printed = read_until(ours, rb"Episode 2 of 10: step \d+, return \d+ so far")
        assert re.search(rb"\rEpisode 1 of 10: step [1-9]\d*, return \d+ so far", printed)
        [result] = re.findall(rb"\r *\r(Episode 1: return \d+ in \d+ steps)\r\n", printed)
        assert result
        process.send_signal(signal.SIGINT)
        printed += read_rest(ours)  # whether it came amid an episode, or between two, when no steps are shown
        *lines, last = [line for line in shown(printed) if line]
        assert re.fullmatch(r"Interrupted after [1-9] of 10 episodes\.", last)
        assert not [line for line in lines if "so far" in line]
        assert process.wait(scaled(60)) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_steps_that_ctrl_c_interrupts_as_they_are_shown_are_taken_away(monkeypatch, capsys):
    def interrupted(text, **_):
        monkeypatch.undo()
        print(text, end="")
        raise KeyboardInterrupt

    display = play_command.Display(10)
    display._is_live = True
    monkeypatch.setattr(play_command.click, "echo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        display.show(None)
    display.clear()
    printed = capsys.readouterr().out
    assert "so far" in printed
    assert shown(printed.encode()) == [""]


def test_ctrl_c_while_it_opens_is_an_interruption(port, tmp_path):
    process = subprocess.Popen(
        command(port, "--kwargs", '{"seconds": 30}'), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until((tmp_path / "opening").exists)
        process.send_signal(signal.SIGINT)
        printed, log = process.communicate(timeout=scaled(60))
    finally:
        process.kill()
        process.wait()
    assert printed == "Interrupted after 0 of 10 episodes.\n"
    assert process.returncode == 130
    assert "Aborted" not in log
    assert "Traceback" not in log
