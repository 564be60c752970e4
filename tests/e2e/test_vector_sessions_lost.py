"""With on_session_lost="truncate" a lost worker ends the episodes of its environments, and the others step on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import SyncVectorEnv

from remote_gym import ConfigError, RemoteVectorEnv, ServerFull
from remote_gym.testing import LoopbackServer
from remote_gym.wire.autoreset import AutoresetMode
from sharing import SharedServers
from vector_entrypoint import Telling
from waiting import wait_until

TESTS = Path(__file__).parents[1]
RAISE, EXIT = 1, 2
LOST, OTHERS = slice(2, 4), [0, 1, 4, 5]
Make = Callable[..., RemoteVectorEnv]
pytestmark = pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium has had autoreset modes since 1.1")


@pytest.fixture
def server(servers: SharedServers) -> Iterator[LoopbackServer]:
    with servers.lend({"entrypoint": "vector_entrypoint.py"}, max_sessions=3) as lent:
        yield lent


@pytest.fixture(params=["direct", "grpc"])
def make(request: pytest.FixtureRequest, server: LoopbackServer) -> Make:
    def make(num_envs: int = 6, workers: int = 3, **arguments: Any) -> RemoteVectorEnv:
        arguments = {"connection": request.param, "on_session_lost": "truncate", **arguments}
        return server.vector_environment(num_envs, workers=workers, **arguments)

    return make


def acting(num_envs: int = 6, **actions: int) -> Any:
    found = np.zeros(num_envs, np.int64)
    for name, action in actions.items():
        found[int(name.removeprefix("at_"))] = action
    return found


def twin(remote: RemoteVectorEnv) -> SyncVectorEnv:
    """The same environments here, of which none is ever lost."""
    env_ids = remote.reset()[0]["id"].tolist()
    return SyncVectorEnv([lambda env_id=env_id: Telling(env_id) for env_id in env_ids])


def assert_others_stepped(expected: Any, found: Any) -> None:
    for name in ("id", "on", "place"):
        np.testing.assert_array_equal(found[0][name][OTHERS], expected[0][name][OTHERS])
    for one, other in zip(expected[1:4], found[1:4], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(other[OTHERS], one[OTHERS])


def test_its_environments_are_truncated_once_and_begin_anew_by_the_next_step(make):
    remote = make()
    local = twin(remote)
    local.reset(seed=1)
    remote.reset(seed=1)
    before = remote.step(acting())
    local.step(acting())
    pids = remote.call("pid")

    expected, found = local.step(acting()), remote.step(acting(at_3=EXIT))
    assert_others_stepped(expected, found)
    observations, rewards, terminations, truncations, infos = found
    np.testing.assert_array_equal(observations["place"][LOST], before[0]["place"][LOST])
    assert rewards[LOST].tolist() == [0.0, 0.0]
    assert terminations[LOST].tolist() == [False, False]
    assert truncations[LOST].tolist() == [True, True]
    marker = infos["remote_gym"]["session_lost"]
    assert infos["_remote_gym"].tolist() == [False, False, True, True, False, False]
    assert [text is None for text in marker] == [True, True, False, False, True, True]
    assert "ended with status 7" in marker[2]

    expected, found = local.step(acting()), remote.step(acting(at_3=RAISE))  # an action that is ignored
    assert_others_stepped(expected, found)
    assert [row[LOST].tolist() for row in found[1:4]] == [[0.0, 0.0], [False, False], [False, False]]
    assert "remote_gym" not in found[4]
    assert found[4]["int"][LOST].tolist() == [0, 0]  # what a reset tells
    same = [old == new for old, new in zip(pids, remote.call("pid"), strict=True)]
    assert same == [True, True, False, False, True, True]

    expected, found = local.step(acting()), remote.step(acting())
    assert_others_stepped(expected, found)
    assert found[4]["int"][LOST].tolist() == [1, 1]


def test_it_may_be_lost_before_its_first_step_and_reset_by_hand(make):
    remote = make()
    first, _ = remote.reset(seed=1)
    observations, *_, truncations, _ = remote.step(acting(at_2=EXIT))
    np.testing.assert_array_equal(observations["place"][LOST], first["place"][LOST])
    assert truncations[LOST].all()
    remote.reset()
    assert not remote.step(acting())[4].get("_remote_gym", np.zeros(1)).any()


def test_where_resets_are_the_clients_the_next_step_says_that_one_is_needed(make):
    remote = make(autoreset_mode="Disabled")
    remote.reset(seed=1)
    *_, terminations, truncations, infos = remote.step(acting(at_3=EXIT))
    assert truncations[LOST].all()
    assert infos["remote_gym"]["session_lost"][3]
    with pytest.raises(ResetNeeded, match="environments 2 to 3"):
        remote.step(acting())
    remote.reset(options={"reset_mask": terminations | truncations})
    assert remote.step(acting())[1].shape == (6,)


def test_a_mode_that_cannot_tell_of_it_in_time_is_refused(make, server):
    with pytest.raises(ConfigError, match=r"autoreset mode .*SameStep.*use 'NextStep' or 'Disabled'"):
        make(autoreset_mode="SameStep")
    wait_until(lambda: server.server.session_count == 0)


def test_one_that_cannot_be_opened_again_raises_until_it_can(make, server):
    remote = make()
    remote.reset(seed=1)
    assert remote.step(acting(at_3=EXIT))[3][LOST].all()
    wait_until(lambda: server.server.session_count == 2)
    other = server.environment(remote_args={"entrypoint_kwargs": {}})
    with pytest.raises(ServerFull, match="environments 2 to 3") as raised:
        remote.step(acting())
    assert raised.value.environments == (2, 3)
    other.close()
    wait_until(lambda: server.server._service.load().open == 2)
    assert remote.step(acting())[4]["int"][LOST].tolist() == [0, 0]


def test_errors_of_an_environment_are_raised_as_ever(make):
    remote = make()
    remote.reset(seed=1)
    with pytest.raises(Exception, match="lost its way"):
        remote.step(acting(at_3=RAISE))
    with pytest.raises(ResetNeeded):
        remote.step(acting())


def test_those_that_are_received_apart_are_truncated_too(make):
    remote = make()
    remote.reset(seed=1)
    remote.send(acting(at_2=EXIT))
    seen: dict[int, bool] = {}
    while len(seen) < 6:
        *_, truncations, infos = remote.recv()
        marked = infos.get("_remote_gym", np.zeros(len(truncations), np.bool_))
        seen |= dict(zip(infos["env_id"].tolist(), (truncations & marked).tolist(), strict=True))
    assert [seen[index] for index in range(6)] == [False, False, True, True, False, False]
    remote.send(acting(2), [2, 3])
    _, rewards, *_, infos = remote.recv()
    assert infos["env_id"].tolist() == [2, 3]
    assert rewards.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("frames", ["step", "on_demand"])
def test_frames_of_what_is_lost_remain_and_wrappers_count_its_episode(frames, make):
    remote = make(render_mode="rgb_array", frames=frames)
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(remote)
    wrapped.reset(seed=1)
    wrapped.step(acting())
    shown = wrapped.render()
    *_, infos = wrapped.step(acting(at_3=EXIT))
    assert infos["_episode"][LOST].all()
    assert infos["episode"]["l"][LOST].tolist() == [2, 2]
    after = wrapped.render()
    for index in (2, 3):
        np.testing.assert_array_equal(after[index], shown[index])
    assert (after[0] != shown[0]).any()


def test_a_reset_that_finds_a_worker_lost_gets_a_new_one_and_tells(make, server):
    remote = make()
    remote.reset(seed=1)
    pids = remote.call("pid")
    os.kill(pids[2], signal.SIGKILL)
    observations, infos = remote.reset(seed=1)
    np.testing.assert_array_equal(infos["_remote_gym"], [False, False, True, True, False, False])
    assert "SIGKILL" in infos["remote_gym"]["session_lost"][2]
    assert observations["on"].tolist() == remote.reset(seed=1)[0]["on"].tolist()
    assert (np.array(remote.call("pid")) != pids).tolist() == [False, False, True, True, False, False]
    remote.step(acting())


def test_a_reset_finds_one_lost_that_has_raised_before_or_was_never_reset(make):
    for was_reset in (False, True):
        remote = make()
        pids = remote.call("pid")
        if was_reset:
            remote.reset()
            with pytest.raises(Exception, match="lost its way"):
                remote.step(acting(at_2=RAISE))
        os.kill(pids[2], signal.SIGKILL)
        _, infos = remote.reset()
        assert "SIGKILL" in infos["remote_gym"]["session_lost"][2]
        remote.step(acting())
        remote.close()
