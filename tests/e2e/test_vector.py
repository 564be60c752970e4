"""A remote vector environment does what Gymnasium's own does, wherever its environments are."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError, ResetNeeded
from gymnasium.vector import SyncVectorEnv

from environments import make_spaces
from remote_gym import ConfigError, InvalidAction, RemoteVectorEnv, SessionLost
from remote_gym.testing import LoopbackServer, find_difference, loopback_server
from remote_gym.wire.autoreset import AutoresetMode
from sharing import SharedServers
from vector_entrypoint import Sampling, Telling
from waiting import wait_until

TESTS = Path(__file__).parents[1]
needs_modes = pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium has had autoreset modes since 1.1")
Make = Callable[..., RemoteVectorEnv]


@pytest.fixture
def server(servers: SharedServers) -> Iterator[LoopbackServer]:
    """Serves `vector_entrypoint`, over mutual TLS."""
    with servers.lend({"entrypoint": "vector_entrypoint.py"}) as lent:
        yield lent


@pytest.fixture(params=["direct", "grpc"])
def connection(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(server: LoopbackServer, connection: str) -> Make:
    """Makes vector environments of that server, whose keyword arguments may be given as `kwargs`."""

    def make(num_envs: int, **arguments: Any) -> RemoteVectorEnv:
        kwargs = arguments.pop("kwargs", {})
        arguments = {"connection": connection, "remote_args": {"entrypoint_kwargs": kwargs}, **arguments}
        return server.vector_environment(num_envs, **arguments)

    return make


def local_twin(remote: RemoteVectorEnv, **arguments: Any) -> SyncVectorEnv:
    """The same here; who of the workers, which open at the same time, got which env_ids is not said."""
    env_ids = remote.reset()[0]["id"].tolist()
    return SyncVectorEnv([lambda env_id=env_id: Telling(env_id) for env_id in env_ids], **arguments)


def play(local: Any, remote: Any, steps: int, choose: Callable[[], Any] | None = None) -> None:
    """Step both alike, and compare all that they return."""

    def compare(what: str, expected: Any, found: Any) -> None:
        difference = find_difference(expected, found, what)
        assert difference is None, difference

    local.action_space.seed(5)
    mode = getattr(local.metadata.get("autoreset_mode"), "name", None)
    compare("reset()", local.reset(seed=5), remote.reset(seed=5))
    for number in range(steps):
        action = choose() if choose else local.action_space.sample()
        expected = local.step(action)
        compare(f"step {number}", expected, remote.step(action))
        ended = expected[2] | expected[3]
        if mode == "DISABLED" and ended.any():
            expected, found = (each.reset(options={"reset_mask": ended.copy()}) for each in (local, remote))
            compare(f"reset after step {number}", expected, found)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("id_", ["CartPole-v1", "FrozenLake-v1"])
def test_registered_environments_step_as_locally(id_, workers, connection, servers):
    if id_ == "FrozenLake-v1" and workers > 1 and gym.__version__.startswith("0."):
        pytest.skip("Gymnasium 0.29 casts what other workers' first environment decided")
    local = SyncVectorEnv([lambda: gym.make(id_)] * 5)
    with servers.lend(id_) as server:
        remote = server.vector_environment(5, workers=workers, connection=connection)
        assert remote.num_envs == 5
        for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
            assert getattr(remote, name) == getattr(local, name)
        play(local, remote, steps=60)
    local.close()


@needs_modes
@pytest.mark.parametrize("workers", [1, 3])  # of three, two have two environments each, and one has one
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_every_autoreset_mode_and_every_kind_of_info_is_as_locally(mode, workers, make):
    remote = make(5, workers=workers, autoreset_mode=AutoresetMode(mode))
    local = local_twin(remote, autoreset_mode=mode)
    assert remote.metadata == local.metadata
    play(local, remote, steps=40, choose=lambda: np.zeros(5, np.int64))
    assert len(set(remote.call("pid"))) == workers


@pytest.mark.parametrize("name", make_spaces())
def test_elements_of_every_space_arrive_as_locally(name, servers):
    local = SyncVectorEnv([lambda: Sampling(name)] * 4)
    local.reset()
    if name == "mixed" and AutoresetMode is None:
        pytest.skip("the order of a Text space's usual characters was not the same in two processes then")
    try:
        local.step(local.action_space.sample())
    except (
        ValueError,
        TypeError,
        gym.error.Error,
    ) as error:  # what Gymnasium itself cannot step together, such as an empty Tuple
        pytest.skip(f"Gymnasium: {error!r}")
    # Values travel from threads in the same way, and those need not be forked.
    with servers.lend({"entrypoint": "vector_entrypoint.py"}, use_thread=True) as server:
        for workers in (1, 3):
            remote = server.vector_environment(4, workers=workers, remote_args={"entrypoint_kwargs": {"space": name}})
            assert remote.observation_space == local.observation_space
            play(local, remote, steps=5)
            remote.close()


def test_workers_share_environments_evenly_and_each_has_an_env_id_of_its_own(make):
    remote = make(7, workers=3)
    observations, _ = remote.reset()
    pids = remote.call("pid")
    sizes = sorted(pids.count(pid) for pid in set(pids))
    assert sizes == [2, 2, 3]
    assert sorted(observations["id"]) == list(range(7))


def test_two_servers_hold_half_each(monkeypatch):
    monkeypatch.chdir(TESTS)
    arguments = {"entrypoint": "vector_entrypoint.py"}
    options = {"secure": False, "use_thread": True}
    with loopback_server(arguments, **options) as one, loopback_server(arguments, **options) as other:
        places = [("localhost", one.server.port), f"localhost:{other.server.port}"]
        remote = RemoteVectorEnv(num_envs=6, addresses=places, workers=4)
        assert [each.server.session_count for each in (one, other)] == [2, 2]
        assert [sorted(part) for part in np.split(remote.reset()[0]["id"], 2)] == [[0, 1, 2], [0, 1, 2]]
        remote.close()


def test_servers_of_different_environments_are_refused():
    options = {"secure": False, "use_thread": True}
    with loopback_server("CartPole-v1", **options) as one, loopback_server("Acrobot-v1", **options) as other:
        places = [("localhost", each.server.port) for each in (one, other)]
        with pytest.raises(ConfigError, match="environments 2 to 3 have other spaces"):
            RemoteVectorEnv(num_envs=4, addresses=places)
        wait_until(lambda: one.server.session_count + other.server.session_count == 0)


@needs_modes
def test_what_is_observed_can_be_written_to_and_shares_no_memory(make):
    remote = make(4, workers=2)
    first, _ = remote.reset(seed=1)
    kept = first["place"].copy()
    first["place"][:] = 9
    mask = np.array([True, False, False, False])
    second, _ = remote.reset(seed=1, options={"reset_mask": mask})
    np.testing.assert_array_equal(second["place"], kept)
    assert not np.shares_memory(first["place"], second["place"])


@needs_modes
def test_a_mask_resets_some_with_their_own_seeds_and_passes_options_on(make):
    remote = make(5, workers=3)
    local = local_twin(remote)
    no_action = np.zeros(5, np.int64)
    play(local, remote, steps=3, choose=lambda: no_action)
    for mask in ([1, 0, 0, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1]):
        options = {"reset_mask": np.array(mask, np.bool_), "depth": 3}
        expected = local.reset(seed=[5, 6, 7, 8, 9], options=dict(options))
        assert find_difference(expected, remote.reset(seed=[5, 6, 7, 8, 9], options=options)) is None
        assert find_difference(local.step(no_action), remote.step(no_action)) is None
        assert options.keys() == {"reset_mask", "depth"}


def test_masks_and_seeds_that_fit_no_environment_are_refused(make):
    remote = make(2)
    remote.reset()
    for mask, error in (
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.array([False, False]), ValueError),
    ):
        with pytest.raises(error, match="reset_mask"):
            remote.reset(options={"reset_mask": mask})
        with pytest.raises(ValueError, match="3 seeds"):
            remote.reset(seed=[1, 2, 3])


def test_steps_are_sent_before_any_answer_is_awaited(make, tmp_path):
    gate = tmp_path / "gate"
    remote = make(2, workers=2, kwargs={"gate": str(gate)})
    remote.reset()
    remote.step_async(np.array([1, 0]))
    with pytest.raises(AlreadyPendingCallError):
        remote.step_async(np.array([0, 0]))
    with pytest.raises(AlreadyPendingCallError):
        remote.reset()
    gate.touch()
    observations, rewards, *_ = remote.step_wait()
    assert observations.tolist() == [1, 1]
    assert sorted(rewards) == [0.0, 1.0]
    with pytest.raises(NoAsyncCallError):
        remote.step_wait()


def test_recv_returns_whoever_is_first_and_send_goes_on_with_them(server, tmp_path):
    gate = tmp_path / "gate"
    remote = server.vector_environment(4, workers=2, remote_args={"entrypoint_kwargs": {"gate": str(gate)}})
    with pytest.raises(NoAsyncCallError):
        remote.recv()
    remote.reset()
    remote.send(np.array([0, 1, 0, 0]))
    for count in (1, 2, 3):
        observations, rewards, terminations, truncations, infos = remote.recv(min_envs=1)
        assert infos["env_id"].tolist() == [2, 3]
        assert observations.tolist() == [count, count]
        assert rewards.shape == (2,)
        assert terminations.shape == truncations.shape == (2,)
        remote.send(np.array([0, 0]), infos["env_id"])
    for ids, error in (([2, 3], AlreadyPendingCallError), ([0], ValueError), ([], ValueError), ([0, 2], ValueError)):
        with pytest.raises(error):
            remote.send(np.zeros(len(ids), np.int64), ids)
    gate.touch()
    assert remote.recv(min_envs=4)[4]["env_id"].tolist() == [0, 1, 2, 3]
    with pytest.raises(NoAsyncCallError):
        remote.recv()
    assert remote.step(np.zeros(4, np.int64))[0].tolist() == [2, 2, 5, 5]
    remote.close()


def test_actions_are_converted_or_refused_before_anything_is_sent(make):
    remote = make(3, workers=2)
    remote.reset()
    with pytest.raises(InvalidAction):
        remote.step(np.zeros(4, np.int64))
    with pytest.raises(InvalidAction):
        remote.step(np.zeros(3, np.float32))
    remote.step([0, 0, 0])
    remote.step(np.zeros(3, np.int8))


def test_a_step_needs_a_reset_first(make):
    remote = make(2, workers=2)
    with pytest.raises(ResetNeeded, match="environment 0, environment 1"):
        remote.step(np.zeros(2, np.int64))
    with pytest.raises(ResetNeeded, match="environment 1"):
        remote.reset(options={"reset_mask": np.array([True, False])})


def test_exposed_names_are_called_read_and_set_in_each_environment(make):
    remote = make(3, workers=2)
    assert remote.get_attr("level") == (1, 1, 1)
    remote.set_attr("level", [1, 2, 3])
    assert remote.call("describe", "level ", suffix="!") == ("level 1!", "level 2!", "level 3!")
    remote.set_attr("level", 7)
    assert remote.get_attr("level") == (7, 7, 7)
    with pytest.raises(AttributeError, match="not exposed"):
        remote.call("env_id")
    with pytest.raises(AttributeError, match="not exposed"):
        remote.set_attr("env_id", 3)
    with pytest.raises(AttributeError, match="method"):
        remote.set_attr("describe", 3)
    with pytest.raises(ValueError, match="2 values"):
        remote.set_attr("level", [1, 2])


@needs_modes
@pytest.mark.parametrize("frames", ["step", "on_demand"])
def test_frames_come_as_a_tuple(frames, make):
    remote = make(3, workers=2, render_mode="rgb_array", frames=frames)
    assert remote.render() is None
    remote.reset()
    remote.step(np.zeros(3, np.int64))
    painted = remote.render()
    assert isinstance(painted, tuple)
    assert [frame.shape for frame in painted] == [(4, 5, 3)] * 3
    assert all((frame == 1).all() for frame in painted)
    assert make(1).render() is None


def test_a_pickled_copy_opens_sessions_of_its_own_at_its_next_reset(connection, servers):
    local = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3)
    with servers.lend("CartPole-v1") as server:
        original = server.vector_environment(3, workers=2, connection=connection)
        original.reset(seed=1)
        original.step_async(original.action_space.sample())
        with contextlib.closing(pickle.loads(pickle.dumps(original))) as copy:
            assert server.server.session_count == 2
            for use in (copy.step, copy.step_async, copy.send):
                with pytest.raises(ResetNeeded):
                    use(copy.action_space.sample())
            with pytest.raises(SessionLost, match="reset opens one"):
                copy.call("state")
            play(local, copy, steps=20)
            assert server.server.session_count == 4
            original.step_wait()
            play(local, original, steps=20)
    local.close()


def test_closing_twice_and_using_it_after(make, server):
    remote = make(2, workers=2)
    remote.reset()
    remote.step_async(np.zeros(2, np.int64))
    remote.close()
    remote.close()
    assert remote.closed
    wait_until(lambda: server.server.session_count == 0)
    with pytest.raises(ClosedEnvironmentError):
        remote.step(np.zeros(2, np.int64))


@pytest.mark.skipif(int(gym.__version__.split(".")[0]) < 1, reason="make_vec makes another kind before Gymnasium 1.0")
def test_make_vec_makes_one(server):
    arguments = {"port": server.server.port, "client_credentials_paths": server.client_credentials_paths}
    remote = gym.make_vec("remote_gym/Remote-v0", num_envs=3, workers=2, **arguments)
    try:
        assert isinstance(remote, RemoteVectorEnv)
        assert remote.num_envs == 3
        remote.reset(seed=1)
        assert remote.step(np.zeros(3, np.int64))[1].shape == (3,)
    finally:
        remote.close()


def test_gymnasiums_vector_wrappers_work(make):
    wrappers = pytest.importorskip("gymnasium.wrappers.vector", reason="Gymnasium has had it since 1.0")
    remote = wrappers.RecordEpisodeStatistics(make(4, workers=2))
    remote.reset(seed=2)
    seen = 0
    for _ in range(20):
        *_, infos = remote.step(np.zeros(4, np.int64))
        seen += int(infos.get("_episode", np.zeros(4)).sum())
    assert seen > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 2, "workers": 3}, "^workers is 3, but num_envs only 2; use at least as many environments"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"num_envs": 2, "addresses": []}, "addresses is empty"),
        ({"num_envs": 2, "render_mode": "human"}, "rgb_array"),
        ({"num_envs": 2, "autoreset_mode": "Sometimes"}, "'NextStep', 'SameStep', 'Disabled'"),
        ({"num_envs": 2, "frames": "always"}, "on_demand"),
        ({"num_envs": 2, "addresses": ["nowhere"]}, "HOST:PORT"),
        ({"num_envs": 5000}, "max_num_envs"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message, server):
    with pytest.raises(ConfigError, match=message):
        server.vector_environment(**arguments)
    assert server.server.session_count == 0


MEETING = """
import os, pathlib, time
import gymnasium as gym


def create_environment(env_id):
    pathlib.Path(f"here-{env_id}").touch()
    deadline = time.monotonic() + 60
    while len(list(pathlib.Path().glob("here-*"))) < 4:
        assert time.monotonic() < deadline, "the others are not opened before this one"
        time.sleep(0.01)
    return gym.make("CartPole-v1")
"""


def test_workers_are_opened_and_connected_to_all_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "entrypoint.py").write_text(MEETING)
    with loopback_server({"entrypoint": "entrypoint.py"}) as server:
        server.vector_environment(4, workers=4, connection="direct")
        # A connection takes several round trips, and requests are sent to one worker after another.
        wait_until(lambda: [found.direct for found in server.server._service._live] == [True] * 4)
