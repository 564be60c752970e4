"""Infos, observations and rewards of any kind arrive as what they are, or as the nearest to it and a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assorted import Assorted
from remote_gym import InvalidObservation, Record, RemoteEnvironment, remote_type
from remote_gym.testing import find_difference, loopback_server, play_in_lockstep

ENTRYPOINT: dict[str, Any] = {"entrypoint": "assorted.py"}


@pytest.fixture(scope="module")
def open_remote() -> Iterator[Callable[..., RemoteEnvironment]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        with loopback_server(ENTRYPOINT, use_thread=True) as server:
            yield lambda **kwargs: server.environment(remote_args={"entrypoint_kwargs": kwargs})


@pytest.fixture
def remote(open_remote: Callable[..., RemoteEnvironment]) -> RemoteEnvironment:
    return open_remote()


def test_values_of_every_kind_play_in_lockstep_with_local_ones(remote):
    play_in_lockstep(Assorted(), remote, steps=200, seed=3)


def test_instances_of_the_users_classes_can_be_read_and_named(remote):
    _, info = remote.reset(seed=1)
    run, stop, level, pose, cell = info["named"]
    assert (run.name, run.value, stop.value) == ("RUN", "run", ("stop", 2))
    assert (level, level.name) == (1, "LOW")
    assert pose.y == pose[1] == [1]
    assert isinstance(cell, Record)
    assert cell.items == {"key"}
    names = ["Phase", "Phase", "Level", "Pose", "Cell"]
    assert [remote_type(each) for each in info["named"]] == [f"assorted.{name}" for name in names]


@pytest.mark.parametrize(("wanted", "info"), [("none", None), ("list", [1, 2])])
def test_an_info_of_a_reset_that_is_no_dict_arrives_as_it_is(remote, wanted, info):
    local = Assorted().reset(seed=4, options={"info": wanted})
    assert find_difference(local, remote.reset(seed=4, options={"info": wanted})) is None
    assert local[1] == info


def test_an_episode_that_ends_by_an_observation_of_none_keeps_reward_and_flags(remote):
    local = Assorted()
    local.reset(seed=5)
    remote.reset(seed=5)
    expected: Any = (0,)
    while expected[0] is not None:
        expected, found = local.step(1), remote.step(1)
        assert find_difference(expected, found) is None
    assert found[2] is True
    # The same in one round trip, up to that end.
    local.reset(seed=2)
    remote.reset(seed=2)
    many = remote.step_many([1] * 100)
    assert all(find_difference(local.step(1), each) is None for each in many)


def test_none_in_the_midst_of_an_episode_is_refused(open_remote):
    environment = open_remote(kind="Nothing")
    environment.reset()
    with pytest.raises(InvalidObservation, match="NoneType"):
        environment.step(1)


def test_a_reset_without_an_info_is_named_as_what_it_is(remote):
    with pytest.raises(InvalidObservation, match=r"reset\(\) returned .*Gym before 0\.26"):
        remote.reset(options={"info": "old"})
    remote.reset()


def test_a_step_of_four_values_is_named_as_what_it_is(open_remote):
    environment = open_remote(kind="OldSteps")
    environment.reset()
    with pytest.raises(InvalidObservation, match=r"4 values.*done.*Gym before 0\.26"):
        environment.step(1)


def test_options_of_every_kind_reach_the_environment(server):
    environment = server.environment()
    options = {"set": {1}, "time": Assorted().reset(seed=1)[1]["times"][0], "record": Record("a.B", {"x": 1})}
    _, info = environment.reset(options=options)
    assert find_difference(options, info["options"]) is None
