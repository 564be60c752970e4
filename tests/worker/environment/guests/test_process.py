"""A guest's process that does what none may: what the worker makes of it, and that every wait ends."""

from __future__ import annotations

import gc
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, LossReason, SessionLost
from remote_gym.guest import program
from remote_gym.worker.environment.guests import process as guest_process
from remote_gym.worker.environment.guests.process import MOST_BEFORE, GuestLost, GuestProcess
from waiting import scaled

PYTHON = [sys.executable, "-S", "-E"]
LIMITS = Limits(message_bytes=2**20)
BEGIN = r"""
import os, re, sys, time, signal, struct
line = b""
while not line.endswith(b"\n"):
    line += os.read(0, 1)
marker = re.search(b"[0-9a-f]{32}", line).group()
size = int(re.search(rb"read\((\d+)\)", line).group(1))
while size:
    size -= len(os.read(0, size))
def message(content):
    return struct.pack("<I", len(content)) + content
"""


def script(tmp_path: Path, code: str) -> list[str]:
    """A command that is given our program, and runs this code instead."""
    file = tmp_path / "guest.py"
    file.write_text(BEGIN + textwrap.dedent(code))
    return [*PYTHON, str(file)]


@contextmanager
def started(command: list[str], timeout: float | None = None) -> Iterator[GuestProcess]:
    process = GuestProcess(command, str(Path.cwd()), LIMITS, scaled(20) if timeout is None else timeout)
    try:
        yield process
    finally:
        process.close(0.0)


def refused(command: list[str], timeout: float | None = None) -> str:
    with pytest.raises(ConfigError) as caught, started(command, timeout):
        pass
    return str(caught.value)


def test_messages_come_after_whatever_a_shell_prints_and_in_any_pieces(tmp_path):
    command = script(
        tmp_path,
        f"""
        os.write(1, b"Welcome!\\n" * 100 + marker[:9] + b"no" + marker[:-1])
        time.sleep(0.01)
        os.write(1, b"?" + marker)
        for byte in message(b"first"):
            os.write(1, bytes([byte]))
            time.sleep(0.001)
        while os.read(0, {2**20}):
            os.write(1, message(b"x" * 100000))
        """,
    )
    with started(command) as process:
        assert bytes(process.first) == b"first"
        for _ in range(3):
            assert bytes(process.ask(b"request")) == b"x" * 100_000


@pytest.mark.parametrize("command", [["/does/not/exist"], [str(Path.cwd())]], ids=["absent", "folder"])
def test_a_command_that_cannot_be_started_is_named(command):
    assert refused(command).startswith(f"the command {command[0]!r} does not start: ")


def test_a_command_that_ends_is_refused_with_its_status_and_the_last_that_it_printed():
    text = refused(["sh", "-c", "echo a >&2; echo 'conda: no \x1b[1msim' >&2; exit 41", "python"])
    assert "ended with status 41; it printed" in text
    assert text.endswith("; it printed:\na\nconda: no \\x1b[1msim\nNo Python of 3.6 or newer ran there")


def test_a_long_command_is_shown_by_its_begin_and_its_end():
    middle = [f"--mount=/data/{number}" for number in range(100)]
    text = refused(["sh", "-c", "exit 125", *middle, "sim:3", "python3"])
    assert text.startswith("the command \"sh -c 'exit 125' --mount=/data/0 ")
    assert " … " in text
    assert ' --mount=/data/99 sim:3 python3" ended with status 125, and no Python of 3.6 or newer ran there' in text
    assert "--mount=/data/50" not in text


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ModuleNotFoundError('gone', name='numpy')", "has no NumPy"),
        ("ImportError('of another version')", r"cannot import its NumPy \(of another version\)"),
        ("AttributeError('torn')", r"cannot import its NumPy \(torn\)"),
    ],
)
def test_a_python_without_a_numpy_that_works_says_why(tmp_path, raised, said):
    (tmp_path / "numpy.py").write_text(f"raise {raised}")
    from remote_gym.worker.environment.guests.messages import Guest

    command = ["env", f"PYTHONPATH={tmp_path}", sys.executable]
    with (
        pytest.raises(ConfigError, match=rf"^Python 3\.\d+\.\d+ at .* {said}, without which"),
        started(command) as process,
    ):
        Guest(process, LIMITS)


