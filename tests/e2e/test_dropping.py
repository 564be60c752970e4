"""Environments that nobody closes: dropped, copied, or left when a script ends."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import textwrap
import weakref
from typing import Any

import pytest
from gymnasium.error import ResetNeeded

from environments import ACTION
from remote_gym import ConfigError, RemoteEnvironment, RemoteVectorEnv, SessionLost
from remote_gym.testing import LoopbackServer
from served import served
from waiting import scaled, wait_until


def open_one(server: LoopbackServer) -> RemoteEnvironment:
    return RemoteEnvironment(**server._arguments({}))  # the server's own would keep a reference


def is_empty(server: LoopbackServer) -> bool:
    return not server.server.sessions()


def test_a_dropped_environment_gives_its_place_back_at_once(process_server):
    environment = open_one(process_server)
    environment.reset()
    environment.step(ACTION["step"])
    assert not is_empty(process_server)
    del environment
    wait_until(lambda: is_empty(process_server))  # its lease is a minute


def test_a_dropped_vector_environment_gives_its_places_back_at_once(process_server):
    environment = RemoteVectorEnv(**process_server._arguments({}), num_envs=4, workers=2)
    environment.reset()
    assert len(process_server.server.sessions()) == 2
    del environment
    wait_until(lambda: is_empty(process_server))


def test_one_that_is_dropped_in_a_cycle_is_closed_with_it(process_server):
    environment = open_one(process_server)
    environment.metadata["me"] = environment
    del environment
    gc.collect()
    wait_until(lambda: is_empty(process_server))


@pytest.mark.parametrize("kind", ["single", "vector"])
def test_one_that_is_dropped_after_its_session_was_lost_is_freed(process_server, kind):
    def lose() -> list[weakref.ref[object]]:
        arguments = process_server._arguments({})
        environment: Any
        if kind == "single":
            environment, action = RemoteEnvironment(**arguments), ACTION["exit"]
        else:
            environment, action = RemoteVectorEnv(**arguments, num_envs=2, workers=2), [ACTION["exit"]] * 2
        environment.reset()
        with pytest.raises(SessionLost):
            environment.step(action)
        with pytest.raises((SessionLost, ResetNeeded)):
            environment.step(action)
        sessions = [environment._session] if kind == "single" else [each.session for each in environment._shards]
        return [weakref.ref(environment), *map(weakref.ref, sessions)]

    references = lose()

    def are_freed() -> bool:
        gc.collect()
        return all(reference() is None for reference in references)

    wait_until(are_freed)


@pytest.mark.parametrize("ends", ["dropped", "closed"])
def test_one_that_another_goes_on_with_ends_nothing(process_server, ends):
    """Nor does it where it was never asked since, and so has not heard of it."""
    arguments = process_server._arguments({})
    environment = RemoteEnvironment(**arguments)
    environment.reset()
    environment.step(ACTION["step"])
    dropped = [weakref.ref(environment._session)]
    before, environment = environment, RemoteEnvironment(**arguments, resume=environment.ticket)
    if ends == "closed":
        before.close()
    del before
    gc.collect()
    assert dropped[0]() is None
    # What was dropped is closed by one thread, in the order of the dropping: when this one is, so was the other.
    last = open_one(process_server)
    assert len(process_server.server.sessions()) == 2
    del last
    wait_until(lambda: len(process_server.server.sessions()) == 1)
    assert environment.step(ACTION["step"])[0]["count"] == 2
    environment.close()
    wait_until(lambda: is_empty(process_server))


def test_a_vector_environment_that_another_goes_on_with_ends_nothing(process_server):
    arguments = process_server._arguments({})
    environment = RemoteVectorEnv(**arguments, num_envs=2, workers=2)
    environment.reset()
    environment = RemoteVectorEnv(**arguments, num_envs=2, workers=2, resume=environment.tickets)
    gc.collect()
    last = open_one(process_server)
    del last
    wait_until(lambda: len(process_server.server.sessions()) == 2)
    assert list(environment.step([ACTION["step"]] * 2)[0]["count"]) == [1, 1]
    environment.close()


def test_one_whose_ticket_could_not_be_used_is_still_closed(process_server):
    """Whoever asked for it, and never attached, has not got it."""
    environment = open_one(process_server)
    environment.reset()
    with pytest.raises(ConfigError):
        RemoteEnvironment(**process_server._arguments({}), resume=environment.ticket, render_mode="ansi")
    del environment
    gc.collect()
    wait_until(lambda: is_empty(process_server))


@pytest.mark.parametrize("kind", ["single", "vector"])
def test_a_copy_has_an_environment_of_its_own(process_server, kind):
    if kind == "single":
        environment = process_server.environment()
        taken = lambda env, action: env.step(action)[0]["count"]  # noqa: E731
    else:
        environment = RemoteVectorEnv(**process_server._arguments({}), num_envs=1)
        taken = lambda env, action: env.step([action])[0]["count"][0]  # noqa: E731
    environment.reset()
    assert taken(environment, ACTION["step"]) == 1
    copied = copy.copy(environment)
    copied.reset()
    assert [taken(copied, ACTION["step"]) for _ in range(3)] == [1, 2, 3]
    assert taken(environment, ACTION["step"]) == 2
    copied.close()
    assert taken(environment, ACTION["step"]) == 3
    environment.close()


SCRIPT = """
import os, signal, sys
from remote_gym import RemoteEnvironment, RemoteVectorEnv
arguments = {arguments!r}
kept = [RemoteEnvironment(**arguments), RemoteVectorEnv(**arguments, num_envs=2, workers=2)]
kept[0].reset()
dropped = RemoteEnvironment(**arguments)
del dropped
server = {server}
if server:
    os.kill(server, signal.SIGKILL)
"""


def run(server: int | None, **arguments: object) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(SCRIPT).format(arguments=arguments, server=server)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=scaled(60.0), check=False
    )


def arguments_of(server: LoopbackServer) -> dict[str, object]:
    paths = server.client_credentials_paths
    return server._arguments({"client_credentials_paths": paths and tuple(map(str, paths))})


def test_a_script_that_ends_leaves_nothing_open_and_says_nothing(process_server):
    finished = run(None, **arguments_of(process_server))
    assert (finished.returncode, finished.stderr) == (0, "")
    wait_until(lambda: is_empty(process_server))


def test_a_script_that_outlives_its_server_ends_quietly():
    with served("CartPole-v1", "--port", 0) as server:
        finished = run(server.process.pid, url="localhost", port=server.port)
        assert (finished.returncode, finished.stderr) == (0, "")


CHILD = """
import multiprocessing
from remote_gym import RemoteEnvironment
kept = []
def work(is_kept):
    environment = RemoteEnvironment(**{arguments!r})
    environment.reset()
    if is_kept:
        kept.append(environment)
if __name__ == "__main__":
    for is_kept in (True, False):
        child = multiprocessing.get_context("fork").Process(target=work, args=(is_kept,))
        child.start()
        child.join()
        print(child.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_of_multiprocessing_that_end_leave_nothing_open(process_server):
    """Python calls no exit handlers there."""
    code = CHILD.format(arguments=arguments_of(process_server))
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=scaled(60.0), check=False
    )
    assert (finished.stdout, finished.stderr) == ("0\n0\n", "")
    wait_until(lambda: is_empty(process_server))  # its lease is a minute
