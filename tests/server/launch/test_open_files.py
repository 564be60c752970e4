"""A server that may hold many sessions finds descriptors for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from remote_gym.server.launch.open_files import make_room
from waiting import scaled

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
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(100))
    return [*done.stdout.split(), done.stderr]


def test_a_low_soft_limit_is_raised_for_as_many_sessions_as_there_may_be():
    limit, end, complaints = opens_thirty(64)
    assert end == "done", complaints
    assert int(limit) >= 64 * 8


def test_it_is_left_alone_where_it_is_enough():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    make_room(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_more_than_the_hard_limit_is_not_to_be_had_and_is_told(monkeypatch, caplog):
    import resource

    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    with caplog.at_level("INFO", "remote_gym"):
        make_room(1000)
    assert asked == [(4096, 4096)]
    assert "max_sessions is 1000, and the 4096 files" in caplog.text
