"""A spec leads to the server's environment, and what of it is written to files names no address and no key."""

from __future__ import annotations

import copy
import json
import pickle

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

import remote_gym
from remote_gym.testing import loopback_server

ID = "remote_gym/Remote-v0"
ENTRYPOINT = """
import gymnasium as gym
import numpy as np

class Unregistered(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return np.int64(0), {}

def create_environment():
    return Unregistered()
"""


@pytest.fixture(scope="module")
def server():
    with loopback_server("FrozenLake-v1", use_thread=True) as running:
        yield running


@pytest.fixture
def arguments(server):
    place = {"url": server.server.url, "port": server.server.port}
    return {**place, "client_credentials_paths": server.client_credentials_paths}


def assert_says_nothing(written: str, arguments) -> None:
    for told in (str(arguments["port"]), str(arguments["client_credentials_paths"][0].parent), "localhost", "pem"):
        assert told not in written
    assert not {"url", "port", "addresses", "client_credentials_paths", "token"} & set(json.loads(written)["kwargs"])


def test_what_gymnasium_makes_has_the_servers_spec(arguments):
    assert remote_gym
    environment, local = gym.make(ID, **arguments), gym.spec("FrozenLake-v1")
    for name in ("id", "reward_threshold", "max_episode_steps", "nondeterministic", "namespace", "name", "version"):
        assert getattr(environment.spec, name) == getattr(local, name), name
    assert "FrozenLake-v1" in str(environment)
    again = gym.make(environment.spec)  # by connecting once more
    assert again.spec.id == "FrozenLake-v1"
    again.reset(seed=1)
    limited = gym.make(ID, max_episode_steps=7, **arguments)
    assert (limited.spec.max_episode_steps, limited.spec.id) == (7, "FrozenLake-v1")
    for each in (environment, again, limited):
        each.close()


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: TimeLimit(env, 30), RecordEpisodeStatistics])
def test_what_is_written_leaves_out_addresses_and_keys_that_copies_keep(wrap, server, arguments):
    environments = [
        gym.make(ID, **arguments),
        server.environment(),
        server.environment(addresses=[(arguments["url"], arguments["port"])], on_session_lost="truncate"),
    ]
    for environment in environments:
        spec = wrap(environment).spec
        assert_says_nothing(spec.to_json(), arguments)
        for copied in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
            assert copied.kwargs == spec.kwargs
            assert copied.kwargs["client_credentials_paths"][0] == str(arguments["client_credentials_paths"][0])
            assert_says_nothing(copied.to_json(), arguments)
            again = gym.make(copied)
            again.reset()
            again.close()
        read = EnvSpec.from_json(spec.to_json())
        assert read.id == "FrozenLake-v1"
        again = gym.make(read, **arguments)
        again.reset()
        again.close()
        environment.close()


def test_where_the_server_has_none_it_is_gymnasiums_and_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unregistered.py").write_text(ENTRYPOINT)
    with loopback_server({"entrypoint": "unregistered.py"}) as server:
        paths = server.client_credentials_paths
        arguments = {"url": "localhost", "port": server.server.port, "client_credentials_paths": paths}
        assert server.environment().spec is None
        environment = gym.make(ID, token="secret", **arguments)
        assert environment.spec.id == ID
        assert "token" not in environment.spec.kwargs
        assert_says_nothing(environment.spec.to_json(), arguments)
        assert environment.spec.kwargs["port"] == server.server.port
        environment.close()


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="make_vec sets no spec that is written")
def test_a_vector_environments_spec_writes_no_more(arguments):
    environments = gym.make_vec(ID, num_envs=2, **arguments)
    assert environments.spec.id == ID
    assert_says_nothing(environments.spec.to_json(), arguments)
    assert environments.spec.kwargs["port"] == arguments["port"]
    environments.close()


@pytest.mark.filterwarnings("ignore")  # of what else a data set should have, and of its temporary files
def test_data_sets_of_minari_name_neither_server_nor_keys(arguments, tmp_path, monkeypatch):
    for needed in ("jax", "h5py"):  # to create data sets
        pytest.importorskip(needed, reason="Minari and what it needs are in no lock")
    minari = pytest.importorskip("minari", reason="Minari is in no lock")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    collector = minari.DataCollector(gym.make(ID, **arguments))
    collector.reset(seed=1)
    for _ in range(5):
        collector.step(collector.action_space.sample())
    collector.create_dataset("lake/test-v0")
    collector.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for told in (str(arguments["client_credentials_paths"][0].parent), ".pem", "client_credentials_paths"):
            assert told.encode() not in content, path
    spec = minari.load_dataset("lake/test-v0").env_spec
    assert spec.id == "FrozenLake-v1"
    assert not {"url", "port"} & set(spec.kwargs)