def test_a_flood_before_the_marker_is_refused():
    text = refused(["sh", "-c", "exec cat /dev/zero", "python"])
    assert f"printed over {MOST_BEFORE:,} bytes before anything of ours ran" in text


def test_a_large_request_waits_for_one_that_reads_late_and_not_for_one_that_speaks_first(tmp_path):
    code = """
        os.write(1, marker + message(b"first"))
        time.sleep(0.1)
        {before}
        size = 1000004
        while size:
            size -= len(os.read(0, size))
        os.write(1, message(b"answer"))
        """
    with started(script(tmp_path, code.format(before=""))) as process:
        assert bytes(process.ask(bytes(1_000_000))) == b"answer"
    with started(script(tmp_path, code.format(before="os.write(1, b'early')"))) as process:
        with pytest.raises(GuestLost, match="sent something before it had read"):
            process.ask(bytes(1_000_000))


def test_a_command_that_stays_silent_is_refused_in_time():
    begin = time.monotonic()
    assert "did not answer in time" in refused(["sh", "-c", "sleep 1000", "python"], timeout=0.2)
    assert time.monotonic() - begin < scaled(10)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("struct.pack('<I', 2 ** 31) + b'x'", "sent a message of 2,147,483,648 bytes"),
        ("struct.pack('<I', 2 ** 20 + 1)", "sent a message of 1,048,577 bytes"),
        ("message(b'')", "sent a message of 0 bytes"),
        ("message(b'one') + b'more'", "sent a message of 3 bytes, or more than one"),
        ("message(b'one') + message(b'two')", "or more than one"),
    ],
    ids=["huge", "over the limit", "empty", "too long", "two"],
)
def test_what_is_no_message_ends_the_guest(tmp_path, answer, why):
    command = script(
        tmp_path,
        f"""
        os.write(1, marker + message(b"first"))
        os.read(0, 100)
        os.write(1, {answer})
        time.sleep(1000)
        """,
    )
    with started(command) as process:
        with pytest.raises(GuestLost, match=why):
            process.ask(b"request")
        assert not psutil.pid_exists(process.pid)
        with pytest.raises(GuestLost, match=why):  # from then on
            process.ask(b"request")


@pytest.mark.parametrize(
    ("end", "why", "reason"),
    [
        ("sys.exit('Segfault, but worse')", "ended with status 1", LossReason.CRASHED),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL", LossReason.KILLED),
        ("os.abort()", "was ended by SIGABRT", LossReason.CRASHED),
    ],
)
@pytest.mark.parametrize("begun", ["b''", "b'ab'", "message(b'0123456789')[:-1]", "message(bytes(500000))[:-1]"])
def test_an_end_amid_a_message_is_told_at_once_with_the_last_that_was_printed(tmp_path, end, why, reason, begun):
    command = script(
        tmp_path,
        f"""
        os.write(1, marker + message(b"first"))
        os.read(0, 100)
        os.write(2, b"last words\\n")
        data = {begun}
        while data:
            data = data[os.write(1, data):]
        {end}
        """,
    )
    with started(command) as process:
        begin = time.monotonic()
        with pytest.raises(SessionLost, match=why) as caught:
            process.ask(b"request")
        assert time.monotonic() - begin < scaled(2)
        assert caught.value.reason is reason
        assert caught.value.output.startswith("last words")


