"""Processes that use remote environments, and fork."""

from __future__ import annotations

import os
import sys

import pytest

from environments import ACTION
from scripts import run_script
from served import served

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SCRIPT = """
import functools, sys
import numpy as np
from gymnasium.vector import AsyncVectorEnv
from remote_gym import RemoteEnvironment
make = functools.partial(RemoteEnvironment, **{arguments!r})
beside = [make() for _ in range(2)]
for each in beside:
    each.reset()
    each.step(0)
for _ in range(2):
    vector = AsyncVectorEnv([make] * 2, context="fork", shared_memory=False)
    vector.reset(seed=1)
    for _ in range(5):
        vector.step(np.array([0, 0]))
    vector.close()
for each in beside:
    each.step(0)
    assert each._session is not None
    each.close()
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gRPC's trouble with forks is Linux's")
@pytest.mark.parametrize("connection", ["grpc", "direct"])
def test_gymnasiums_asynchronous_vector_forks_beside_environments(connection):
    """Before channels were closed for forks, each of four tries ended by an abort in gRPC."""
    with served("CartPole-v1", "--port", 0) as server:
        code = SCRIPT.format(arguments={"port": server.port, "connection": connection})
        finished = run_script(code)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "done\n"
    assert "resume" not in finished.stderr


def test_a_fork_amid_a_session_costs_it_no_step(process_server):
    environment = process_server.environment()
    environment.reset()
    counts = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        counts.append(environment.step(ACTION["step"])[0]["count"])
    assert counts == [1, 2, 3, 4]
    environment.close()


SHUTTING_DOWN = """
import os, sys
import grpc
from remote_gym import RemoteEnvironment
for _ in range(25):
    # Its end begins when it is closed, and goes on in the background.
    RemoteEnvironment(**{arguments!r}).close()
    child = os.fork()
    if child == 0:
        channel = grpc.insecure_channel("localhost:1")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gRPC's trouble with forks is Linux's")
def test_a_fork_while_grpc_ends_in_the_background_leaves_its_child_no_lock():
    """Where gRPC's threads are not waited for, some child waits for a lock that only they could release (4 of 90)."""
    with served("CartPole-v1", "--port", 0) as server:
        code = SHUTTING_DOWN.format(arguments={"port": server.port})
        finished = run_script(code)
    assert finished.stdout == "done\n", finished.stderr
