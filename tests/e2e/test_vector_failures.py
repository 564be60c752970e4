"""What becomes of a vector environment when part of it fails, and how it is picked up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import SyncVectorEnv

from breaking import break_connection
from remote_gym import (
    ConfigError,
    DeadlineExceeded,
    RemoteEnvironmentError,
    RemoteVectorEnv,
    ServerFull,
    SessionLost,
    create_remote_environment_server,
)
from remote_gym.testing import LoopbackServer, find_difference, loopback_server
from remote_gym.wire.autoreset import AutoresetMode
from sharing import SharedServers
from vector_entrypoint import Telling
from waiting import scaled, wait_until

TESTS = Path(__file__).parents[1]
RAISE, EXIT, DISAGREE = 1, 2, 3
Make = Callable[..., RemoteVectorEnv]


@pytest.fixture
def server(servers: SharedServers) -> Iterator[LoopbackServer]:
    with servers.lend({"entrypoint": "vector_entrypoint.py"}, max_sessions=3) as lent:
        yield lent


@pytest.fixture(params=["direct", "grpc"])
def make(request: pytest.FixtureRequest, server: LoopbackServer) -> Make:
    def make(num_envs: int, **arguments: Any) -> RemoteVectorEnv:
        kwargs = arguments.pop("kwargs", {})
        arguments = {"connection": request.param, "remote_args": {"entrypoint_kwargs": kwargs}, **arguments}
        return server.vector_environment(num_envs, **arguments)

    return make


def acting(num_envs: int, **actions: int) -> Any:
    """No action but those given, as ``at_3=RAISE``."""
    found = np.zeros(num_envs, np.int64)
    for name, action in actions.items():
        found[int(name.removeprefix("at_"))] = action
    return found


def mask_of(num_envs: int, indices: tuple[int, ...]) -> Any:
    return np.isin(np.arange(num_envs), indices)


@pytest.mark.parametrize(("deed", "error"), [(RAISE, RemoteEnvironmentError), (EXIT, SessionLost)])
@pytest.mark.parametrize("whole", [False, True])
def test_a_failure_names_its_environments_the_others_have_stepped_and_a_reset_brings_it_back(deed, error, whole, make):
    remote = make(6, workers=3)
    observations, _ = remote.reset(seed=1)
    pids = remote.call("pid")
    with pytest.raises(error, match="environments 2 to 3") as raised:
        remote.step(acting(6, at_3=deed))
    assert raised.value.environments == (2, 3)
    with pytest.raises(ResetNeeded, match="environments 2 to 3"):
        remote.step(acting(6))
    with pytest.raises(ResetNeeded, match="environments 2 to 3"):
        remote.reset(options={"reset_mask": mask_of(6, (3,))})
    if whole:
        remote.reset(seed=1)
    else:
        after, _ = remote.reset(seed=1, options={"reset_mask": mask_of(6, raised.value.environments)})
        np.testing.assert_array_equal(after["place"][2:4], observations["place"][2:4])
        for index in (0, 1, 4, 5):  # they have stepped, and were not reset
            assert (after["place"][index] != observations["place"][index]).any()
    assert remote.step(acting(6))[1].shape == (6,)
    same = [old == new for old, new in zip(pids, remote.call("pid"), strict=True)]
    assert same == [True, True, deed == RAISE, deed == RAISE, True, True]


def test_a_remote_error_tells_what_the_environment_raised(make):
    remote = make(4, workers=2)
    remote.reset()
    with pytest.raises(RemoteEnvironmentError, match="lost its way") as raised:
        remote.step(acting(4, at_0=RAISE))
    assert raised.value.remote_type == "builtins.LookupError"
    assert "in _raise" in raised.value.remote_traceback


def test_every_worker_that_failed_is_named(make):
    remote = make(6, workers=3)
    remote.reset()
    with pytest.raises(RemoteEnvironmentError, match=r"0 to 1: .*; environments 4 to 5: SessionLost") as raised:
        remote.step(acting(6, at_1=RAISE, at_4=EXIT))
    assert raised.value.environments == (0, 1, 4, 5)


def test_infos_that_cannot_be_merged_are_an_error_and_nothing_worse(make):
    remote = make(2, workers=2)
    remote.reset(seed=2)  # by which no episode ends at the first step, whose info would then be another's
    with pytest.raises(TypeError, match="dict"):
        remote.step(acting(2, at_1=DISAGREE))
    remote.step(acting(2))


def test_what_others_returned_is_received_after_a_failure(make):
    remote = make(4, workers=2)
    remote.reset()
    remote.send(acting(4, at_2=RAISE))
    with pytest.raises(RemoteEnvironmentError) as raised:
        remote.recv(min_envs=4)
    assert raised.value.environments == (2, 3)
    assert remote.recv()[4]["env_id"].tolist() == [0, 1]
    remote.reset(options={"reset_mask": mask_of(4, (2, 3))})
    remote.step(acting(4))


def test_connections_that_broke_are_made_again_and_every_step_runs_once(make):
    remote = make(4, workers=2)
    env_ids = remote.reset()[0]["id"].tolist()
    local = SyncVectorEnv([lambda env_id=env_id: Telling(env_id) for env_id in env_ids])
    assert find_difference(local.reset(seed=2), remote.reset(seed=2)) is None
    for number in range(6):
        if number % 2:
            break_connection(remote._shards[number // 2 % 2].session)
        assert find_difference(local.step(acting(4)), remote.step(acting(4))) is None
    remote.step_async(acting(4))
    break_connection(remote._shards[1].session)
    assert find_difference(local.step(acting(4)), remote.step_wait()) is None


def test_one_that_does_not_answer_in_time_is_named_and_can_be_reset_later(make, tmp_path):
    gate = tmp_path / "gate"
    remote = make(2, workers=2, kwargs={"gate": str(gate)}, step_timeout=scaled(0.5), connection="grpc")
    remote.reset()
    with pytest.raises(DeadlineExceeded, match=r"environment 1: .*\d s"):
        remote.step(np.array([0, 1]))
    gate.touch()
    observations, _ = remote.reset(options={"reset_mask": mask_of(2, (1,))})
    assert observations.tolist() == [1, 0]
    assert remote.step(np.array([0, 0]))[0].tolist() == [2, 2]  # the late step ran, once


def test_one_that_never_answers_is_left_for_a_new_one_by_a_reset(make, tmp_path):
    arguments = {"on_session_lost": "raise" if AutoresetMode is None else "truncate"}
    gate = str(tmp_path / "never")
    remote = make(2, workers=2, kwargs={"gate": gate}, step_timeout=scaled(0.5), close_timeout=scaled(0.2), **arguments)
    remote.reset()
    with pytest.raises(DeadlineExceeded, match="environment 1: "):
        remote.step(np.array([0, 1]))
    observations, _ = remote.reset(options={"reset_mask": mask_of(2, (1,))})
    assert observations.tolist() == [1, 0]
    assert remote.step(np.array([0, 0]))[0].tolist() == [2, 1]


def test_what_cannot_be_opened_is_named_and_nothing_stays_open(make, server):
    with pytest.raises(RemoteEnvironmentError, match=r"environments \d to \d: no environment 3"):
        make(4, workers=2, kwargs={"fails_at": 3})
    with pytest.raises(ServerFull, match=r"^environment \d"):
        make(4, workers=4)
    wait_until(lambda: server.server.session_count == 0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_session_that_cannot_be_opened_again_can_be_tried_again(make, server):
    remote = make(2, workers=1)
    remote.reset()
    with pytest.raises(SessionLost):
        remote.step(acting(2, at_0=EXIT))
    others = [make(1) for _ in range(3)]
    with pytest.raises(ServerFull):
        remote.reset()
    others[0].close()
    wait_until(lambda: server.server.session_count == 2)
    remote.reset()
    remote.step(acting(2))


def test_a_server_that_was_restarted_is_picked_up_again(monkeypatch):
    monkeypatch.chdir(TESTS)
    arguments = {"entrypoint": "vector_entrypoint.py"}
    with loopback_server(arguments, secure=False, use_thread=True) as first:
        port = first.server.port
        remote = RemoteVectorEnv(
            port=port, num_envs=4, workers=2, connect_timeout=scaled(2.0), reconnect_timeout=scaled(2.0)
        )
        remote.reset()
    with pytest.raises(Exception, match=r"environments 0 to 1: .*; environments 2 to 3: ") as raised:
        remote.step(acting(4))
    assert raised.value.environments == (0, 1, 2, 3)
    with create_remote_environment_server(arguments, "localhost", port, use_thread=True):
        before = time.monotonic()
        remote.reset()
        remote.step(acting(4))
        assert time.monotonic() - before < scaled(25.0)
        remote.close()


@pytest.fixture
def own_server(servers: SharedServers) -> Iterator[LoopbackServer]:
    with servers.lend({"entrypoint": "own_vector_entrypoint.py"}) as lent:
        yield lent


def test_an_entrypoints_own_vector_environment_is_used(own_server):
    remote = own_server.vector_environment(5, workers=2, autoreset_mode="SameStep")
    assert getattr(remote.metadata["autoreset_mode"], "value", "SameStep") == "SameStep"
    highest = remote.observation_space.high[:, 0].tolist()
    assert sorted(highest) == [1, 2, 3, 4, 5]
    _, infos = remote.reset(seed=10)
    assert infos["seed"].tolist() == [10, 10, 12, 12, 12]
    assert set(infos) == {"seed", "first"}
    observations, rewards, *_, infos = remote.step(np.array([0, 1, 2, 1, 0]))
    assert observations.tolist() == [[0, 0], [1, 1], [2, 2], [1, 1], [0, 0]]
    assert rewards.dtype == np.float32
    assert infos["odd"].tolist() == [0, 1, 0, 1, 0]
    assert remote.call("totals") == (0, 1, 2, 1, 0)
    with pytest.raises(TypeError, match="not a value for each"):
        remote.call("speed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"remote_args": {"entrypoint_kwargs": {"returned": 3}}}, "returned 3 environments; 4 were asked for"),
        ({"remote_args": {"entrypoint_kwargs": {"unknown": 3}}}, "create_vector_environment.*unknown"),
    ],
)
def test_an_entrypoints_vector_environment_has_to_be_what_was_asked_for(arguments, message, own_server):
    with pytest.raises(ConfigError, match=message):
        own_server.vector_environment(4, **arguments)


def test_an_entrypoint_for_vectors_alone_says_so_to_others(own_server):
    with pytest.raises(ConfigError, match="create_environment"):
        own_server.environment()


@pytest.mark.skipif(AutoresetMode is not None, reason="this Gymnasium has every mode")
def test_a_mode_that_the_servers_gymnasium_does_not_have_is_refused(make):
    with pytest.raises(ConfigError, match=r"needs gymnasium 1\.1"):
        make(2, autoreset_mode="Disabled")
