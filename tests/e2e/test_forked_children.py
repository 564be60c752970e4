"""A child that an environment forks ends as it would have at home, and never speaks for its parent."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_gym import RemoteEnvironment
from served import served

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

ENTRYPOINT = Path(__file__).resolve().parents[1] / "forking_environment.py"
STATUS = {"return": 0, "raise": 1, "exit": 3, "multiprocessing": 0}
STEPS = 5
WHERE = ("__init__", "reset", "step", "render", "call", "close")


def play(environment: RemoteEnvironment) -> list[int]:
    """Use everything that an environment has; returns who has answered."""
    pids = [environment.reset()[1]["pid"]]
    for count in range(1, STEPS + 1):
        observation, *_, info = environment.step(1)
        assert observation == count
        pids.append(info["pid"])
    pids += [environment.step(1)[4]["pid"] for _ in range(STEPS)]
    environment.render()
    environment.call("call")
    return pids


@pytest.mark.parametrize("connection", ["direct", "grpc"])
@pytest.mark.parametrize("how", STATUS)
def test_a_childs_end_is_its_own(how, connection, servers, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="remote_gym")
    with servers.lend({"entrypoint": "forking_environment.py"}) as server:
        for where in WHERE:
            log = tmp_path / where
            environment = open_at(server.environment, where, how, log, connection=connection)
            [worker] = {*play(environment)}
            if where != "close":
                ended = environment.ended
                assert ended
                assert {*ended} == {STATUS[how]}
            environment.close()
            lines = log.read_text().splitlines()
            # Of children, who are never the ones to close: they have not created it.
            assert [line for line in lines if line.startswith("closed")] == [f"closed in {worker}"]
            if how != "multiprocessing":  # which has its children skip exit handlers
                children = {int(line.split()[1]) for line in lines if line.startswith("child ")}
                expected = {f"exit handler of {worker} in {pid}" for pid in {worker, *children}}
                assert {line for line in lines if line.startswith("exit handler")} == expected
    assert ("RuntimeError: raised in the child" in caplog.text) == (how == "raise")


@pytest.mark.parametrize("connection", ["direct", "grpc"])
@pytest.mark.parametrize("how", STATUS)
def test_in_a_thread_of_the_server_it_ends_too_and_does_not_speak(how, connection, tmp_path):
    log = tmp_path / "server.log"
    # In a process of its own, where gRPC does not prepare itself for forks: see the docs on reliability.
    with served("--entrypoint", ENTRYPOINT, "--thread", "--port", 0, log=log) as server:
        for where in ("__init__", "step"):
            environment = open_at(
                RemoteEnvironment, where, how, tmp_path / where, port=server.port, connection=connection
            )
            assert {*play(environment)} == {server.process.pid}
            assert {*environment.ended} == {STATUS[how]}
            environment.close()
            lines = (tmp_path / where).read_text().splitlines()
            assert [line for line in lines if line.startswith(("closed", "exit"))] == [
                f"closed in {server.process.pid}"
            ]
    assert how == "raise" or "RuntimeError" not in log.read_text()


def test_children_of_a_vector_environment_leave_it_to_their_parent(servers, tmp_path):
    log = tmp_path / "log"
    arguments = {"entrypoint_kwargs": {"where": "__init__", "how": "raise", "log": str(log)}}
    with servers.lend({"entrypoint": "forking_environment.py"}) as server:
        environment = server.vector_environment(3, remote_args=arguments)
        environment.reset()
        observations, *_ = environment.step([0, 0, 0])
        assert observations.tolist() == [1, 1, 1]
        environment.close()
    lines = log.read_text().splitlines()
    assert len([line for line in lines if line.startswith("closed")]) == 3
    assert len([line for line in lines if line.startswith("child ")]) == 3


def open_at(make: Any, where: str, how: str, log: Path, **options: Any) -> RemoteEnvironment:
    arguments = {"entrypoint_kwargs": {"where": where, "how": how, "log": str(log)}}
    environment = make(remote_args=arguments, render_mode="rgb_array", frames="on_demand", **options)
    assert isinstance(environment, RemoteEnvironment)
    return environment
