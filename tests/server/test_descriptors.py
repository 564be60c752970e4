"""A server that may hold many sessions finds descriptors for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
from remote_gym import RemoteEnvironment, create_remote_environment_server
arguments = {"entrypoint_kwargs": {"id": "CartPole-v1"}}
with create_remote_environment_server(arguments, port=0, use_thread=True, max_sessions=int(sys.argv[1])) as server:
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
    environments = [RemoteEnvironment(port=server.port, connection="grpc") for _ in range(30)]
    for environment in environments:
        environment.close()
print("done")
"""

pytest.importorskip("resource", reason="there are no such limits")


def opens_thirty(max_sessions: int) -> list[str]:
    """What a program prints that holds thirty sessions, which is more than its soft limit of 150 files allows."""
    command = [sys.executable, "-c", CODE, str(max_sessions)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    return [*done.stdout.split(), done.stderr]


def test_a_low_soft_limit_is_raised_for_as_many_sessions_as_there_may_be():
    limit, end, complaints = opens_thirty(64)
    assert end == "done", complaints
    assert int(limit) >= 64 * 8


def test_it_is_left_alone_where_it_is_enough():
    code = CODE.replace("(150,", "(4000,")
    done = subprocess.run([sys.executable, "-c", code, "64"], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["4000", "done"], done.stderr
