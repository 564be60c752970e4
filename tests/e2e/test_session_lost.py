"""What a client makes of an environment that is gone: with on_session_lost="truncate", an episode that ends."""

from __future__ import annotations

import os
import pickle
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

from environments import ACTION
from remote_gym import ConnectionLost, DeadlineExceeded, RemoteEnvironment, SessionLost
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.testing import LoopbackServer, find_difference, loopback_server
from waiting import scaled

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def environment(process_server: LoopbackServer) -> RemoteEnvironment:
    return process_server.environment(on_session_lost="truncate")


def end_session(environment: RemoteEnvironment) -> None:
    """End it at the server, behind its client's back."""
    session = environment._session
    assert session is not None
    other = GrpcConnection(*session._connection._where, environment._options)
    other.close_session(session.id, session._session.token, 10.0, anyones=True)
    other.close()


def test_the_episode_ends_by_the_last_observation_and_reset_gets_a_new_environment(environment):
    _, info = environment.reset(seed=1)
    observation, *_ = environment.step(ACTION["step"])
    expected = pickle.loads(pickle.dumps(observation))
    observation["position"][:] = 9.0  # the caller's to write to
    found, reward, terminated, truncated, marked = environment.step(ACTION["exit"])
    assert find_difference(expected, found) is None
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert set(marked) == {"remote_gym"}
    assert "ended with status 7" in marked["remote_gym"]["session_lost"]
    with pytest.raises(SessionLost, match="reset opens"):
        environment.step(ACTION["step"])
    observation, after = environment.reset(seed=1)
    assert after["pid"] != info["pid"]
    assert observation["count"] == 0
    assert environment.step(ACTION["step"])[0]["count"] == 1


def test_a_reset_that_finds_it_lost_gets_a_new_one_and_tells(environment):
    _, info = environment.reset()
    end_session(environment)
    observation, after = environment.reset()
    assert re.search("closed it|has ended it", after.pop("remote_gym")["session_lost"])
    assert after["pid"] != info["pid"]
    assert environment.step(ACTION["step"])[0]["count"] == observation["count"] + 1
    assert "remote_gym" not in environment.reset()[1]


def test_a_reset_that_still_waits_for_an_answer_and_finds_it_lost_gets_a_new_one_too(process_server):
    environment = process_server.environment(on_session_lost="truncate", step_timeout=0.1)
    _, info = environment.reset()
    with pytest.raises(DeadlineExceeded):
        environment.step(ACTION["hang"])
    os.kill(info["pid"], signal.SIGKILL)
    observation, after = environment.reset()
    assert "SIGKILL" in after["remote_gym"]["session_lost"]
    assert observation["count"] == 0


def test_a_reset_that_loses_two_in_a_row_raises_and_so_does_a_call(environment):
    environment.reset()
    with pytest.raises(SessionLost):
        environment.reset(options={"do": "exit"})
    environment.reset()
    end_session(environment)
    with pytest.raises(SessionLost, match="closed it"):
        environment.call("difficulty")
    assert "closed it" in environment.step(ACTION["step"])[4]["remote_gym"]["session_lost"]


def test_other_errors_are_raised_as_ever(environment):
    environment.reset()
    with pytest.raises(Exception, match="a key"):
        environment.step(ACTION["raise"])
    assert environment.step(ACTION["step"])[0]["count"] == 2


def test_steps_of_a_chunk_are_lost_with_its_answer(environment):
    environment.reset()
    environment.step(ACTION["step"])
    actions = [ACTION[name] for name in ("step", "step", "exit", "step")]
    [(observation, reward, terminated, truncated, info)] = environment.step_many(actions)
    assert observation["count"] == 1
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["remote_gym"]["session_lost"]


def test_wrappers_take_it_for_the_end_of_an_episode_like_any_other(environment):
    wrapped = RecordEpisodeStatistics(TimeLimit(environment, max_episode_steps=3))
    wrapped.reset()
    for name in ("step", "exit"):
        *_, truncated, info = wrapped.step(ACTION[name])
    assert truncated
    assert (info["episode"]["l"], info["episode"]["r"]) == (2, 1.0)
    wrapped.reset()
    flags = [wrapped.step(ACTION["step"])[3] for _ in range(3)]
    assert flags == [False, False, True]


@pytest.mark.parametrize("frames", ["auto", "step", "on_demand"])
def test_the_last_frame_remains_until_the_next_reset(frames, process_server):
    environment = process_server.environment(render_mode="rgb_array", frames=frames, on_session_lost="truncate")
    environment.reset()
    environment.step(ACTION["step"])
    frame = environment.render()
    assert environment.step(ACTION["exit"])[3]
    np.testing.assert_array_equal(environment.render(), frame)
    environment.reset()
    assert environment.render().shape == (4, 6, 3)


def test_a_large_observation_is_returned_once_more(monkeypatch):
    monkeypatch.chdir(PEERS)
    arguments = {"entrypoint": "workloads.py", "entrypoint_kwargs": {"workload": "vga"}}
    with loopback_server(arguments, use_thread=True) as server:
        environment = server.environment(on_session_lost="truncate")
        environment.reset()
        observation, *_ = environment.step(0)
        expected = observation.copy()
        observation[:] = 0
        end_session(environment)
        found, *_, truncated, _ = environment.step(0)
        assert truncated
        np.testing.assert_array_equal(found, expected)
        found[:] = 1


def test_a_server_that_is_gone_for_good_ends_the_episode_too(killable: Any, connection: str) -> None:
    port, kill = killable
    environments = [
        RemoteEnvironment(
            port=port,
            connect_timeout=scaled(1.5),
            reconnect_timeout=scaled(1.5),
            connection=connection,
            on_session_lost=choice,
        )
        for choice in ("raise", "truncate")
    ]
    for environment in environments:
        environment.reset()
    kill()
    # A worker that is still there has time to tell of the end.
    reasons = r"could not be made again|has ended it, or stopped"
    with pytest.raises((SessionLost, ConnectionLost), match=reasons) as raised:
        environments[0].step(0)
    assert connection == "direct" or isinstance(raised.value, ConnectionLost)
    *_, truncated, info = environments[1].step(0)
    assert truncated
    assert re.search(reasons, info["remote_gym"]["session_lost"])
    for environment in environments:
        environment.close()


@pytest.fixture(params=["direct", "grpc"])
def connection(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def killable(serve_apart: Any) -> Iterator[Any]:
    return serve_apart()
