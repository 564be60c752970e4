from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_gym.testing import LoopbackServer
from sharing import SharedServers
from waiting import scaled

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}
ENVIRONMENTS = Path(__file__).parents[1] / "environments.py"


@pytest.fixture(scope="module", autouse=True)
def _at_the_root() -> Iterator[None]:
    # Where a server looks for an entrypoint.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ENVIRONMENTS.parent)
        yield


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory, _at_the_root: None) -> Iterator[Path]:
    """A folder of the module's, for entrypoints that it writes; the working directory of its tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("entrypoints"))
        yield folder


@pytest.fixture
def obedient() -> dict[str, Any]:
    """Arguments for a server of `environments.Obedient`."""
    return {"entrypoint": "environments.py"}


@pytest.fixture(params=["process", "thread"])
def use_thread(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "thread")


@pytest.fixture(params=["process-direct", "process-grpc", "thread-direct", "thread-grpc"])
def server(
    servers: SharedServers, obedient: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[LoopbackServer]:
    """A server over mutual TLS, with its environments in processes, then in threads, by either connection."""
    kind, connection = request.param.split("-")
    with servers.lend(obedient, use_thread=kind == "thread") as lent:
        lent.client_arguments["connection"] = connection
        yield lent


@pytest.fixture(params=["direct", "grpc"])
def process_server(
    servers: SharedServers, obedient: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[LoopbackServer]:
    with servers.lend(obedient, use_thread=False) as lent:
        lent.client_arguments["connection"] = request.param
        yield lent


@pytest.fixture
def serve_apart() -> Iterator[Callable[..., tuple[int, Callable[[], None]]]]:
    """Starts servers of CartPole as processes; gives the port of each, and what kills it."""
    started: list[subprocess.Popen[str]] = []

    def start(**options: Any) -> tuple[int, Callable[[], None]]:
        script = (
            "from remote_gym import create_remote_environment_server\n"
            f"server = create_remote_environment_server({CARTPOLE!r}, 'localhost', 0, **{options!r})\n"
            "print(server.port, flush=True)\n"
            "server.wait_for_termination()\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None

        def kill() -> None:
            process.kill()
            process.wait(scaled(10.0))

        return int(process.stdout.readline()), kill

    yield start
    for process in started:
        process.kill()
        with process:  # closes its pipe
            process.wait(scaled(10.0))