def test_a_process_that_it_leaves_does_not_hide_that_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(guest_process, "SETTLE", 0.1)
    command = script(
        tmp_path,
        """
        os.write(1, marker + message(b"first"))
        os.read(0, 100)
        if os.fork() == 0:  # which holds all that its parent had
            time.sleep(1000)
        os.write(2, str(os.getpgrp()).encode())
        sys.exit(5)
        """,
    )
    others = {*threading.enumerate()}
    process = GuestProcess(command, str(Path.cwd()), LIMITS, scaled(20))
    [passing_on] = {*threading.enumerate()} - others
    begin = time.monotonic()
    with pytest.raises(GuestLost, match="ended with status 5"):
        process.ask(b"request")
    assert time.monotonic() - begin < scaled(5)
    process.close(0.0)  # while what it has left holds the pipe open, whose end is closed later
    for left in psutil.process_iter():
        if left.pid != os.getpid() and "guest.py" in " ".join(_words(left)) and str(tmp_path) in " ".join(_words(left)):
            left.kill()
    passing_on.join(scaled(20))
    assert not passing_on.is_alive()
    del process, passing_on
    gc.collect()  # pytest fails for what is closed only by this


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_one_that_was_left_amid_an_answer_is_not_asked_again(tmp_path):
    command = script(
        tmp_path,
        """
        os.write(1, marker + message(b"first"))
        os.read(0, 100)
        time.sleep(1000)
        """,
    )

    def strike(*_: object) -> None:
        raise KeyError

    with started(command) as process:
        before = signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyError):
                process.ask(b"request")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        with pytest.raises(GuestLost, match="was left before it had answered"):
            process.ask(b"request")


def test_a_guest_ends_with_what_asks_it_and_so_does_its_group(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "GRACE", 0.3)  # of which the guest has a copy of its own
    source = tmp_path / "started.py"
    source.write_text("import time; time.sleep(1000)")
    entrypoint = tmp_path / "entry.py"
    entrypoint.write_text(
        textwrap.dedent(
            f"""
            import subprocess, sys, time
            import gymnasium

            class Environment(gymnasium.Env):
                observation_space = action_space = gymnasium.spaces.Discrete(2)

                def reset(self, **_):
                    subprocess.Popen([sys.executable, {str(source)!r}])
                    return 0, {{}}

                def step(self, action):
                    time.sleep(1000)

            def create_environment():
                return Environment()
            """
        )
    )
    environment = hosted([sys.executable], entrypoint)
    process: Any = environment._guest._process
    environment.reset()
    group = [each for each in psutil.process_iter() if _group(each) == process.pid]
    assert len(group) == 3  # the guest, what watches it, and what the environment has started
    request = program.REQUEST.pack(program.STEP, 0) + b"\x18\x02"
    os.write(process._requests, guest_process._HEAD.pack(len(request)) + request)
    process._process.stdin.close()  # as when the worker is killed
    _, alive = psutil.wait_procs(group, scaled(20))
    assert alive == []
    with pytest.raises(GuestLost):
        environment.step(0)
    environment.close()


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return 0


def hosted(command: list[str], entrypoint: Path, **kwargs: Any) -> Any:
    """An environment of an entrypoint in a guest."""
    from remote_gym.worker.environment.guests.creation import create_environment, creation_order, start_guest

    guest = start_guest(command, entrypoint.parent, LIMITS)
    order = creation_order(
        env_id=0,
        entrypoint=str(entrypoint),
        source=entrypoint.read_bytes(),
        root=entrypoint.parent,
        imports=(),
        kwargs=kwargs,
        render_mode=None,
        limits=LIMITS,
    )
    return create_environment(guest, 0, order)


def test_what_a_guest_prints_goes_to_standard_error_and_does_not_hold_it_up(tmp_path, capfd):
    entrypoint = tmp_path / "entry.py"
    entrypoint.write_text(
        textwrap.dedent(
            """
            import os
            import gymnasium

            class Environment(gymnasium.Env):
                observation_space = action_space = gymnasium.spaces.Discrete(2)

                def reset(self, **_):
                    print("printed")
                    os.write(1, b"written\\n" + b"x" * 1000000 + b"\\n")
                    try:
                        return 0, {"read": input()}
                    except EOFError:
                        return 0, {"read": None}

            def create_environment():
                return Environment()
            """
        )
    )
    environment = hosted([sys.executable], entrypoint)
    assert environment.reset() == (0, {"read": None})
    environment.close()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "printed" in captured.err
    assert captured.err.count("x") >= 1_000_000
