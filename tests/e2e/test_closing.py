"""Environments can be closed, left and interrupted at any time."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from environments import ACTION
from remote_gym import DeadlineExceeded, RemoteEnvironment, SessionError
from remote_gym.testing import LoopbackServer
from waiting import scaled, wait_until


@pytest.fixture(params=["direct", "grpc"])
def process_server(servers, obedient, request) -> Iterator[LoopbackServer]:
    """One that is quick to kill what hangs."""
    with servers.lend(obedient, close_timeout=scaled(0.3)) as lent:
        lent.client_arguments["connection"] = request.param
        yield lent


@pytest.fixture
def log(tmp_path) -> Path:
    """What environments have been asked, where they are told to note it."""
    return tmp_path / "log"


def noting(log: Path) -> dict[str, dict[str, str]]:
    return {"entrypoint_kwargs": {"log": str(log)}}


@contextmanager
def signalled_in_a_step(log: Path, handler) -> Iterator[None]:
    """A signal arrives at this thread during the block, as it would from the outside, once an environment steps."""

    def watch() -> None:
        wait_until(lambda: "\nstep " in log.read_text())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handler)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join(scaled(60.0))
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["direct", "grpc"])
def patient_environment(servers, obedient, log, request) -> Iterator[RemoteEnvironment]:
    """Its server does not kill what hangs, so nothing but the client's own doing ends a step."""
    with servers.lend(obedient, close_timeout=600.0) as server:
        arguments = {"connection": request.param, "close_timeout": 1.0, "remote_args": noting(log)}
        environment = server.environment(**arguments)
        _, info = environment.reset()
        try:
            yield environment
        finally:
            os.kill(info["pid"], signal.SIGKILL)


def test_close_in_a_signal_handler_ends_a_hung_step_within_seconds(patient_environment, log):
    before = time.monotonic()
    with signalled_in_a_step(log, lambda *_: patient_environment.close()), pytest.raises(SessionError):
        patient_environment.step(ACTION["hang"])
    assert time.monotonic() - before < scaled(20.0)


def test_close_in_another_thread_ends_a_hung_step_within_seconds(patient_environment, log):
    raised: list[BaseException] = []
    threads = [threading.Thread(target=step_and_note, args=(patient_environment, raised)) for _ in range(3)]
    for thread in threads:  # one of which hangs, and the others wait for their turn
        thread.start()
    wait_until(lambda: "\nstep " in log.read_text())
    before = time.monotonic()
    patient_environment.close()
    for thread in threads:
        thread.join(scaled(30.0))
    assert time.monotonic() - before < scaled(20.0)
    assert [isinstance(error, SessionError) for error in raised] == [True] * 3, raised


def test_close_during_a_hung_step_frees_the_place(process_server, log):
    environment = process_server.environment(remote_args=noting(log))
    environment.reset()
    with signalled_in_a_step(log, lambda *_: environment.close()), pytest.raises(SessionError):
        environment.step(ACTION["hang"])
    assert process_server.server.session_count == 0


def step_and_note(environment: RemoteEnvironment, raised: list[BaseException]) -> None:
    try:
        environment.step(ACTION["hang"])
    except BaseException as error:  # noqa: BLE001
        raised.append(error)


def test_after_an_interrupted_step_the_next_waits_for_it_and_numbers_stay_in_sequence(server, log):
    environment = server.environment(remote_args=noting(log))
    environment.reset()

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    with signalled_in_a_step(log, interrupt), pytest.raises(KeyboardInterrupt):
        environment.step(ACTION["wait_for_release"])
    assert environment._session.is_behind
    log.with_suffix(".release").touch()
    for count in (2, 3):
        assert environment.step(ACTION["step"])[0]["count"] == count
    observation, _ = environment.reset()
    assert observation["count"] == 0


def test_reset_leaves_an_environment_that_hangs_for_a_new_one(process_server):
    environment = process_server.environment(step_timeout=scaled(0.3), close_timeout=scaled(1.0))
    _, info = environment.reset()
    with pytest.raises(DeadlineExceeded):
        environment.step(ACTION["hang"])
    before = time.monotonic()
    _, new = environment.reset()
    assert time.monotonic() - before < scaled(20.0)
    assert new["pid"] != info["pid"]
    assert environment.step(ACTION["step"])[0]["count"] == 1


def test_reset_waits_for_an_environment_that_is_merely_slow(process_server, log):
    environment = process_server.environment(
        step_timeout=scaled(0.3), close_timeout=scaled(60.0), remote_args=noting(log)
    )
    _, info = environment.reset()
    with pytest.raises(DeadlineExceeded):
        environment.step(ACTION["wait_for_release"])
    release = threading.Timer(0.5, log.with_suffix(".release").touch)
    release.start()
    assert environment.reset()[1]["pid"] == info["pid"]
    release.join()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_dropped_environments_leave_no_thread_behind(servers, obedient, connection):
    with servers.lend(obedient) as server:
        arguments = (server.server.url, server.server.port, None, server.client_credentials_paths)
        play_and_drop(arguments, connection)
        before = set(threading.enumerate())
        for _ in range(5):
            play_and_drop(arguments, connection)
        gc.collect()
        wait_until(lambda: set(threading.enumerate()) <= before)


def play_and_drop(arguments, connection: str) -> None:
    environment = RemoteEnvironment(*arguments, connection=connection)
    environment.reset()
    environment.step(ACTION["step"])


TRAINER = """
import os, signal, sys
from remote_gym import RemoteEnvironment
arguments = {{"entrypoint_kwargs": {{"log": sys.argv[3]}}}}
environment = RemoteEnvironment("localhost", int(sys.argv[1]), arguments, connection=sys.argv[2])
environment.reset()
print("ready", flush=True)
{}
"""
ENDS = {
    "by its end": "",
    "by an exception": "raise RuntimeError('oops')",
    "by Ctrl-C": "while True: environment.step(0)",
    "by Ctrl-C in a hung step": f"environment.step({ACTION['hang']})",
}


@pytest.mark.parametrize("connection", ["direct", "grpc"])
@pytest.mark.parametrize("how", ENDS)
def test_a_script_that_ends_without_closing_frees_its_place_at_once(servers, obedient, how, connection, log):
    with servers.lend(obedient, secure=False, close_timeout=scaled(0.5)) as server:
        script = textwrap.dedent(TRAINER).format(ENDS[how])
        command = [sys.executable, "-c", script, str(server.server.port), connection, str(log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                if "Ctrl-C" in how:
                    wait_until(lambda: "\nstep " in log.read_text())
                    os.kill(process.pid, signal.SIGINT)
                process.communicate(timeout=scaled(30.0))
            finally:
                process.kill()
        wait_until(lambda: server.server.session_count == 0)  # long before its lease is over


LAST_LINE = """
import sys
from remote_gym import RemoteEnvironment, create_remote_environment_server

server = create_remote_environment_server(
    "CartPole-v1", port=0, use_thread={threads}, policy=sys.argv[1], allow_insecure=True, check=False
)
environment = RemoteEnvironment(port=server.port)
environment.reset()
server.stop(grace={grace})
"""


@pytest.mark.parametrize("threads", [False, True], ids=["processes", "threads"])
@pytest.mark.parametrize("grace", [0.0, 1.5], ids=["at_once", "amid_a_drain"])
def test_stopping_a_server_may_be_the_last_line_of_a_script(threads, grace, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[allow."*"]\n')
    called = [sys.executable, "-c", LAST_LINE.format(threads=threads, grace=grace), policy]
    ended = subprocess.run(called, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
