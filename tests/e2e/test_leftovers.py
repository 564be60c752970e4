"""However a session ends, nothing that its environment started goes on, wherever it has hidden."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import descendants, family, is_alive, is_relay
from remote_gym import RemoteEnvironment, SessionLost
from remote_gym.ipc import leftovers
from remote_gym.testing import LoopbackServer
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only process groups are ended")

SERVER = """
import sys
from pathlib import Path
from remote_gym import create_remote_environment_server
server = create_remote_environment_server({"entrypoint": "leaving_environment.py"}, "localhost", 0, close_timeout=2.0)
Path(sys.argv[1]).write_text(f"{server.port}\\n")
server.wait_for_termination()
"""


@pytest.fixture
def server(servers) -> Iterator[LoopbackServer]:
    with servers.lend({"entrypoint": "leaving_environment.py"}, close_timeout=2.0, lease=scaled(1.0)) as lent:
        yield lent


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], int]]]:
    """Starts servers in processes of their own; returns each and its port."""
    started = []

    def start(*prefix: str) -> tuple[subprocess.Popen[bytes], int]:
        told = tmp_path / "port"
        process = subprocess.Popen([*prefix, sys.executable, "-c", SERVER, str(told)])
        started.append(process)
        wait_until(lambda: told.exists() and told.read_text().endswith("\n"))
        return process, int(told.read_text())

    yield start
    for process in started:
        process.kill()
        process.wait()


def all_of(info: dict[str, Any]) -> set[int]:
    """What an environment has started, and what that has, while all of it runs."""
    found = set(info["pids"]).union(*map(descendants, info["pids"]))
    assert len(found) == 7
    assert all(map(is_alive, found))
    return found


def wait_until_gone(pids: set[int], info: dict[str, Any]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)))
    wait_until(lambda: not Path("/dev/shm", info["shared"]).exists())


def end_by_close(environment: RemoteEnvironment) -> None:
    environment.close()


def end_by_its_lease(environment: RemoteEnvironment) -> None:
    environment.detach()


def end_by_a_crash(environment: RemoteEnvironment) -> None:
    with pytest.raises(SessionLost):
        environment.step(1)


@pytest.mark.parametrize("end", [end_by_close, end_by_its_lease, end_by_a_crash])
def test_what_a_session_started_ends_with_it_and_that_of_others_goes_on(server, end):
    environment, other = server.environment(), server.environment()
    started, others = (all_of(one.reset()[1]) for one in (environment, other))
    _, info = environment.reset()
    end(environment)
    wait_until_gone(started, info)
    assert all(map(is_alive, others))
    other.step(0)
    _, info = other.reset()
    other.close()
    wait_until_gone(others, info)


def test_a_server_that_stops_leaves_nothing(server):
    environment = server.environment()
    _, info = environment.reset()
    started = all_of(info)
    server.server.stop(0.0).wait(scaled(30.0))
    assert not any(map(is_alive, started))
    assert not Path("/dev/shm", info["shared"]).exists()


@pytest.mark.parametrize("who", ["server", "forkserver"])
def test_a_server_or_forkserver_that_is_killed_leaves_nothing(who, serve):
    process, port = serve()
    environment = RemoteEnvironment("localhost", port, connect_timeout=scaled(5.0))
    _, info = environment.reset()
    started = all_of(info)
    [forkserver] = [pid for pid in family(process.pid) if parent(pid) == process.pid]
    if who == "server":
        process.kill()
    else:
        os.kill(forkserver, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, started)))
    if who == "server":
        wait_until(lambda: not is_alive(forkserver))
    environment.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_child_of_the_forkserver_that_an_environment_makes_harms_nobody(server):
    environment = server.environment()
    environment.reset()
    quick, slow = environment.call("clone_sibling", 0.0), environment.call("clone_sibling", 600.0)
    forkserver = server.server._launcher._newest[None, ()].process.pid
    assert parent(slow) == forkserver
    wait_until(lambda: not Path(f"/proc/{quick}").exists())  # reaped
    environment.step(0)
    other = server.environment()
    other.reset()
    environment.close()
    wait_until(lambda: not is_alive(slow))
    other.step(0)
    assert server.server._launcher._newest[None, ()].process.pid == forkserver


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs to make a namespace of processes")
@pytest.mark.parametrize("proc", [["--mount-proc"], []])
def test_as_process_1_of_a_container_a_server_has_no_zombies(serve, proc):
    process, port = serve("unshare", "--pid", "--fork", "--kill-child", *proc)
    for _ in range(3):
        environment = RemoteEnvironment("localhost", port)
        environment.reset()
        environment.close()
    [server] = children(process.pid)
    wait_until(lambda: len(children(server)) == 1)  # the forkserver
    assert state(*children(server)) != "Z"
    if proc:
        wait_until(lambda: not children(*children(server)))


def children(pid: int) -> list[int]:
    return sorted(child for child in leftovers._children(pid) if not is_relay(child))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_server_that_was_started_with_signals_blocked_notices_the_ends_of_its_workers(serve):
    blocking = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM]);"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process, port = serve(sys.executable, "-c", blocking)
    environment = RemoteEnvironment("localhost", port)
    _, info = environment.reset()
    started = all_of(info) | {info["pid"]}
    environment.close()
    wait_until_gone(started, info)
    assert process.poll() is None


def test_marks_of_different_forkservers_differ():
    assert len({leftovers.new_prefix() for _ in range(100)}) == 100
